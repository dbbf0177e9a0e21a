import { countInThread } from "./work-counts.ts";

// The thread of a conversion, counted: nothing of it may run before that.
countInThread();
await import("../../src/convert/layer-scan-worker.ts");
