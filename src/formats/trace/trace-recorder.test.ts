import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { MAX_RECORD_BYTES, type TraceRecord } from "./layout.ts";
import { optimizeTrace } from "./optimize-trace.ts";
import { TraceRecorder } from "./trace-recorder.ts";

const read = (layer: number, offset: number, length: number): TraceRecord => ({ op: "read", layer, offset, length });

function record(reads: readonly TraceRecord[], maxRecords?: number): TraceRecorder {
  const recorder = new TraceRecorder({ ...(maxRecords !== undefined && { maxRecords }) });
  for (const { layer, offset, length } of reads) recorder.add(layer, offset, length);
  return recorder;
}

/** Units of 64 KiB that records name, in the order in which each is named first. */
const UNIT = 65536;
function unitsOf(records: readonly TraceRecord[]): string[] {
  const units = new Set<string>();
  for (const { layer, offset, length } of records) {
    for (let at = offset; at < offset + length; at += UNIT) units.add(`${layer} ${at / UNIT}`);
  }
  return [...units];
}

const reads = fc.array(
  fc
    .tuple(fc.nat(2), fc.nat(60), fc.integer({ min: 1, max: 40 }))
    .map(([layer, offset, length]): TraceRecord => read(layer, offset * UNIT, length * UNIT)),
  { maxLength: 40 },
);

test("each byte is recorded once, in the order of first access", () => {
  const { records, bytes } = record([read(0, 100, 100), read(1, 100, 50), read(0, 150, 100), read(0, 0, 300), read(1, 100, 50)]);
  assert.deepEqual(records, [read(0, 100, 100), read(1, 100, 50), read(0, 200, 50), read(0, 0, 100), read(0, 250, 50)]);
  assert.equal(bytes, 350);
});

test("a read that goes on where the last one ended becomes one with it, up to 1 MiB", () => {
  const step = 384 * 1024;
  const { records } = record([0, 1, 2, 3].map((index) => read(4, index * step, step)));
  assert.deepEqual(records, [read(4, 0, 2 ** 20), read(4, 2 ** 20, 4 * step - 2 ** 20)]);
  assert.deepEqual(record([read(0, 0, 3 * 2 ** 20 + 7)]).records.map(({ length }) => length), [2 ** 20, 2 ** 20, 2 ** 20, 7]); // prettier-ignore
  assert.deepEqual(record([read(0, 5, 0)]).records, []);
});

test("a record has the time of its first byte", () => {
  let now = 0;
  const recorder = new TraceRecorder({ now: () => (now += 10) });
  recorder.add(0, 0, 100);
  recorder.add(0, 100, 100);
  recorder.add(0, 50, 100);
  recorder.add(1, 0, 2 ** 21);
  assert.equal(recorder.records.length, 3);
  assert.deepEqual(recorder.times, [10, 20, 30]);
});

test("what is recorded is what was read, once and in its order", () => {
  fc.assert(
    fc.property(reads, (all) => {
      const { records, bytes, overflowed } = record(all);
      assert.deepEqual(unitsOf(records), unitsOf(all));
      assert.equal(
        bytes,
        records.reduce((sum, { length }) => sum + length, 0),
      );
      assert.equal(bytes, unitsOf(all).length * UNIT);
      assert.ok(records.every(({ length }) => length <= MAX_RECORD_BYTES));
      assert.equal(overflowed, false);
    }),
  );
});

test("a full recording keeps what it has, and says so once, when something is left out", () => {
  let said = 0;
  const recorder = new TraceRecorder({ maxRecords: 2, onFull: () => said++ });
  for (const offset of [0, 20, 30, 20]) recorder.add(0, offset, 10);
  assert.equal(said, 0);
  for (const [offset, length] of [[50, 10], [40, 5], [70, 10]] as const) recorder.add(0, offset, length); // prettier-ignore
  assert.equal(said, 1);
  const { records, overflowed } = record([read(0, 0, 10), read(0, 20, 10), read(0, 40, 10), read(0, 30, 5)], 2);
  assert.deepEqual(records, [read(0, 0, 10), read(0, 20, 10)]);
  assert.equal(overflowed, true);
});

test("an optimised trace joins what is near, at the place of the earliest", () => {
  const trace = [read(1, 5000, 100), read(0, 0, 10), read(1, 0, 4000), read(1, 5000, 100), read(1, 20_000, 5)];
  assert.deepEqual(optimizeTrace(trace, 1000), [read(1, 0, 5100), read(0, 0, 10), read(1, 20_000, 5)]);
  assert.deepEqual(optimizeTrace(trace, 999), [read(1, 5000, 100), read(0, 0, 10), read(1, 0, 4000), read(1, 20_000, 5)]);
  assert.deepEqual(optimizeTrace([{ op: "write", layer: 0, offset: 0, length: 4096 }], 0), []);
});

test("a late read is not drawn far ahead by an early one that it touches", () => {
  const trace = [read(0, 0, 2 ** 20), read(1, 0, 4096), read(0, 2 ** 20, 4096)];
  assert.deepEqual(optimizeTrace(trace, 2 ** 20), trace);
});

test("an optimised trace names everything that was read, only gaps besides, and no byte twice", () => {
  fc.assert(
    fc.property(reads, fc.nat(3), (all, gapUnits) => {
      const optimized = optimizeTrace(all, gapUnits * UNIT);
      const wanted = new Set(unitsOf(all));
      const named = unitsOf(optimized);
      assert.equal(named.length * UNIT, optimized.reduce((sum, { length }) => sum + length, 0)); // prettier-ignore
      assert.ok([...wanted].every((unit) => named.includes(unit)));
      assert.ok(optimized.every(({ length }) => length <= MAX_RECORD_BYTES));
      const more = named.filter((unit) => !wanted.has(unit));
      assert.ok(gapUnits > 0 || more.length === 0);
      for (const unit of more) {
        const [layer, index] = unit.split(" ").map(Number);
        const near = [...wanted].some((other) => {
          const [otherLayer, otherIndex] = other.split(" ").map(Number);
          return otherLayer === layer && Math.abs(otherIndex - index) <= gapUnits;
        });
        assert.ok(near, `${unit} is in no gap`);
      }
      assert.deepEqual(optimizeTrace(optimized, gapUnits * UNIT), optimized, "there is nothing more to do");
    }),
  );
});

test("a trace that names petabytes is refused instead of being gone through", () => {
  const huge = [read(0, 0, 2 ** 50)];
  assert.throws(() => optimizeTrace(huge, 0), { code: "UNSUPPORTED", message: /names 1073741824 MiB, expected at most 2097152/ });
});
