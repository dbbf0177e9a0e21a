import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { parseContentRange } from "./content-range.ts";
import { parseRetryAfter } from "./retry.ts";

describe("parsing Content-Range", () => {
  for (const [header, expected] of [
    ["bytes 0-0/1", { first: 0, last: 0, total: 1 }],
    ["bytes 5-9/*", { first: 5, last: 9, total: undefined }],
    ["Bytes 5-9/10", { first: 5, last: 9, total: 10 }],
    ["bytes 5-9/9", undefined],
    ["bytes 9-5/10", undefined],
    ["bytes */10", undefined],
    ["bytes 5-9", undefined],
    ["bytes=5-9/10", undefined],
    ["bytes 5-9/10, 11-12/20", undefined],
    ["bytes -1-9/10", undefined],
    ["bytes 0x1-9/10", undefined],
    ["bytes 0-9999999999999999/*", undefined],
    ["", undefined],
    [undefined, undefined],
  ] as const) {
    it(`takes ${header} as ${expected ? "a range" : "nothing"}`, () => assert.deepEqual(parseContentRange(header), expected));
  }

  it("gives back what was put in, and nothing for other text", () => {
    const offset = fc.nat(2 ** 40);
    fc.assert(
      fc.property(offset, offset, offset, (first, more, rest) => {
        const range = { first, last: first + more, total: first + more + 1 + rest };
        assert.deepEqual(parseContentRange(`bytes ${range.first}-${range.last}/${range.total}`), range);
      }),
    );
    fc.assert(
      fc.property(fc.string(), (text) => {
        const range = parseContentRange(text);
        assert.ok(range === undefined || range.first <= range.last);
      }),
    );
  });
});

describe("parsing Retry-After", () => {
  const date = "Sat, 21 Nov 2026 09:00:00 GMT";
  for (const [value, wait] of [
    ["0", 0],
    ["12", 12_000],
    [" 3 ", 3000],
    ["Sat, 21 Nov 2026 09:00:30 GMT", 30_000],
    ["Sat, 21 Nov 2026 08:00:00 GMT", 0],
    ["soon", undefined],
    ["-5", undefined],
    ["9".repeat(400), undefined],
    [undefined, undefined],
  ] as const) {
    it(`takes ${value?.slice(0, 40)} as ${wait} ms`, () => assert.equal(parseRetryAfter(value, date), wait));
  }

  it("ignores a date that cannot be told from now", () => assert.equal(parseRetryAfter(date, undefined), undefined));
});
