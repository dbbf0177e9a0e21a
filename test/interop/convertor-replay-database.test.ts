import { after, before } from "node:test";
import { DATABASE_REPLAYS } from "./convertor-replay-database.ts";
import { describeReplays } from "./convertor-replay-judge.ts";
import { Stage } from "./convertor-replay-stage.ts";

let stage: Stage;
before(async () => (stage = await Stage.open({ withDatabase: true })));
after(async () => await stage[Symbol.asyncDispose]());

describeReplays(DATABASE_REPLAYS, () => stage);
