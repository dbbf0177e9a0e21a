import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout } from "node:timers/promises";
import { constants, createZstdCompress, gzipSync, zstdCompressSync } from "node:zlib";
import fc from "fast-check";
import { LazyError } from "../errors.ts";
import { decompress, detectCompression } from "./decompress.ts";

const CHECKED = { params: { [constants.ZSTD_c_checksumFlag]: 1 } };
const SKIPPABLE = Buffer.from([0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3]);
const LARGE = noise(700_000);
const EMPTY = Buffer.alloc(0);

/** Bytes that compress a little. */
function noise(length: number): Buffer {
  const bytes = Buffer.alloc(length);
  for (let at = 0, state = 1; at < length; at++) {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    bytes[at] = (state >>> 16) & 0x3f;
  }
  return bytes;
}

async function* pieces(bytes: Uint8Array, size: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

async function inside(bytes: Uint8Array, size = 65_536): Promise<Buffer> {
  const { stream } = await decompress(pieces(bytes, size), "blob");
  const chunks: Uint8Array[] = [];
  for await (const chunk of stream) chunks.push(Buffer.from(chunk));
  return Buffer.concat(chunks);
}

/** Single bytes where that is quick, pieces at odd places, and all at once. */
function pieceSizes(bytes: Uint8Array): number[] {
  return [bytes.length < 500 ? 1 : Math.ceil(bytes.length / 251), 4096, 1 << 24];
}

async function refuses(bytes: Uint8Array, message: RegExp, code = "CORRUPT"): Promise<void> {
  for (const size of pieceSizes(bytes))
    await assert.rejects(inside(bytes, size), { name: "LazyError", code, message }, `pieces of ${size}`);
}

async function gives(bytes: Uint8Array, expected: Uint8Array): Promise<void> {
  for (const size of pieceSizes(bytes)) assert.ok((await inside(bytes, size)).equals(expected), `pieces of ${size}`);
}

test("compression is told by magic numbers", () => {
  assert.equal(detectCompression(gzipSync("a")), "gzip");
  assert.equal(detectCompression(zstdCompressSync("a")), "zstd");
  assert.equal(detectCompression(SKIPPABLE), "zstd");
  assert.equal(detectCompression(EMPTY), "none");
  assert.equal(detectCompression(Buffer.from([0x1f])), "none");
  assert.equal(detectCompression(Buffer.from([0x60, 0x2a, 0x4d, 0x18])), "none");
  assert.equal(detectCompression(Buffer.from("etc/passwd")), "none");
});

test("what is not compressed passes as it is, also when it is shorter than a magic number", async () => {
  for (const bytes of [EMPTY, Buffer.from("a"), Buffer.from("abc"), LARGE]) await gives(bytes, bytes);
  assert.equal((await decompress(pieces(EMPTY, 1), "blob")).compression, "none");
});

test("all gzip members are decoded and zeros after them are padding", async () => {
  const [a, b] = [LARGE.subarray(0, 200_000), Buffer.from("hello")];
  const both = Buffer.concat([a, b]);
  await gives(gzipSync(a), a);
  await gives(gzipSync(EMPTY), EMPTY);
  await gives(Buffer.concat([gzipSync(a), gzipSync(EMPTY), gzipSync(b)]), both);
  await gives(Buffer.concat([gzipSync(a), gzipSync(b), Buffer.alloc(1000)]), both);
});

test("whatever else follows gzip data is refused", async () => {
  const gzip = gzipSync(LARGE.subarray(0, 100_000));
  await refuses(Buffer.concat([gzip, Buffer.from("garbage")]), new RegExp(`^blob: byte ${gzip.length} comes after the end`));
  await refuses(
    Buffer.concat([gzip, Buffer.from([0x1f, 0x8c])]),
    new RegExp(`^blob: the compressed data is broken .* at byte ${gzip.length + 1};`),
  );
  await refuses(Buffer.concat([gzip, Buffer.from([0x1f])]), /^blob: the compressed data ends in the middle/);
  await refuses(Buffer.concat([gzip, Buffer.alloc(9), gzip]), new RegExp(`^blob: byte ${gzip.length + 9} comes after the end`));
});

test("broken and truncated gzip data is refused", async () => {
  const gzip = gzipSync(LARGE.subarray(0, 100_000));
  for (const length of [2, 5, 10, 5000, gzip.length - 8, gzip.length - 1]) {
    await refuses(gzip.subarray(0, length), /^blob: the compressed data ends in the middle, past byte \d+/);
  }
  await refuses(flipped(gzip, gzip.length - 6), /incorrect data check/);
  await refuses(flipped(gzip, gzip.length - 2), /incorrect length check/);
  await refuses(flipped(gzip, 2), /unknown compression method/);
});

test("all zstd frames are decoded and skippable ones skipped, wherever the input is cut", async () => {
  const [a, b] = [LARGE.subarray(0, 300_000), Buffer.from("hello")];
  const both = Buffer.concat([a, b]);
  await gives(zstdCompressSync(a), a);
  await gives(zstdCompressSync(Buffer.alloc(500_000, 1)), Buffer.alloc(500_000, 1));
  await gives(Buffer.concat([zstdCompressSync(a), zstdCompressSync(b, CHECKED)]), both);
  await gives(
    Buffer.concat([SKIPPABLE, zstdCompressSync(a, CHECKED), SKIPPABLE, SKIPPABLE, zstdCompressSync(EMPTY), zstdCompressSync(b), SKIPPABLE]),
    both,
  );
  await gives(
    Buffer.concat([zstdCompressSync("hello"), zstdCompressSync(b, CHECKED), SKIPPABLE, zstdCompressSync("!")]),
    Buffer.from("hellohello!"),
  );
  await gives(SKIPPABLE, EMPTY);
  await gives(zstdCompressSync(EMPTY), EMPTY);
});

test("broken and truncated zstd data is refused", async () => {
  const zstd = zstdCompressSync(LARGE.subarray(0, 300_000), CHECKED);
  for (const length of [4, 5, 9, 5000, zstd.length - 4, zstd.length - 1]) {
    await refuses(zstd.subarray(0, length), new RegExp(`^blob: the zstd data ends in the middle .*after ${length} bytes`));
  }
  await refuses(Buffer.concat([zstd, zstd.subarray(0, 2)]), /ends in the middle/);
  await refuses(Buffer.concat([zstd, SKIPPABLE.subarray(0, 9)]), /ends in the middle/);
  await refuses(Buffer.concat([zstd, Buffer.from("garbage")]), new RegExp(`no zstd frame starts at byte ${zstd.length} `));
  await refuses(Buffer.concat([zstd, Buffer.alloc(50)]), /no zstd frame starts/);
  await refuses(flipped(zstd, zstd.length - 1), /checksum/);
});

test("zstd windows of 128 MiB are decoded, larger ones and dictionaries are refused", async () => {
  await gives(await windowed(27), LARGE);
  await refuses(await windowed(28), /window of 268435456 bytes/, "UNSUPPORTED");
  const singleSegment = Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0xa0, 1, 0, 0, 8, 1, 0, 0]);
  await refuses(singleSegment, /window of 134217729 bytes/, "UNSUPPORTED");
  const withDictionary = Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0x21, 7, 0, 1, 0, 0]);
  await refuses(withDictionary, /dictionary/, "UNSUPPORTED");
});

