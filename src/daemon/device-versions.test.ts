import assert from "node:assert/strict";
import { test } from "node:test";
import { deviceReportSchema } from "./device-report.ts";
import { deviceStatsSchema } from "./device-stats.ts";
import { deviceSpecSchema, deviceStateSchema } from "./exposure-schema.ts";

/** The same with a key that nobody knows, in every object. */
function extended(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(extended);
  if (typeof value !== "object" || value === null) return value;
  return { ...Object.fromEntries(Object.entries(value).map(([key, item]) => [key, extended(item)])), later: 1 };
}

test("a daemon finds devices, and understands them, that a later version has made", () => {
  const count = { requests: 1, bytes: 2 };
  const latency = { seconds: 1, maxSeconds: 1, buckets: [{ seconds: 1, count: 1 }] };
  const common = { sizeBytes: 4096, readOnly: true, layers: 1 };
  const access = { kind: "loop", path: "/disk", device: "/dev/loop0" };
  const state = { pid: 7, access, ...common };
  const report = { id: "a", state: "running", config: "/c", expose: { kind: "loop" }, restarts: 0, ...state };
  const stats = {
    id: "a",
    pid: 7,
    upSeconds: 1,
    rssBytes: 1,
    blobBytes: 1,
    ...common,
    reads: { cached: 1, cachedBytes: 1, waited: 1, waitedBytes: 1, latency },
    writes: { ...count, discards: 0, flushes: 0 },
    fetches: count,
    downloads: { ...count, latency },
    layerDownloads: { total: 1, done: 1, failed: 0, bytes: 1 },
    evictions: { files: 1, bytes: 1 },
    trace: { mode: "replay", path: "/t", active: true, pieces: 1, bytes: 1, failed: 0 },
  };
  assert.deepEqual(deviceStateSchema.parse(extended(state)), state);
  assert.deepEqual(deviceReportSchema.parse({ ...(extended(report) as object), expose: report.expose }), report);
  assert.deepEqual(deviceStatsSchema.parse({ ...(extended(stats) as object), errors: {} }), { ...stats, errors: {} });
  const spec = { id: "a", configPath: "/c", expose: { kind: "fuse" } };
  assert.deepEqual(deviceSpecSchema.parse({ ...spec, later: 1 }), spec);
});
