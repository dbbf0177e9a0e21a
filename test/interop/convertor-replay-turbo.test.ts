import { after, before } from "node:test";
import { TURBO_REPLAYS } from "./convertor-replay-turbo.ts";
import { describeReplays } from "./convertor-replay-judge.ts";
import { Stage } from "./convertor-replay-stage.ts";

let stage: Stage;
before(async () => (stage = await Stage.open()));
after(async () => await stage[Symbol.asyncDispose]());

describeReplays(TURBO_REPLAYS, () => stage);
