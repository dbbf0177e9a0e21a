import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { constants, deflateRawSync, deflateSync, gunzipSync, gzipSync, inflateRawSync, inflateSync } from "node:zlib";
import fc from "fast-check";
import { GzipDecoder, type AccessPoint } from "../../compression/gzip-decoder.ts";
import { resumingPrefix } from "../../compression/resuming-prefix.ts";
import { GzipIndexWriter } from "./gzip-index-writer.ts";
import { gzipIndexEntry, gzipIndexHeader, headerCrc, WINDOW_BYTES } from "./layout.ts";
import { FOLLOWING_BYTES, trimWindow } from "./trim-window.ts";

const STORED = readFileSync(new URL("../../../testdata/gzip-index/layer0.tar.gz", import.meta.url));
const CONTENT = gunzipSync(STORED);

function pointsOf(stored: Uint8Array, span: number, writer?: GzipIndexWriter): AccessPoint[] {
  const points: AccessPoint[] = [];
  const found = (point: AccessPoint): void => {
    points.push(point);
    writer?.point(point);
  };
  using decoder = new GzipDecoder("blob", { span, found });
  for (let at = 0; at < stored.length; at += 65_536) {
    const chunk = stored.subarray(at, at + 65_536);
    writer?.stored(chunk);
    decoder.push(chunk);
    while (decoder.next() !== undefined);
  }
  decoder.close();
  return points;
}

function following(stored: Uint8Array, { storedOffset, bits }: AccessPoint): Uint8Array {
  const start = storedOffset - (bits === 0 ? 0 : 1);
  return stored.subarray(start, start + FOLLOWING_BYTES);
}

/** The rest of a member, by node:zlib. */
function resumedByZlib(stored: Uint8Array, { storedOffset, bits }: AccessPoint, window: Uint8Array): Buffer {
  const prefix = resumingPrefix({ bits, window }, stored[storedOffset - 1]);
  return inflateRawSync(Buffer.concat([prefix, stored.subarray(storedOffset)])).subarray(window.length);
}

test("an index is as other readers want it", async () => {
  const writer = new GzipIndexWriter(2 ** 20);
  const points = pointsOf(STORED, 2 ** 20, writer);
  const index = await writer.finish(CONTENT.length);
  const header = gzipIndexHeader.decode(index);
  const { entriesOffset, entriesBytes, reserved, ...fields } = header;
  assert.deepEqual(fields, {
    magic: "ddgzidx",
    majorVersion: 1,
    minorVersion: 0,
    dictionaryAlgorithm: 1,
    dictionaryLevel: 6,
    flags: 0,
    spanBytes: 2 ** 20,
    windowBytes: 32_768,
    entryBytes: 29,
    entryCount: points.length,
    storedBytes: STORED.length,
    indexBytes: index.length,
    contentBytes: CONTENT.length,
    headerCrc: headerCrc(index),
  });
  assert.ok(reserved.every((byte) => byte === 0));
  assert.equal(entriesOffset + entriesBytes, index.length);
  const table = inflateSync(index.subarray(entriesOffset));
  assert.equal(table.length, points.length * 29);
  assert.ok(points.length > 10 && points.length <= CONTENT.length / 2 ** 20);
  let windowOffset = 333;
  for (const [number, { contentOffset, storedOffset, bits }] of points.entries()) {
    const entry = gzipIndexEntry.decode(table, number * 29);
    assert.deepEqual(entry, { contentOffset, storedOffset, windowOffset, bits, windowBytes: entry.windowBytes });
    const window = inflateSync(index.subarray(windowOffset, windowOffset + entry.windowBytes));
    assert.equal(window.length, WINDOW_BYTES);
    for (let at = 0; at < WINDOW_BYTES; at++) assert.ok(window[at] === 0 || window[at] === CONTENT[contentOffset - WINDOW_BYTES + at]);
    windowOffset += entry.windowBytes;
  }
  assert.equal(windowOffset, entriesOffset);
});

test("a point behind which there is no content is left out, unless there is none at all", async () => {
  for (const length of [100_000, 0]) {
    const content = Buffer.alloc(length);
    const flushed = deflateRawSync(content, { finishFlush: constants.Z_SYNC_FLUSH });
    const stored = Buffer.concat([gzipSync("").subarray(0, 10), flushed, deflateRawSync(""), gzipSync(content).subarray(-8)]);
    const writer = new GzipIndexWriter(65_536);
    const points = pointsOf(stored, 65_536, writer);
    assert.deepEqual(new Set(points.map(({ contentOffset }) => contentOffset)), new Set([0, length]));
    assert.equal(gzipIndexHeader.decode(await writer.finish(length)).entryCount, 1);
  }
});

test("a window of which only what is needed is left takes less room", () => {
  const [trimmed, whole] = [0, 0];
  const sizes = { trimmed, whole };
  for (const point of pointsOf(STORED, 2 ** 20).slice(1)) {
    sizes.trimmed += deflateSync(trimWindow(point, following(STORED, point))).length;
    sizes.whole += deflateSync(point.window).length;
  }
  assert.ok(sizes.trimmed < sizes.whole / 2, JSON.stringify(sizes));
});

test("what is left of a window is enough to decode all that follows", () => {
  const part = fc.record({
    start: fc.nat(CONTENT.length - 1),
    length: fc.nat(250_000),
    level: fc.integer({ min: 0, max: 9 }),
    memLevel: fc.integer({ min: 1, max: 9 }),
  });
  fc.assert(
    fc.property(fc.array(part, { minLength: 1, maxLength: 3 }), fc.integer({ min: 1, max: 60_000 }), (parts, span) => {
      const contents = parts.map(({ start, length }) => CONTENT.subarray(start, start + length));
      const stored = Buffer.concat(contents.map((bytes, at) => gzipSync(bytes, { level: parts[at].level, memLevel: parts[at].memLevel })));
      const all = Buffer.concat(contents);
      for (const point of pointsOf(stored, Math.max(span, Math.floor(all.length / 6)))) {
        const window = trimWindow(point, following(stored, point));
        const rest = resumedByZlib(stored, point, window);
        assert.ok(all.subarray(point.contentOffset, point.contentOffset + rest.length).equals(rest));
      }
    }),
    { numRuns: 40 },
  );
});

test("a window whose following data is broken, or too long for what it holds, is left whole", () => {
  const point = pointsOf(STORED, 2 ** 20)[3];
  const whole = Buffer.from(point.window);
  assert.ok(whole.equals(trimWindow(point, Buffer.alloc(FOLLOWING_BYTES, 0xff))));
  const emptyBlocks = Buffer.from("0000ffff00".repeat(FOLLOWING_BYTES / 4), "hex").subarray(0, FOLLOWING_BYTES);
  const aligned = { ...point, bits: 0 };
  assert.ok(whole.equals(trimWindow(aligned, Buffer.concat([Buffer.alloc(1), emptyBlocks]).subarray(0, FOLLOWING_BYTES))));
});

test("access points that are too dense or too far apart are refused", () => {
  for (const spanBytes of [0, 65_535, 100_000.5, 2 ** 23 + 1, Number.NaN]) {
    assert.throws(() => new GzipIndexWriter(spanBytes), { name: "LazyError", code: "USAGE", message: /expected 65536 to 8388608$/ });
  }
});
