import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";
import { constants, crc32, deflateRawSync, gunzipSync, gzipSync, zstdCompressSync } from "node:zlib";
import fc from "fast-check";
import { MemorySource } from "../bytes/source.ts";
import { decompress } from "../compression/decompress.ts";
import { PlainSpans, SPAN_BYTES, type SpanIndex } from "../compression/span-index.ts";
import { openLayerContent } from "../device/layer-content.ts";
import { LazyError } from "../errors.ts";
import { parseGzipIndex } from "../formats/gzip-index/gzip-index-reader.ts";
import { parseSpanDigests } from "../formats/span-digests/span-digests.ts";
import { parseZstdIndex } from "../formats/zstd-index/zstd-index-reader.ts";
import { LayerIndexer, type LayerIndex } from "./layer-index.ts";

const SMALL_SPAN = 65_536;
const SKIPPABLE = Buffer.from([0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3]);

/** Text that repeats itself at all distances, with noise and zeros in between. */
function text(seed: number, length: number): Buffer {
  const bytes = Buffer.alloc(length);
  let state = seed | 1;
  const random = (): number => (state = (Math.imul(state, 1103515245) + 12345) >>> 0) >>> 8;
  for (let at = 0; at < length;) {
    const run = 4 + (random() & 63);
    const distance = 1 + (random() % 40_000);
    const kind = random() & 7;
    for (const end = Math.min(at + run, length); at < end; at++) {
      bytes[at] = kind < 5 && at >= distance ? bytes[at - distance] : kind === 5 ? 0 : random() & 0x7f;
    }
  }
  return bytes;
}

/** As a thread gets them: a piece is gone, down to its length, when the next is asked for. */
async function* pieces(bytes: Uint8Array, sizes: readonly number[]): AsyncGenerator<Uint8Array> {
  for (let at = 0, turn = 0; at < bytes.length; turn++) {
    const end = at + sizes[turn % sizes.length];
    const piece = Uint8Array.from(bytes.subarray(at, end));
    yield piece;
    structuredClone(piece.buffer, { transfer: [piece.buffer] });
    at = end;
  }
}

interface Indexed {
  readonly index: LayerIndex;
  readonly content: Buffer;
}

async function indexed(stored: Uint8Array, sizes: readonly number[] = [100_000], spanBytes = SMALL_SPAN): Promise<Indexed> {
  const indexer = new LayerIndexer(spanBytes);
  const { stream } = await decompress(pieces(stored, sizes), "blob", indexer.observer);
  const content: Buffer[] = [];
  for await (const chunk of stream) {
    indexer.content(chunk);
    content.push(Buffer.from(chunk));
  }
  return { index: await indexer.finish(), content: Buffer.concat(content) };
}

function spansOf({ compression, file, contentBytes }: LayerIndex): SpanIndex {
  if (compression === "none") return new PlainSpans(contentBytes);
  assert.ok(file !== undefined);
  return compression === "gzip" ? parseGzipIndex(file.bytes, file.name) : parseZstdIndex(file.bytes, file.name);
}

/** Decodes every span by itself and holds it against the content and its digest. */
function assertIndexed(stored: Uint8Array, { index, content }: Indexed): SpanIndex {
  const spans = spansOf(index);
  const digests = parseSpanDigests(index.spans, "spans");
  assert.deepEqual([index.storedBytes, index.contentBytes], [stored.length, content.length]);
  assert.deepEqual([spans.storedBytes, spans.contentBytes], [stored.length, content.length]);
  assert.equal(digests.contentBytes, content.length);
  assert.deepEqual(
    digests.spans.map(({ contentOffset }) => contentOffset),
    Array.from({ length: spans.spanCount }, (_, span) => spans.contentOffset(span)),
  );
  for (const { buffer, length } of [index.spans, ...(index.file === undefined ? [] : [index.file.bytes])]) {
    assert.equal(buffer.byteLength, length, "goes to another thread without anything else");
  }
  for (let span = 0; span < spans.spanCount; span++) {
    const { start, end } = spans.storedRange(span);
    const expected = content.subarray(spans.contentOffset(span), spans.contentOffset(span + 1));
    assert.ok(expected.equals(spans.decode(span, stored.subarray(start, end))), `span ${span}`);
    assert.ok(createHash("sha256").update(expected).digest().equals(digests.spans[span].sha256), `digest ${span}`);
  }
  return spans;
}

const BYTES = text(1, 1_200_000);
const parts = (bytes: Uint8Array, size: number): Uint8Array[] =>
  Array.from({ length: Math.ceil(bytes.length / size) }, (_, part) => bytes.subarray(part * size, (part + 1) * size));

