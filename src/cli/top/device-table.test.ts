import assert from "node:assert/strict";
import { test } from "node:test";
import type { DeviceStats } from "../../daemon/device-stats.ts";
import type { SampledDevice } from "./device-sample.ts";
import { deviceTable } from "./device-table.ts";

const WIDE = { columns: 80, rows: undefined };

/** A device that has answered so many reads of 1 MB, of which one in four waited. */
function device(id: string, reads: number, changes: Partial<DeviceStats> = {}): SampledDevice {
  const latency = { seconds: 1, maxSeconds: 0.0123, buckets: [] };
  const stats: DeviceStats = {
    id,
    pid: 1,
    upSeconds: 1,
    rssBytes: 123_456_789,
    sizeBytes: 64 * 2 ** 30,
    blobBytes: 1,
    layers: 1,
    readOnly: true,
    reads: { cached: (reads * 3) / 4, cachedBytes: reads * 750_000, waited: reads / 4, waitedBytes: reads * 250_000, latency },
    writes: { requests: 0, bytes: 0, discards: 0, flushes: 0 },
    fetches: { requests: 0, bytes: 0 },
    downloads: { requests: 0, bytes: reads * 100_000, latency },
    layerDownloads: { total: 0, done: 0, failed: 0, bytes: 0 },
    evictions: { files: 0, bytes: 0 },
    errors: { CORRUPT: 1, UNAVAILABLE: 1200 },
    ...changes,
  };
  const report = { id, state: "running", config: "/c", expose: { kind: "loop" }, sizeBytes: stats.sizeBytes, restarts: 0 } as const;
  return { report, stats };
}

function broken(id: string): SampledDevice {
  return { report: { id, state: "restarting", config: "/c", expose: { kind: "mount", directory: "/m" }, restarts: 3 }, stats: undefined };
}

test("rates are of the time between two samples, the busiest first, and before them what does not run", () => {
  const before = { ms: 1000, devices: [device("quiet", 40), device("busy", 100), device("anew", 1_000), device("fresh", 0)] };
  const devices = [
    device("quiet", 44),
    device("busy", 300),
    device("anew", 8, { pid: 2 }),
    broken("broken"),
    device("d10", 4),
    device("d9", 4),
  ];
  assert.deepEqual(deviceTable(before, { ms: 3000, devices }, WIDE), [
    "6 devices, 5 running  102 reads/s  102.0 MB/s  net 10.2 MB/s  RSS 617.3 MB",
    "DEVICE STATE   AS     SIZE READ/S   MB/S HIT%   NET   MAX   RSS  ERR",
    "broken restart mount     -      -      -    -     -     -     -    -",
    "busy   running loop    69G    100  100.0   75  10.0  12ms  123M 1.2k",
    "quiet  running loop    69G      2    2.0   75   0.2  12ms  123M 1.2k",
    "anew   running loop    69G      -      -    -     -  12ms  123M 1.2k",
    "d9     running loop    69G      -      -    -     -  12ms  123M 1.2k",
    "d10    running loop    69G      -      -    -     -  12ms  123M 1.2k",
  ]);
});

test("lines fit into 80 columns, whatever the devices do, and into the rows of the terminal", () => {
  const latency = { seconds: 1, maxSeconds: 3_600, buckets: [] };
  const long = "d".repeat(64);
  const reads = { cached: 0, cachedBytes: 0, waited: 20_000, waitedBytes: 2e9, latency };
  const downloads = { requests: 1, bytes: 1e9, latency };
  const devices = Array.from({ length: 50 }, (_, index) => device(`${long}${index}`, 0, { reads, downloads, errors: { CORRUPT: 9e8 } }));
  const before = { ms: 0, devices: devices.map(({ report: { id } }) => device(id, 0)) };
  const now = { ms: 1000, devices };
  const whole = deviceTable(before, now, WIDE);
  assert.equal(whole.length, 52);
  for (const line of whole) assert.ok(line.length < 80, line);
  const cut = deviceTable(before, now, { columns: 80, rows: 23 });
  assert.equal(cut.length, 23);
  assert.equal(cut.at(-1), "and 30 more");
  assert.equal(deviceTable(before, now, { columns: 80, rows: 52 }).length, 52);
  const wide = deviceTable(before, now, { columns: 200, rows: 23 });
  assert.match(wide[2], new RegExp(`^${long}`));
  for (const rows of [1, 2, 3]) assert.ok(deviceTable(before, now, { columns: 20, rows }).length >= 1);
});

test("no devices are a table, too", () => {
  assert.deepEqual(deviceTable(undefined, { ms: 0, devices: [] }, WIDE), [
    "0 devices  0 reads/s  0 B/s  net 0 B/s  RSS 0 B",
    "DEVICE STATE   AS     SIZE READ/S   MB/S HIT%   NET   MAX   RSS  ERR",
  ]);
});
