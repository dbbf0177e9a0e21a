import { after, before } from "node:test";
import { IMAGE_REPLAYS } from "./convertor-replay-images.ts";
import { describeReplays } from "./convertor-replay-judge.ts";
import { Stage } from "./convertor-replay-stage.ts";

let stage: Stage;
before(async () => (stage = await Stage.open()));
after(async () => await stage[Symbol.asyncDispose]());

describeReplays(IMAGE_REPLAYS, () => stage);
