import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { gunzipSync } from "node:zlib";
import fc from "fast-check";
import { checkRange, MemorySource, type ByteSource } from "../bytes/source.ts";
import { PlainSpans, spanAt, type SpanIndex } from "../compression/span-index.ts";
import { LazyError } from "../errors.ts";
import { parseGzipIndex } from "../formats/gzip-index/gzip-index-reader.ts";
import type { SpanDigests } from "../formats/span-digests/span-digests.ts";
import { openLayerContent } from "./layer-content.ts";

const testdata = new URL("../../testdata/gzip-index/", import.meta.url);
const BLOB = readFileSync(new URL("layer0.tar.gz", testdata));
const CONTENT = gunzipSync(BLOB);
const INDEX = parseGzipIndex(readFileSync(new URL("layer0.gzip.meta", testdata)), "index");

function digestsOf(index: SpanIndex, content: Uint8Array): SpanDigests {
  const spans = Array.from({ length: index.spanCount }, (_, span) => {
    const contentOffset = index.contentOffset(span);
    return {
      contentOffset,
      sha256: createHash("sha256")
        .update(content.subarray(contentOffset, index.contentOffset(span + 1)))
        .digest(),
    };
  });
  return { contentBytes: content.length, spans };
}

const DIGESTS = digestsOf(INDEX, CONTENT);

/** A blob that says what is read of it, and gives what `change` makes of it. */
class WatchedSource implements ByteSource {
  readonly name = "blob";
  readonly size: number;
  readonly reads: { readonly start: number; readonly end: number }[] = [];
  readonly #bytes: Uint8Array;
  readonly #change: (bytes: Uint8Array, start: number, read: number) => void;

