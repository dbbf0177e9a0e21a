import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { BufferPool } from "./buffer-pool.ts";

test("nobody gets memory that somebody else has, whatever is given back, and no more is kept than may be", () => {
  const step = fc.oneof(
    fc.record({
      kind: fc.constant("take" as const),
      bytes: fc.oneof(fc.nat(5000), fc.nat(2 ** 21), fc.constantFrom(4096 + 28, 2 ** 20 + 64)),
    }),
    fc.record({ kind: fc.constantFrom("give" as const, "give twice" as const), which: fc.nat() }),
    fc.record({ kind: fc.constant("clear" as const) }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
      const pool = new BufferPool(2 ** 21);
      const lent: Buffer[] = [];
      for (const each of steps) {
        if (each.kind === "take") {
          const taken = pool.take(each.bytes);
          assert.equal(taken.length, each.bytes);
          assert.ok(each.bytes === 0 || lent.every(({ buffer }) => buffer !== taken.buffer));
          lent.push(taken);
        } else if (each.kind === "clear") pool.clear();
        else if (lent.length > 0) {
          const [given] = lent.splice(each.which % lent.length, 1);
          pool.give(given);
          if (each.kind === "give twice") pool.give(given);
        }
        assert.ok(pool.freeBytes >= 0 && pool.freeBytes <= 2 ** 21);
      }
    }),
    { numRuns: 300 },
  );
});

test("memory is used again, for anything of about the same length, until it is cleared", () => {
  const pool = new BufferPool(2 ** 20);
  const first = pool.take(4096 + 28);
  pool.give(first);
  assert.equal(pool.freeBytes, 4096 + 64);
  assert.equal(pool.take(3000).buffer, first.buffer);
  pool.give(first);
  pool.clear();
  assert.equal(pool.freeBytes, 0);
  assert.notEqual(pool.take(4096).buffer, first.buffer);
  pool.give(Buffer.alloc(4096 + 64));
  assert.equal(pool.freeBytes, 0, "strangers' memory is not taken");
});
