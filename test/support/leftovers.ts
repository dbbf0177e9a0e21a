import { after } from "node:test";
import { isMainThread } from "node:worker_threads";

const PATIENCE_MS = 10_000;

/**
 * Loaded before each test file. A file whose tests are over but whose process does not end, because a test left a timer, a
 * socket or a process behind, would keep the run waiting for ever: it fails instead. (`--test-force-exit` loses results.)
 */
if (isMainThread && process.env["NODE_TEST_CONTEXT"] !== undefined) {
  after(() => {
    setTimeout(() => {
      console.error(`still running ${PATIENCE_MS / 1000} s after the last test: ${process.getActiveResourcesInfo().join(", ")}`);
      process.exit(1);
    }, PATIENCE_MS).unref();
  });
  // When all is done and said, Node frees what it holds, and now and then turns in circles there, at full load, without anything left
  // to wait for (24.21, after thousands of broken connections). Leaving from here passes over that.
  process.on("exit", (status) => process.exit(status));
}