  constructor(bytes: Uint8Array, change: (bytes: Uint8Array, start: number, read: number) => void = () => {}) {
    this.size = bytes.length;
    this.#bytes = bytes;
    this.#change = change;
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    checkRange(this, offset, length);
    this.reads.push({ start: offset, end: offset + length });
    const bytes = Uint8Array.from(this.#bytes.subarray(offset, offset + length));
    this.#change(bytes, offset, this.reads.length);
    return bytes;
  }

  async close(): Promise<void> {}
}

/** Flips a bit of one byte of a blob, as long as `isWrong`. */
function flipping(at: number, isWrong: (read: number) => boolean): (bytes: Uint8Array, start: number, read: number) => void {
  return (bytes, start, read) => {
    if (at >= start && at < start + bytes.length && isWrong(read)) bytes[at - start] ^= 0x10;
  };
}

test("random reads give the content, with digests and without, and for plain blobs", async () => {
  const plain = new PlainSpans(CONTENT.length);
  const contents = [
    openLayerContent(new MemorySource(BLOB), INDEX, DIGESTS),
    openLayerContent(new MemorySource(BLOB), INDEX, undefined),
    openLayerContent(new MemorySource(CONTENT), plain, digestsOf(plain, CONTENT)),
  ];
  const range = fc.tuple(fc.nat(CONTENT.length), fc.oneof(fc.nat(5000), fc.nat(3_000_000)));
  await fc.assert(
    fc.asyncProperty(fc.array(range, { minLength: 1, maxLength: 4 }), fc.constantFrom(...contents), async (ranges, content) => {
      const reads = ranges.map(async ([offset, length]) => {
        const end = Math.min(offset + length, CONTENT.length);
        assert.ok(CONTENT.subarray(offset, end).equals(await content.read(offset, end - offset)), `[${offset}, ${end})`);
      });
      await Promise.all(reads);
    }),
    { numRuns: 60 },
  );
  for (const content of contents) await assert.rejects(content.read(CONTENT.length, 1), { code: "CORRUPT", message: /outside of/ });
});

test("adjoining spans come in one read, each is decoded once for all readers, and what was used last is kept", async () => {
  const blob = new WatchedSource(BLOB);
  const content = openLayerContent(blob, INDEX, DIGESTS);
  const start = INDEX.contentOffset(3);
  const readers = Array.from({ length: 40 }, async (_, at) => await content.read(start + at * 7, 1_500_000));
  for (const [at, bytes] of (await Promise.all(readers)).entries()) {
    assert.ok(CONTENT.subarray(start + at * 7, start + at * 7 + 1_500_000).equals(bytes));
  }
  assert.deepEqual(blob.reads, [{ start: INDEX.storedRange(3).start, end: INDEX.storedRange(spanAt(INDEX, start + 1_501_400)).end }]);
  await content.read(start, 1_500_000);
  assert.equal(blob.reads.length, 1);
  const all = await content.read(0, CONTENT.length);
  assert.ok(CONTENT.equals(all));
  assert.ok(blob.reads.length < 6, `${blob.reads.length} reads`);
});

test("a reader fetches only what no other reader is fetching", async () => {
  const blob = new WatchedSource(BLOB);
  const content = openLayerContent(blob, INDEX, DIGESTS);
  const offset = (span: number): number => INDEX.contentOffset(span);
  const reads = [
    [3, 5],
    [2, 6],
    [1, 7],
  ].map(async ([first, end]) => await content.read(offset(first), offset(end) - offset(first)));
  const [, , widest] = await Promise.all(reads);
  assert.ok(CONTENT.subarray(offset(1), offset(7)).equals(widest));
  const starts = blob.reads.map(({ start }) => start).sort((a, b) => a - b);
  assert.deepEqual(
    starts,
    [1, 2, 3, 5, 6].map((span) => INDEX.storedRange(span).start),
  );
});

test("a span that is wrong is fetched once more", async () => {
  const { start } = INDEX.storedRange(5);
  const blob = new WatchedSource(
    BLOB,
    flipping(start + 1000, (read) => read === 1),
  );
  const content = openLayerContent(blob, INDEX, DIGESTS);
  const [from, to] = [INDEX.contentOffset(4), INDEX.contentOffset(7)];
  assert.ok(CONTENT.subarray(from, to).equals(await content.read(from, to - from)));
  assert.deepEqual(blob.reads.slice(1), [INDEX.storedRange(5)]);
});

test("a span that stays wrong is an error for those who need it, with its place; others get theirs", async () => {
  const { start, end } = INDEX.storedRange(5);
  const blob = new WatchedSource(
    BLOB,
    flipping(start + 1000, () => true),
  );
  const content = openLayerContent(blob, INDEX, DIGESTS);
  const [from, to] = [INDEX.contentOffset(5), INDEX.contentOffset(6)];
  const place = new RegExp(
    `^blob: bytes \\[${from}, ${to}\\) of the content, stored in \\[${start}, ${end}\\), are not what was converted: `,
  );
  await assert.rejects(content.read(from - 10, 20), { name: "LazyError", code: "CORRUPT", message: place });
  assert.equal(blob.reads.length, 2);
  assert.ok(CONTENT.subarray(from - 10, from).equals(await content.read(from - 10, 10)));
  assert.ok(CONTENT.subarray(to, to + 10).equals(await content.read(to, 10)));
});

test("without digests, what the compression notices is an error", async () => {
  const { start, end } = INDEX.storedRange(5);
  const damaged = Buffer.from(BLOB).fill(0xff, start + 5000, start + 5200);
  const content = openLayerContent(new MemorySource(damaged, "blob"), INDEX, undefined);
  const message = new RegExp(`^blob: bytes \\[.* stored in \\[${start}, ${end}\\), are not what was converted: index: `);
  await assert.rejects(content.read(INDEX.contentOffset(5), 10), { name: "LazyError", code: "CORRUPT", message });
  assert.ok(CONTENT.subarray(0, 100).equals(await content.read(0, 100)));
});

test("flipped bits anywhere in the blob give an error or the right bytes", async () => {
  const at = fc.integer({ min: 0, max: BLOB.length - 1 });
  await fc.assert(
    fc.asyncProperty(at, async (flipped) => {
      const content = openLayerContent(
        new WatchedSource(
          BLOB,
          flipping(flipped, () => true),
        ),
        INDEX,
        DIGESTS,
      );
      let span = 0;
      while (INDEX.storedRange(span).end <= flipped) span++;
      for (const near of [span, Math.min(span + 1, INDEX.spanCount - 1)]) {
        const [from, to] = [INDEX.contentOffset(near), INDEX.contentOffset(near + 1)];
        try {
          assert.ok(CONTENT.subarray(from, to).equals(await content.read(from, to - from)));
        } catch (error) {
          assert.ok(error instanceof LazyError && error.code === "CORRUPT", String(error));
        }
      }
    }),
    { numRuns: 40 },
  );
});

test("a blob that cannot be read fails its readers, and only them", async () => {
  const blob = new WatchedSource(BLOB, (_bytes, _start, read) => {
    if (read === 1) throw new LazyError("UNAVAILABLE", "blob: no network");
  });
  const content = openLayerContent(blob, INDEX, DIGESTS);
  const failed = await Promise.allSettled([content.read(0, 3_000_000), content.read(2_000_000, 10)]);
  for (const result of failed) assert.ok(result.status === "rejected" && /no network/.test(String(result.reason)));
  assert.equal(blob.reads.length, 1);
  assert.ok(CONTENT.subarray(0, 10).equals(await content.read(0, 10)));
});

test("blob, index and digests that do not belong together are refused", () => {
  const refuses = (message: RegExp, blob: Uint8Array, index: SpanIndex, digests: SpanDigests): void => {
    assert.throws(() => openLayerContent(new MemorySource(blob, "blob"), index, digests), { name: "LazyError", code: "CORRUPT", message });
  };
  refuses(/^blob: 1863352 bytes, but its index is of a blob of 1863353: it does not/, BLOB.subarray(1), INDEX, DIGESTS);
  refuses(/^blob: the index has 22 spans .* digests are of 21 spans/, BLOB, INDEX, { ...DIGESTS, spans: DIGESTS.spans.slice(1) });
  refuses(/^blob: the index has 22 spans .* digests are of 22 spans of 5 bytes/, BLOB, INDEX, { ...DIGESTS, contentBytes: 5 });
  const spans = DIGESTS.spans.map((span, at) => (at === 3 ? { ...span, contentOffset: span.contentOffset + 1 } : span));
  refuses(/^blob: span 3 begins at \d+ in the index, at \d+ in the digests/, BLOB, INDEX, { ...DIGESTS, spans });
});

test("content without a byte can be read", async () => {
  const content = openLayerContent(new MemorySource(Buffer.alloc(0)), new PlainSpans(0), { contentBytes: 0, spans: [] });
  assert.equal((await content.read(0, 0)).length, 0);
  await assert.rejects(content.read(0, 1), { code: "CORRUPT" });
});

test("many readers at different places are all served, however much they ask for", async () => {
  const copies = 5;
  const whole = Buffer.concat(Array.from({ length: copies }, () => CONTENT));
  const spans = new PlainSpans(whole.length);
  let [underway, most] = [0, 0];
  const blob = new MemorySource(whole);
  const watched: ByteSource = {
    name: "blob",
    size: whole.length,
    read: async (offset, length) => {
      underway += length;
      most = Math.max(most, underway);
      const bytes = await blob.read(offset, length);
      await new Promise((resolve) => setImmediate(resolve));
      underway -= length;
      return bytes;
    },
    close: async () => {},
  };
  const content = openLayerContent(watched, spans, digestsOf(spans, whole));
  const readers = Array.from({ length: copies }, async (_, at) => await content.read(at * CONTENT.length, CONTENT.length));
  for (const bytes of await Promise.all(readers)) assert.ok(CONTENT.equals(bytes));
  assert.ok(most <= 24 * 2 ** 20, `${most} bytes at a time`);
});
