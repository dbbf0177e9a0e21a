import assert from "node:assert/strict";
import { test } from "node:test";
import { constants, crc32, deflateRawSync, gunzipSync, gzipSync, inflateRawSync } from "node:zlib";
import fc from "fast-check";
import { LazyError } from "../errors.ts";
import { GzipDecoder, type AccessPoint, type AccessPointOptions } from "./gzip-decoder.ts";

const { Z_FIXED, Z_HUFFMAN_ONLY, Z_RLE, Z_DEFAULT_STRATEGY } = constants;
const HELLO = Buffer.from("hello, hello, hello");

/** Everything that a decoder makes of data in pieces of these sizes, over and over. */
function decoded(stored: Uint8Array, sizes: readonly number[], points?: AccessPointOptions): Buffer {
  using decoder = new GzipDecoder("blob", points);
  const pieces: Buffer[] = [];
  for (let at = 0, turn = 0; at < stored.length; turn++) {
    const end = at + sizes[turn % sizes.length];
    decoder.push(Uint8Array.from(stored.subarray(at, end)));
    for (let piece; (piece = decoder.next()) !== undefined;) {
      assert.ok(piece.length > 0);
      pieces.push(Buffer.from(piece));
    }
    at = end;
  }
  decoder.close();
  return Buffer.concat(pieces);
}

function gives(stored: Uint8Array, expected: Uint8Array): void {
  for (const size of [1, 2, 3, 7, 1000, 1 << 24]) assert.ok(decoded(stored, [size]).equals(expected), `pieces of ${size}`);
}

function refuses(stored: Uint8Array, message: RegExp): void {
  for (const size of [1, 2, 3, 7, 1000, 1 << 24]) {
    assert.throws(() => decoded(stored, [size]), { name: "LazyError", code: "CORRUPT", message }, `pieces of ${size}`);
  }
}

/** Text that repeats itself, with noise in between. */
function content(seed: number, length: number): Buffer {
  const bytes = Buffer.alloc(length);
  for (let at = 0, state = seed | 1; at < length; at++) {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    bytes[at] = state >>> 29 < 5 && at > 700 ? bytes[at - 1 - ((state >>> 12) & 511)] : (state >>> 16) & 0x7f;
  }
  return bytes;
}

interface HeaderFields {
  readonly extra?: Uint8Array;
  readonly name?: string;
  readonly comment?: string;
  readonly hasCrc?: boolean;
  readonly otherFlags?: number;
}

/** A member with a header of one's own. */
function member(bytes: Uint8Array, { extra, name, comment, hasCrc = false, otherFlags = 0 }: HeaderFields): Buffer {
  const flags =
    (hasCrc ? 2 : 0) | (extra === undefined ? 0 : 4) | (name === undefined ? 0 : 8) | (comment === undefined ? 0 : 16) | otherFlags;
  const parts: Uint8Array[] = [Buffer.from([0x1f, 0x8b, 8, flags, 1, 2, 3, 4, 2, 3])];
  if (extra !== undefined) parts.push(Buffer.from([extra.length & 0xff, extra.length >> 8]), Buffer.from(extra));
  if (name !== undefined) parts.push(Buffer.from(`${name}\0`));
  if (comment !== undefined) parts.push(Buffer.from(`${comment}\0`));
  if (hasCrc) parts.push(little(crc32(Buffer.concat(parts)), 2));
  return Buffer.concat([...parts, deflateRawSync(bytes), little(crc32(bytes), 4), little(bytes.length, 4)]);
}

function little(value: number, length: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes.subarray(0, length);
}

test("members of all levels, strategies and windows are decoded, one after the other and wherever they are cut", () => {
  const options = fc.record({
    level: fc.integer({ min: 0, max: 9 }),
    strategy: fc.constantFrom(Z_DEFAULT_STRATEGY, Z_FIXED, Z_HUFFMAN_ONLY, Z_RLE),
    windowBits: fc.integer({ min: 9, max: 15 }),
  });
  const part = fc.record({ seed: fc.nat(), length: fc.oneof(fc.nat(50), fc.nat(300_000)), options });
  const sizes = fc.array(fc.oneof(fc.integer({ min: 1, max: 100 }), fc.integer({ min: 1, max: 200_000 })), { minLength: 1, maxLength: 5 });
  fc.assert(
    fc.property(fc.array(part, { minLength: 1, maxLength: 4 }), fc.nat(300), sizes, (parts, padding, chunkSizes) => {
      const contents = parts.map(({ seed, length }) => content(seed, length));
      const members = contents.map((bytes, at) => gzipSync(bytes, parts[at].options));
      const stored = Buffer.concat([...members, Buffer.alloc(padding)]);
      assert.ok(decoded(stored, chunkSizes).equals(Buffer.concat(contents)));
    }),
    { numRuns: 40 },
  );
});