/** One member, as pigz makes it: parts that know the 32 KiB before them, each ended by an empty block. */
function asPigz(bytes: Uint8Array, size: number): Buffer {
  const blocks = parts(bytes, size).map((part, number) => {
    const dictionary = bytes.subarray(Math.max(0, number * size - 32_768), number * size);
    return deflateRawSync(part, { finishFlush: constants.Z_SYNC_FLUSH, ...(number === 0 ? {} : { dictionary }) });
  });
  const trailer = Buffer.alloc(8);
  trailer.writeUInt32LE(crc32(bytes));
  trailer.writeUInt32LE(bytes.length, 4);
  return Buffer.concat([gzipSync("").subarray(0, 10), ...blocks, deflateRawSync(""), trailer]);
}

test("every span of gzip layers of all levels is decoded from its access point alone", async () => {
  for (const level of [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]) {
    const stored = gzipSync(BYTES, { level });
    const result = await indexed(stored);
    assert.ok(result.content.equals(BYTES));
    const spans = assertIndexed(stored, result);
    assert.ok(spans.spanCount >= 6 && spans.spanCount <= BYTES.length / SMALL_SPAN, `level ${level}: ${spans.spanCount} spans`);
  }
});

test("layers of parallel writers are indexed wholly: of many members, small or large, and with flushed blocks", async () => {
  const layers = {
    "two members": Buffer.concat([gzipSync(BYTES.subarray(0, 700_001)), gzipSync(BYTES.subarray(700_001))]),
    "members of 128 KiB": Buffer.concat(parts(BYTES, 131_072).map((part) => gzipSync(part))),
    "thousands of members": Buffer.concat(parts(BYTES, 300).map((part) => gzipSync(part))),
    "empty members": Buffer.concat(parts(BYTES, 100_000).flatMap((part) => [gzipSync(""), gzipSync(part), gzipSync("")])),
    "trailing zeros": Buffer.concat([gzipSync(BYTES), Buffer.alloc(10_000)]),
    "fixed codes": gzipSync(BYTES, { memLevel: 1, strategy: constants.Z_FIXED }),
    "blocks that were compressed side by side": asPigz(BYTES, 100_000),
  };
  for (const [name, stored] of Object.entries(layers)) {
    const result = await indexed(stored);
    assert.ok(result.content.equals(BYTES), name);
    const { spanCount } = assertIndexed(stored, result);
    assert.ok(spanCount >= 6 && spanCount <= Math.ceil(BYTES.length / SMALL_SPAN), `${name}: ${spanCount} spans`);
  }
});

test("layers of a byte, of nothing and of exactly a span are indexed", async () => {
  for (const length of [0, 1, SMALL_SPAN, SPAN_BYTES, 2 * SPAN_BYTES]) {
    const bytes = Buffer.alloc(length, 7);
    for (const stored of [gzipSync(bytes), gzipSync(bytes, { level: 0 }), zstdCompressSync(bytes), bytes]) {
      const result = await indexed(stored);
      assert.ok(result.content.equals(bytes));
      const { spanCount } = assertIndexed(stored, result);
      assert.ok(spanCount >= (length === 0 ? 0 : 1) && (length > 0 || spanCount === 0), `${spanCount} spans of ${length} bytes`);
    }
  }
  assert.equal((await indexed(Buffer.alloc(0))).index.compression, "none");
});

test("the index is the same however the layer arrives", async () => {
  const gzip = Buffer.concat([gzipSync(BYTES), gzipSync(text(5, 300_000), { level: 1 }), Buffer.alloc(9)]);
  const zstd = Buffer.concat([SKIPPABLE, ...parts(BYTES, 200_000).flatMap((part) => [zstdCompressSync(part), SKIPPABLE])]);
  const plain = text(9, 2 * SPAN_BYTES + 1);
  const layers = [];
  for (const stored of [gzip, zstd, plain]) layers.push({ stored, expected: (await indexed(stored, [stored.length])).index });
  const size = fc.oneof(fc.integer({ min: 1, max: 50 }), fc.integer({ min: 1, max: 300_000 }));
  const sizes = fc.array(size, { minLength: 1, maxLength: 6 }).filter((all) => all.some((each) => each > 20_000));
  await fc.assert(
    fc.asyncProperty(fc.constantFrom(...layers), sizes, async ({ stored, expected }, chunkSizes) => {
      assert.deepEqual((await indexed(stored, chunkSizes)).index, expected);
    }),
    { numRuns: 30 },
  );
});