/** LARGE in a frame that declares a window: the size of the content must not be known when the frame begins. */
async function windowed(windowLog: number): Promise<Buffer> {
  const compressor = createZstdCompress({ params: { [constants.ZSTD_c_windowLog]: windowLog } });
  compressor.write(LARGE.subarray(0, 1000));
  compressor.flush();
  compressor.end(LARGE.subarray(1000));
  const chunks: Uint8Array[] = [];
  for await (const chunk of compressor) chunks.push(chunk as Uint8Array);
  return Buffer.concat(chunks);
}

function flipped(bytes: Uint8Array, at: number): Buffer {
  const copy = Buffer.from(bytes);
  copy[at] ^= 1;
  return copy;
}

test("output comes in large chunks", async () => {
  const sizes: number[] = [];
  const content = Buffer.alloc(3_000_000);
  for (const compressed of [gzipSync(content), zstdCompressSync(content)]) {
    for await (const chunk of (await decompress(pieces(compressed, 4096), "blob")).stream) sizes.push(chunk.length);
  }
  assert.ok(sizes.length <= 2 * 12 + 2, `${sizes.length} chunks`);
});

test("input is taken only as fast as output is consumed, and ended when the consumer leaves", async () => {
  const content = noise(8_000_000);
  for (const compressed of [gzipSync(content, { level: 1 }), zstdCompressSync(content), content]) {
    let taken = 0;
    let ended = false;
    const input = async function* (): AsyncGenerator<Uint8Array> {
      try {
        for await (const piece of pieces(compressed, 16_384)) {
          taken += piece.length;
          yield piece;
        }
      } finally {
        ended = true;
      }
    };
    const { stream } = await decompress(input(), "blob");
    for await (const _ of stream) break;
    assert.ok(taken < compressed.length / 2, `${taken} of ${compressed.length} bytes taken`);
    assert.equal(ended, true);
  }
});