test("two thousand tiny members are decoded", () => {
  const members = Array.from({ length: 2000 }, (_, at) => gzipSync(String(at)));
  const expected = Buffer.from(members.map((_, at) => String(at)).join(""));
  for (const size of [5, 1 << 24]) assert.ok(decoded(Buffer.concat(members), [size]).equals(expected));
});

test("data that is cut exactly where the decoder's memory is full goes on", () => {
  const bytes = content(11, 300_000);
  for (const level of [0, 1]) {
    const stored = gzipSync(bytes, { level });
    // A prefix of the data fills 256 KiB of memory; where it ends depends on the level.
    const prefix = gzipSync(bytes.subarray(0, 256 << 10), { level }).length;
    for (let cut = prefix - 150; cut < prefix + 150; cut++) {
      assert.ok(decoded(stored, [cut, stored.length]).equals(bytes), `level ${level}, cut at ${cut}`);
    }
  }
});

test("all fields of a header are passed over", () => {
  const extra = Buffer.from("AB\x04\0\0\0\0\x1f");
  for (const hasCrc of [false, true]) {
    for (const name of [undefined, "", "layer.tar"]) {
      for (const comment of [undefined, "", "a comment"]) {
        for (const field of [undefined, Buffer.alloc(0), extra, Buffer.alloc(65_535, 1)]) {
          const stored = member(HELLO, {
            hasCrc,
            ...(name === undefined ? {} : { name }),
            ...(comment === undefined ? {} : { comment }),
            ...(field === undefined ? {} : { extra: field }),
          });
          const sizes = field?.length === 65_535 ? [1 << 24, 1000] : [1, 2, 7, 1 << 24];
          for (const size of sizes) assert.ok(decoded(stored, [size]).equals(HELLO));
        }
      }
    }
  }
  gives(member(HELLO, { otherFlags: 1 }), HELLO);
});

test("headers that are wrong are refused with their place", () => {
  const stored = member(HELLO, { name: "x", hasCrc: true });
  const place = stored.indexOf("x\0") + 2;
  for (const at of [4, place, place + 1]) {
    refuses(flipped(stored, at, 1), new RegExp(`^blob: .*\\(incorrect header checksum\\), at byte ${place + 1}; fetch it again$`));
  }
  for (const flag of [0x20, 0x40, 0x80]) refuses(member(HELLO, { otherFlags: flag }), /unknown header flags 0x.0\), at byte 3;/);
  refuses(flipped(stored, 2, 1), /unknown compression method 9\), at byte 2;/);
  refuses(flipped(stored, 1, 1), /no gzip magic number\), at byte 1;/);
  const two = Buffer.concat([gzipSync(HELLO), flipped(stored, 2, 1)]);
  refuses(two, new RegExp(`unknown compression method 9\\), at byte ${gzipSync(HELLO).length + 2};`));
});

function flipped(bytes: Uint8Array, at: number, mask: number): Buffer {
  const copy = Buffer.from(bytes);
  copy[at] ^= mask;
  return copy;
}

test("checksum and length of every member are held against its content", () => {
  const stored = gzipSync(HELLO);
  const [crc, length] = [stored.length - 8, stored.length - 4];
  for (const after of [Buffer.alloc(0), gzipSync("more"), Buffer.alloc(5)]) {
    refuses(
      Buffer.concat([flipped(stored, crc, 1), after]),
      /incorrect data check: expected CRC-32 [0-9a-f]{8}, found [0-9a-f]{8}\), at byte/,
    );
    refuses(Buffer.concat([flipped(stored, length, 1), after]), /incorrect length check: expected 18 bytes, found 19\), at byte/);
  }
});

test("data that ends in the middle is refused, wherever it ends", () => {
  const stored = Buffer.concat([member(HELLO, { name: "n", extra: HELLO, comment: "c", hasCrc: true }), gzipSync(content(1, 300))]);
  const first = member(HELLO, { name: "n", extra: HELLO, comment: "c", hasCrc: true }).length;
  for (let length = 0; length < stored.length; length++) {
    if (length === first) continue;
    const message = new RegExp(`^blob: the compressed data ends in the middle, past byte ${length}; fetch it again$`);
    for (const size of [3, 1 << 24]) assert.throws(() => decoded(stored.subarray(0, length), [size]), { code: "CORRUPT", message });
  }
});