test("gzip layers of any make, in pieces of any size, give the content at random places", async () => {
  const part = fc.record({
    seed: fc.nat(),
    length: fc.oneof(fc.nat(2000), fc.nat(400_000)),
    level: fc.integer({ min: 0, max: 9 }),
    memLevel: fc.integer({ min: 1, max: 9 }),
  });
  const range = fc.tuple(fc.double({ min: 0, max: 1, noNaN: true }), fc.nat(200_000));
  await fc.assert(
    fc.asyncProperty(
      fc.array(part, { minLength: 1, maxLength: 4 }),
      fc.integer({ min: 1000, max: 500_000 }),
      fc.array(range, { minLength: 1, maxLength: 5 }),
      async (members, size, ranges) => {
        const stored = Buffer.concat(members.map(({ seed, length, level, memLevel }) => gzipSync(text(seed, length), { level, memLevel })));
        const { index, content } = await indexed(stored, [size]);
        const source = openLayerContent(new MemorySource(stored), spansOf(index), parseSpanDigests(index.spans, "spans"));
        for (const [place, length] of ranges) {
          const start = Math.floor(place * content.length);
          const end = Math.min(start + length, content.length);
          assert.ok(content.subarray(start, end).equals(await source.read(start, end - start)));
        }
      },
    ),
    { numRuns: 40 },
  );
});

test("small zstd frames share a span, and skippable ones are skipped", async () => {
  const bytes = text(3, 5_000_000);
  const frames = parts(bytes, 300_000).map((part) => zstdCompressSync(part));
  const checked = parts(bytes, 300_000).map((part) => zstdCompressSync(part, { params: { [constants.ZSTD_c_checksumFlag]: 1 } }));
  const layers = [
    Buffer.concat(frames),
    Buffer.concat(frames.flatMap((frame) => [SKIPPABLE, frame])),
    Buffer.concat([...checked, zstdCompressSync(""), SKIPPABLE]),
  ];
  for (const stored of layers) {
    const result = await indexed(stored);
    assert.ok(result.content.equals(bytes));
    assert.equal(assertIndexed(stored, result).spanCount, Math.ceil(5_000_000 / 1_200_000));
  }
});

test("zstd frames of up to 4 MiB are indexed, larger ones are not, and the reason is said", async () => {
  const limit = 4 * 2 ** 20;
  const exact = zstdCompressSync(Buffer.alloc(limit, 1));
  assertIndexed(exact, await indexed(exact));
  const [large] = [zstdCompressSync(Buffer.alloc(limit + 1, 1))];
  const single = (await indexed(large)).index;
  assert.equal(single.file, undefined);
  assert.equal(
    single.unindexable,
    `one frame of ${limit + 1} bytes: the layer cannot be read lazily: use --overlaybd, or --recompress gzip`,
  );
  const second = (await indexed(Buffer.concat([exact, large]))).index;
  assert.match(second.unindexable ?? "", new RegExp(`^a frame of ${limit + 1} bytes at stored byte ${exact.length}: `));
});

test("gzip data without a place to start from for too long is not indexed, and the reason is said", async () => {
  // A single block of fixed codes: a literal, and a match of 258 bytes at distance 1 as often as is wanted.
  const [start, literal, match, end] = ["110", "00110000", "1100010100000", "0000000"];
  const bits = [start, literal, match.repeat(140_000), end].join("");
  const deflated = Uint8Array.from(bits.match(/.{1,8}/g) ?? [], (byte) => Number.parseInt(byte.split("").reverse().join(""), 2));
  const content = Buffer.alloc(1 + 258 * 140_000);
  const whole = gzipSync(content);
  const stored = Buffer.concat([whole.subarray(0, 10), deflated, whole.subarray(-8)]);
  assert.ok(gunzipSync(stored).equals(content));
  const { index } = await indexed(stored);
  assert.equal(index.file, undefined);
  assert.match(
    index.unindexable ?? "",
    /^36120001 bytes of content \(\d+ stored\) from 0 on without a point to start from: .* use --overlaybd/,
  );
});

test("bits flipped anywhere in index, digests or blob give an error or the right bytes", async () => {
  const bytes = text(4, 300_000);
  const layers = [gzipSync(bytes), Buffer.concat(parts(bytes, 50_000).map((part) => zstdCompressSync(part)))];
  const results = await Promise.all(layers.map(async (stored) => ({ stored, index: (await indexed(stored)).index })));
  await fc.assert(
    fc.asyncProperty(fc.constantFrom(...results), fc.nat(2), fc.nat(), fc.nat(7), async ({ stored, index }, which, at, bit) => {
      const parts = [Buffer.from(stored), Buffer.from(index.file!.bytes), Buffer.from(index.spans)];
      parts[which][at % parts[which].length] ^= 1 << bit;
      try {
        const file = { ...index.file!, bytes: parts[1] };
        const content = openLayerContent(new MemorySource(parts[0]), spansOf({ ...index, file }), parseSpanDigests(parts[2], "spans"));
        assert.equal(content.size, bytes.length);
        assert.ok(bytes.equals(await content.read(0, content.size)));
      } catch (error) {
        assert.ok(error instanceof LazyError && (error.code === "CORRUPT" || error.code === "UNSUPPORTED"), String(error));
      }
    }),
    { numRuns: 300 },
  );
});
