import assert from "node:assert/strict";
import { test } from "node:test";
import { MemorySource } from "../bytes/source.ts";
import { corrupt } from "../errors.ts";
import { countError, Stopwatch, TimedSource, type ErrorCounts, type ToldRead } from "./stopwatch.ts";

test("reads that end are timed, those that fail are counted by code, and all are told of", async () => {
  const stopwatch = new Stopwatch();
  const errors: ErrorCounts = {};
  const told: ToldRead[] = [];
  const options = { errors, told: (read: ToldRead) => told.push(read) };
  const source = new TimedSource(new MemorySource(Buffer.from("0123456789")), stopwatch, options);
  assert.equal(Buffer.from(await source.read(2, 3)).toString(), "234");
  await assert.rejects(source.read(8, 3), { code: "CORRUPT" });
  assert.deepEqual([stopwatch.requests, stopwatch.bytes], [1, 3]);
  assert.deepEqual(errors, { CORRUPT: 1 });
  assert.deepEqual(
    told.map(({ offset, size }) => [offset, size]),
    [
      [2, 3],
      [8, -1],
    ],
  );
  const { buckets, maxSeconds, seconds } = stopwatch.latency();
  assert.equal(buckets.at(-1)?.count, 1);
  assert.ok(maxSeconds > 0 && seconds === maxSeconds);
});

test("distrust reaches the place that gave the bytes", () => {
  let distrusted = 0;
  const inner = Object.assign(new MemorySource(Buffer.alloc(1)), { distrust: () => distrusted++ });
  new TimedSource(inner, new Stopwatch()).distrust();
  assert.equal(distrusted, 1);
});

test("buckets count all that took no longer, and the longest is forgotten after two windows", async (context) => {
  let nowMs = 1_000_000;
  context.mock.method(performance, "now", () => nowMs);
  const stopwatch = new Stopwatch();
  const take = async (milliseconds: number): Promise<unknown> =>
    await stopwatch.time(async () => {
      nowMs += milliseconds;
      return new Uint8Array(10);
    });
  for (const milliseconds of [0.5, 4, 90, 400, 20_000]) await take(milliseconds);
  const { buckets, maxSeconds } = stopwatch.latency();
  assert.deepEqual(
    buckets.map(({ count }) => count),
    [1, 2, 2, 3, 4, 4, 4],
  );
  assert.equal(maxSeconds, 20);
  nowMs += 6_000;
  await take(10);
  assert.equal(stopwatch.latency().maxSeconds, 20);
  nowMs += 6_000;
  assert.ok(stopwatch.latency().maxSeconds < 0.02);
  nowMs += 60_000;
  assert.equal(stopwatch.latency().maxSeconds, 0);
});

test("what is not one of our errors counts as unavailable", () => {
  const counts: ErrorCounts = {};
  countError(counts, new Error("a file system's"));
  countError(counts, corrupt("bytes"));
  countError(counts, corrupt("bytes"));
  assert.deepEqual(counts, { UNAVAILABLE: 1, CORRUPT: 2 });
});
