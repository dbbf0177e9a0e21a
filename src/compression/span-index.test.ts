import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { PlainSpans, SPAN_BYTES, spanAt } from "./span-index.ts";

test("the span of every offset is found", () => {
  const lengths = fc.array(fc.integer({ min: 1, max: 1000 }), { minLength: 1, maxLength: 50 });
  fc.assert(
    fc.property(lengths, fc.nat(), (all, place) => {
      const starts = all.map((_, span) => all.slice(0, span).reduce((sum, length) => sum + length, 0));
      const contentBytes = starts.at(-1)! + all.at(-1)!;
      const index = { spanCount: all.length, contentOffset: (span: number) => starts[span] ?? contentBytes };
      const offset = place % contentBytes;
      const span = spanAt(index, offset);
      assert.ok(index.contentOffset(span) <= offset && offset < index.contentOffset(span + 1));
    }),
  );
});

test("plain data has spans of one size, and its spans are themselves", () => {
  for (const contentBytes of [0, 1, SPAN_BYTES - 1, SPAN_BYTES, SPAN_BYTES + 1, 3 * SPAN_BYTES]) {
    const spans = new PlainSpans(contentBytes);
    assert.deepEqual([spans.storedBytes, spans.contentBytes], [contentBytes, contentBytes]);
    assert.equal(spans.spanCount, Math.ceil(contentBytes / SPAN_BYTES));
    assert.equal(spans.contentOffset(spans.spanCount), contentBytes);
    for (let span = 0; span < spans.spanCount; span++) {
      const { start, end } = spans.storedRange(span);
      assert.deepEqual([start, end], [spans.contentOffset(span), spans.contentOffset(span + 1)]);
      const stored = Buffer.alloc(end - start, span);
      assert.ok(stored.equals(spans.decode(span, stored)));
      assert.throws(() => spans.decode(span, stored.subarray(1)), { name: "LazyError", code: "CORRUPT", message: /expected/ });
    }
  }
});