test("what follows the last member is refused unless it is zeros", () => {
  const stored = gzipSync(HELLO);
  gives(Buffer.concat([stored, Buffer.alloc(2000)]), HELLO);
  refuses(
    Buffer.concat([stored, Buffer.from("x")]),
    new RegExp(`^blob: byte ${stored.length} comes after the end of the gzip data and is not`),
  );
  refuses(Buffer.concat([stored, Buffer.alloc(7), stored]), new RegExp(`^blob: byte ${stored.length + 7} comes after the end`));
  refuses(Buffer.concat([stored, Buffer.from([0x1f])]), /ends in the middle/);
  refuses(Buffer.concat([stored, Buffer.from([0x1f, 0])]), new RegExp(`no gzip magic number\\), at byte ${stored.length + 1};`));
});

test("damaged data is refused or was damaged where it does not matter, as node:zlib says", () => {
  const kinds = fc.record({ seed: fc.nat(), length: fc.nat(3000), level: fc.integer({ min: 0, max: 9 }), fixed: fc.boolean() });
  fc.assert(
    fc.property(kinds, fc.nat(), fc.integer({ min: 1, max: 255 }), fc.integer({ min: 1, max: 4000 }), (kind, at, mask, size) => {
      const bytes = content(kind.seed, kind.length);
      const whole = gzipSync(bytes, { level: kind.level, strategy: kind.fixed ? Z_FIXED : Z_DEFAULT_STRATEGY });
      const stored = flipped(whole, at % whole.length, mask);
      const [found, expected] = [attempt(() => decoded(stored, [size])), attempt(() => gunzipSync(stored))];
      assert.deepEqual(found instanceof Error, expected instanceof Error);
      if (found instanceof Error) assert.ok(found instanceof LazyError && found.code === "CORRUPT", String(found));
      else assert.ok(found.equals(bytes));
    }),
    { numRuns: 300 },
  );
});

function attempt<T>(action: () => T): T | Error {
  try {
    return action();
  } catch (error) {
    assert.ok(error instanceof Error);
    return error;
  }
}

test("decoders of one thread do not disturb each other, nor the one that had their memory before", () => {
  const contents = Array.from({ length: 12 }, (_, at) => content(at, 300_000 + at));
  for (let round = 0; round < 2; round++) {
    const decoders = contents.map(() => new GzipDecoder("blob"));
    const results: Buffer[][] = contents.map(() => []);
    const stored = contents.map((bytes) => gzipSync(bytes, { level: 1 }));
    for (let from = 0; from < 400_000; from += 10_000) {
      for (const [at, decoder] of decoders.entries()) {
        decoder.push(stored[at].subarray(from, from + 10_000));
        for (let piece; (piece = decoder.next()) !== undefined;) results[at].push(Buffer.from(piece));
      }
    }
    for (const [at, decoder] of decoders.entries()) {
      if (at % 3 !== 0) decoder.close();
      decoder[Symbol.dispose]();
      assert.ok(Buffer.concat(results[at]).equals(contents[at]));
    }
  }
});

/** The content of all members from an access point on. */
function resumed(stored: Uint8Array, point: AccessPoint): Buffer {
  const rest = stored.subarray(point.storedOffset - (point.bits === 0 ? 0 : 1));
  using decoder = GzipDecoder.resume("blob", point, rest, Infinity);
  const pieces: Buffer[] = [];
  for (let piece; (piece = decoder.next()) !== undefined;) pieces.push(Buffer.from(piece));
  decoder.close();
  return Buffer.concat(pieces);
}

/** The content of one member from an access point on, by node:zlib, which can start where a byte does. */
function resumedByZlib(stored: Uint8Array, { storedOffset, bits, window }: AccessPoint): Buffer {
  const rest = Buffer.from(stored.subarray(storedOffset - (bits === 0 ? 0 : 1)));
  if (bits > 0) for (let at = 0; at < rest.length; at++) rest[at] = (rest[at] >> (8 - bits)) | ((rest[at + 1] ?? 0) << bits);
  return inflateRawSync(rest, window.length === 0 ? {} : { dictionary: window });
}

