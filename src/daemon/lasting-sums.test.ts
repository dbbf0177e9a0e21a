import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { LastingSums, type ProcessCounts } from "./lasting-sums.ts";

function said(id: string, pid: number, upSeconds: number, ...counts: number[]): ProcessCounts {
  return { id, pid, upSeconds, counts };
}

test("what processes had stays when their device is removed, starts again, or does not answer", () => {
  const sums = new LastingSums(2);
  const both = new Set(["a", "b"]);
  assert.deepEqual(sums.add([], both), [0, 0]);
  assert.deepEqual(sums.add([said("a", 1, 5, 10, 1), said("b", 2, 5, 20, 2)], both), [30, 3]);
  assert.deepEqual(sums.add([said("b", 2, 6, 25, 2)], both), [35, 3], "a does not answer");
  assert.deepEqual(sums.add([said("a", 3, 0, 4, 0)], both), [39, 3], "a has another process, and b does not answer");
  assert.deepEqual(sums.add([said("a", 3, 1, 5, 1)], new Set(["a"])), [40, 4], "b is removed");
  assert.deepEqual(sums.add([said("a", 3, 0, 1, 0)], new Set(["a"])), [41, 4], "another process has the number");
  assert.deepEqual(sums.add([said("a", 3, 0, 1, 0), said("b", 9, 0, 1, 1)], both), [42, 5], "b is another device");
  assert.deepEqual(sums.add([], new Set()), [42, 5]);
});

test("sums never fall, and are of all that was said last of each process", () => {
  const step = fc.record({
    id: fc.constantFrom("a", "b", "c", "d"),
    what: fc.constantFrom("answers", "is silent", "starts again", "goes"),
    more: fc.double({ min: 0, max: 1, noNaN: true }),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const sums = new LastingSums(1);
      const living = new Map<string, { pid: number; upSeconds: number; count: number }>();
      let [pids, total, before] = [0, 0, 0];
      for (const { id, what, more } of steps) {
        if (what === "goes") living.delete(id);
        if (what === "starts again") living.set(id, { pid: ++pids, upSeconds: 0, count: 0 });
        const process = living.get(id);
        const answers: ProcessCounts[] = [];
        if (what === "answers" && process !== undefined) {
          process.count += more;
          total += more;
          answers.push(said(id, process.pid, ++process.upSeconds, process.count));
        }
        const [sum] = sums.add(answers, new Set(living.keys()));
        assert.ok(sum >= before, `${sum} after ${before}`);
        assert.ok(Math.abs(sum - total) < 1e-9, `${sum}, expected ${total}`);
        before = sum;
      }
    }),
    { seed: 20_261_122 },
  );
});