test("errors of the input pass unchanged", async () => {
  const failure = new LazyError("UNAVAILABLE", "the registry went away");
  for (const compressed of [gzipSync(LARGE), zstdCompressSync(LARGE), LARGE]) {
    const input = async function* (): AsyncGenerator<Uint8Array> {
      yield compressed.subarray(0, 100_000);
      throw failure;
    };
    const { stream } = await decompress(input(), "blob");
    await assert.rejects(
      async () => {
        for await (const _ of stream);
      },
      (error) => error === failure,
    );
  }
});

test("an error of the input waits for a consumer that is busy", async () => {
  const failure = new LazyError("UNAVAILABLE", "the registry went away");
  const input = async function* (): AsyncGenerator<Uint8Array> {
    yield gzipSync(LARGE).subarray(0, 50_000);
    await setTimeout(10);
    throw failure;
  };
  const { stream } = await decompress(input(), "blob");
  const iterator = stream[Symbol.asyncIterator]();
  await iterator.next();
  await setTimeout(50); // an unhandled rejection would end the test run
  await assert.rejects(
    async () => {
      while ((await iterator.next()).done !== true);
    },
    (error) => error === failure,
  );
});

test("damaged streams give a LazyError or, rarely, other bytes, but nothing else", async () => {
  const sources = [
    gzipSync(LARGE.subarray(0, 5000)),
    zstdCompressSync(LARGE.subarray(0, 5000), CHECKED),
    Buffer.concat([zstdCompressSync("a"), SKIPPABLE]),
  ];
  const damage = fc.record({ at: fc.nat(6000), byte: fc.nat(255), cut: fc.option(fc.nat(6000)), size: fc.integer({ min: 1, max: 3000 }) });
  await fc.assert(
    fc.asyncProperty(fc.constantFrom(...sources), damage, async (source, { at, byte, cut, size }) => {
      const bytes = Buffer.from(source.subarray(0, cut ?? source.length));
      if (bytes.length > 0) bytes[at % bytes.length] = byte;
      await inside(bytes, size).catch((error: unknown) => {
        if (!(error instanceof LazyError)) throw error;
      });
    }),
    { numRuns: 150 },
  );
});

test("pieces of the input may be used for something else once the next is asked for", async () => {
  async function* reused(bytes: Uint8Array, length: number): AsyncGenerator<Uint8Array> {
    const piece = new Uint8Array(length);
    for (let at = 0; at < bytes.length; at += length) {
      const next = bytes.subarray(at, at + length);
      piece.set(next);
      yield piece.subarray(0, next.length);
      piece.fill(0xff);
    }
  }
  const plain = Buffer.from("what is in it, ".repeat(500));
  for (const [compression, stored] of Object.entries({ gzip: gzipSync(plain), none: plain })) {
    for (const length of [1, 3, 4, 100]) {
      const found: Buffer[] = [];
      const { stream } = await decompress(reused(stored, length), "blob");
      for await (const piece of stream) found.push(Buffer.from(piece));
      assert.ok(Buffer.concat(found).equals(plain), `${compression} in pieces of ${length}`);
    }
  }
});

test("an observer hears of stored bytes, and of access points and frames before any content behind them comes", async () => {
  const parts = [LARGE.subarray(0, 300_000), EMPTY, LARGE.subarray(300_000)];
  const streams = [gzipSync, zstdCompressSync].map((compress) => Buffer.concat(parts.map((part) => compress(part))));
  for (const stored of streams) {
    for (const size of [1000, 1 << 24]) {
      const seen = { compression: "", stored: 0, content: 0, places: [] as number[] };
      const at = (place: number): void => {
        assert.ok(place >= seen.content && seen.stored > 0);
        seen.places.push(place);
      };
      const { stream } = await decompress(pieces(stored, size), "blob", {
        spanBytes: 100_000,
        detected: (compression) => (seen.compression = compression),
        stored: (bytes) => (seen.stored += bytes.length),
        accessPoint: ({ contentOffset }) => at(contentOffset),
        frameEnded: (_frame, contentEnd) => at(contentEnd),
      });
      for await (const chunk of stream) seen.content += chunk.length;
      assert.deepEqual([seen.stored, seen.content], [stored.length, LARGE.length]);
      if (seen.compression === "zstd") assert.deepEqual(seen.places, [300_000, 300_000, LARGE.length]);
      else assert.ok(seen.compression === "gzip" && seen.places[0] === 0 && seen.places.length > 2);
    }
  }
});