test("decoding can start at every access point, and goes on through the members that follow", () => {
  const contents = [content(5, 300_000), Buffer.alloc(0), content(6, 200_000)];
  const expected = Buffer.concat(contents);
  for (const [level, span, size] of [
    [0, 40_000, 7],
    [1, 40_000, 5000],
    [6, 100_000, 1 << 24],
  ]) {
    const stored = Buffer.concat(contents.map((bytes) => gzipSync(bytes, { level, memLevel: 6 })));
    const points: AccessPoint[] = [];
    assert.ok(decoded(stored, [size], { span, found: (point) => points.push(point) }).equals(expected));
    assert.deepEqual(points[0], { storedOffset: 10, bits: 0, contentOffset: 0, window: new Uint8Array(0) });
    assert.ok(points.length > expected.length / (span + 70_000), `${points.length} points`);
    for (const [number, point] of points.entries()) {
      const { contentOffset, window } = point;
      if (number > 0) assert.ok(contentOffset >= points[number - 1].contentOffset + span);
      const memberStart = contentOffset < 300_000 ? 0 : 300_000;
      const memberEnd = contentOffset < 300_000 ? 300_000 : expected.length;
      assert.ok(expected.subarray(Math.max(memberStart, contentOffset - 32_768), contentOffset).equals(window));
      assert.ok(resumedByZlib(stored, point).equals(expected.subarray(contentOffset, memberEnd)));
      assert.ok(resumed(stored, point).equals(expected.subarray(contentOffset)));
    }
  }
});

test("points in all of a byte's bits can be started from", () => {
  const bytes = content(9, 400_000);
  const stored = gzipSync(bytes, { memLevel: 1 });
  const points: AccessPoint[] = [];
  decoded(stored, [1 << 24], { span: 1, found: (point) => points.push(point) });
  assert.deepEqual(new Set(points.map(({ bits }) => bits)), new Set([0, 1, 2, 3, 4, 5, 6, 7]));
  for (const bits of [0, 1, 2, 3, 4, 5, 6, 7]) {
    const point = points.findLast((each) => each.bits === bits)!;
    assert.ok(resumed(stored, point).equals(bytes.subarray(point.contentOffset)), `${bits} bits`);
  }
});

test("a point is found before anything behind it is pushed", () => {
  const stored = Buffer.concat([gzipSync(content(9, 100_000), { memLevel: 1 }), gzipSync(content(3, 5000)), gzipSync(HELLO)]);
  const count = { 1: 0, 2: 0, 1000: 0 };
  for (const size of [1, 2, 1000] as const) {
    let [start, end] = [0, 0];
    const found = ({ storedOffset }: AccessPoint): void => {
      assert.ok(start < storedOffset && storedOffset <= end, `${storedOffset} in ${start} to ${end}`);
      count[size]++;
    };
    using decoder = new GzipDecoder("blob", { span: 1, found });
    while (end < stored.length) {
      [start, end] = [end, Math.min(end + size, stored.length)];
      decoder.push(stored.subarray(start, end));
      while (decoder.next() !== undefined);
    }
  }
  assert.ok(count[1] > 100 && count[1] === count[2] && count[1] === count[1000], JSON.stringify(count));
});

test("checksums of members that begin behind an access point are checked", () => {
  const first = gzipSync(content(2, 50_000));
  const stored = Buffer.concat([first, gzipSync(HELLO), gzipSync(HELLO)]);
  const points: AccessPoint[] = [];
  decoded(stored, [1 << 24], { span: 20_000, found: (point) => points.push(point) });
  const point = points.at(-1)!;
  assert.ok(point.storedOffset < first.length && point.contentOffset > 0);
  resumed(flipped(stored, first.length - 5, 1), point); // of its own member, only a part is seen
  for (const back of [1, 5, gzipSync(HELLO).length + 1]) {
    assert.throws(() => resumed(flipped(stored, stored.length - back, 1), point), {
      code: "CORRUPT",
      message: /incorrect (length|data) check/,
    });
  }
});

test("members that are short do not each begin with an access point", () => {
  const stored = Buffer.concat(Array.from({ length: 3000 }, () => gzipSync(HELLO)));
  const points: AccessPoint[] = [];
  const all = decoded(stored, [1 << 24], { span: 10_000, found: (point) => points.push(point) });
  assert.equal(points.length, Math.ceil(all.length / 10_000));
  for (const point of points) assert.ok(resumed(stored, point).equals(all.subarray(point.contentOffset)));
});

test("a block that is longer than the decoder's memory is followed by an access point", () => {
  const bytes = Buffer.concat([content(1, 150_000), Buffer.alloc(2_000_000), content(2, 150_000)]);
  const points: AccessPoint[] = [];
  const stored = gzipSync(bytes);
  assert.ok(decoded(stored, [1 << 24], { span: 65_536, found: (point) => points.push(point) }).equals(bytes));
  const after = points.filter(({ contentOffset }) => contentOffset >= 2_000_000);
  assert.ok(after.length > 0);
  for (const point of after) assert.ok(resumed(stored, point).equals(bytes.subarray(point.contentOffset)));
});
