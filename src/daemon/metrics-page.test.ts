import assert from "node:assert/strict";
import { test } from "node:test";
import type { DeviceStats, Latency } from "./device-stats.ts";
import { MetricsPage, type Observation } from "./metrics-page.ts";
import { LATENCY_BOUNDS } from "./stopwatch.ts";

/** All that took so long. */
function latencyOf(count: number, seconds: number): Latency {
  const buckets = LATENCY_BOUNDS.map((bound) => ({ seconds: bound, count: seconds <= bound ? count : 0 }));
  return { seconds: count * seconds, maxSeconds: seconds, buckets };
}

function statsOf(bytes: number, changes: Partial<DeviceStats> = {}): DeviceStats {
  return {
    id: 'any "name"',
    pid: 1,
    upSeconds: 1,
    rssBytes: 1000,
    sizeBytes: 1,
    blobBytes: 1,
    layers: 1,
    readOnly: true,
    reads: { cached: 10, cachedBytes: bytes, waited: 2, waitedBytes: 500, latency: latencyOf(2, 0.25) },
    writes: { requests: 3, bytes: 300, discards: 0, flushes: 0 },
    fetches: { requests: 4, bytes: 400 },
    downloads: { requests: 5, bytes: 2 * bytes, latency: latencyOf(5, 60) },
    layerDownloads: { total: 5, done: 2, failed: 1, bytes: 600 },
    evictions: { files: 6, bytes: 600 },
    trace: { mode: "replay", path: "/trace", active: true, pieces: 7, bytes: 700, failed: 8 },
    errors: { CORRUPT: 2 },
    ...changes,
  };
}

function observation(unixMs: number, devices: readonly DeviceStats[]): Observation {
  return {
    hostname: 'a"b\\c',
    unixMs,
    ids: new Set(devices.map(({ id }) => id)),
    devices,
    states: { running: devices.length },
    restarts: 7,
  };
}

test("figures have the names, labels and form that dashboards expect", () => {
  const text = new MetricsPage().render(observation(1_700_000_000_000, [statsOf(1000)]));
  const [first] = text.split("\n\n");
  assert.equal(first, '# HELP OverlayBD_Alive \n# TYPE OverlayBD_Alive gauge\nOverlayBD_Alive{node="a\\"b\\\\c"}  1.000000 1700000000000');
  for (const line of [
    'OverlayBD_Read_Throughtput{node="pread",type="",mode=""}  0.000000 1700000000000',
    'OverlayBD_QPS{node="download",type="",mode=""}  0.000000 1700000000000',
    'OverlayBD_MaxLatency{node="pread",type="",mode=""}  250000.000000 1700000000000',
    'OverlayBD_Count{node="pread",type=""}  1500.000000 1700000000000',
    'OverlayBD_Count{node="download",type=""}  2000.000000 1700000000000',
  ]) {
    assert.ok(text.includes(`\n${line}\n`), line);
  }
});

test("rates are of the time since the page was made last, and never negative", () => {
  const page = new MetricsPage();
  page.render(observation(1_000_000, [statsOf(1000)]));
  const later = page.render(observation(1_004_000, [statsOf(5000)]));
  assert.ok(later.includes('OverlayBD_Read_Throughtput{node="pread",type="",mode=""}  1000.000000 1004000\n'));
  assert.ok(later.includes('OverlayBD_Read_Throughtput{node="download",type="",mode=""}  2000.000000 1004000\n'));
  // A device that was removed takes its counts with it.
  assert.ok(
    page.render(observation(1_005_000, [])).includes('OverlayBD_Read_Throughtput{node="pread",type="",mode=""}  0.000000 1005000\n'),
  );
});

test("our own figures are sums of all devices, and no label has a device's name", () => {
  const text = new MetricsPage().render(observation(1, [statsOf(1000), statsOf(2000, { id: 'the "name" of another' })]));
  for (const line of [
    'lazylayer_devices{state="running"} 2',
    'lazylayer_devices{state="restarting"} 0',
    "lazylayer_device_restarts_total 7",
    'lazylayer_read_bytes_total{answered="cached"} 3000',
    'lazylayer_read_seconds_bucket{le="0.1"} 0',
    'lazylayer_read_seconds_bucket{le="0.5"} 4',
    "lazylayer_evictions_total 12",
    "lazylayer_evicted_bytes_total 1200",
    'lazylayer_traces{mode="record"} 0',
    'lazylayer_traces{mode="replay"} 2',
    "lazylayer_prefetched_bytes_total 1400",
    "lazylayer_prefetch_failures_total 16",
    "lazylayer_read_seconds_sum 1",
    'lazylayer_download_seconds_bucket{le="10"} 0',
    'lazylayer_download_seconds_bucket{le="+Inf"} 10',
    "lazylayer_download_seconds_count 10",
    'lazylayer_errors_total{code="CORRUPT"} 4',
    'lazylayer_errors_total{code="DENIED"} 0',
  ]) {
    assert.ok(text.includes(`\n${line}\n`), line);
  }
  assert.ok(!text.includes("name"));
});

test("counters and histograms do not fall when a device is removed, starts again or does not answer; gauges do", () => {
  const page = new MetricsPage();
  const other = statsOf(500, { id: "other" });
  page.render(observation(1, [statsOf(1000), other]));
  const silent = page.render({ ...observation(2, [statsOf(1000)]), ids: new Set([other.id, statsOf(0).id]) });
  const again = page.render(observation(3, [statsOf(50, { pid: 2, upSeconds: 0 })]));
  const none = page.render(observation(4, []));
  for (const [line, ...values] of [
    ['lazylayer_read_bytes_total{answered="cached"}', 1500, 1550, 1550],
    ["lazylayer_downloaded_bytes_total", 3000, 3100, 3100],
    ['lazylayer_read_seconds_bucket{le="0.5"}', 4, 6, 6],
    ["lazylayer_read_seconds_count", 4, 6, 6],
    ["lazylayer_read_seconds_sum", 1, 1.5, 1.5],
    ["lazylayer_prefetched_bytes_total", 1400, 2100, 2100],
    ['lazylayer_errors_total{code="CORRUPT"}', 4, 6, 6],
    ["lazylayer_device_resident_bytes", 1000, 1000, 0],
    ['lazylayer_traces{mode="replay"}', 1, 1, 0],
  ] as const) {
    for (const [index, text] of [silent, again, none].entries()) {
      assert.ok(text.includes(`\n${line} ${values[index]}\n`), `${line} ${values[index]}, page ${index}:\n${text}`);
    }
  }
});
