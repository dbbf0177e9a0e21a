import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import fc from "fast-check";
import { MemorySource } from "../bytes/source.ts";
import { LazyError } from "../errors.ts";
import { openTarPayload, payloadHead, PAYLOAD_OFFSET, payloadTail } from "./payload.ts";

const wrapped = readFileSync(new URL("../../testdata/zfile/src.lz4.tar.zfile", import.meta.url));
const bare = readFileSync(new URL("../../testdata/zfile/src.lz4.4k.zfile", import.meta.url));

async function unwrap(bytes: Uint8Array): Promise<Buffer> {
  const payload = await openTarPayload(new MemorySource(bytes, "blob"));
  return Buffer.from(await payload.read(0, payload.size));
}

const isCorrupt = (error: unknown) => error instanceof LazyError && error.code === "CORRUPT" && error.message.startsWith("blob: ");

test("the wrapper is byte for byte the one that the reference tools write", async () => {
  assert.deepEqual(await unwrap(wrapped), bare);
  assert.deepEqual(Buffer.concat([payloadHead(bare.length), bare, payloadTail(bare.length)]), wrapped);
});

test("payloads of every length of the size record come back", async () => {
  for (const bytes of [0, 1, 9, 10, 98, 99, 100, 511, 512, 513, 999, 1000, 9999, 10_000, 99_999, 100_000]) {
    const plain = Buffer.alloc(bytes, 0x5a);
    const tar = Buffer.concat([payloadHead(bytes), plain, payloadTail(bytes)]);
    assert.equal(tar.length % 512, 0);
    // A size of zero in the record stands for the size in the header, which is zero too.
    assert.deepEqual(await unwrap(tar), plain, `${bytes} bytes`);
  }
  assert.match(Buffer.from(payloadHead(2 ** 40)).toString("latin1", 512), /^22 size=1099511627776\n\0/);
});

test("what is not a tar is its own payload", async () => {
  for (const bytes of [Buffer.alloc(0), Buffer.from("short"), bare, Buffer.alloc(4096)]) assert.deepEqual(await unwrap(bytes), bytes);
  const gnu = Buffer.from(wrapped);
  gnu.write("ustar  \0", 257, "latin1");
  assert.deepEqual(await unwrap(gnu), gnu);
  const wrongSum = Buffer.from(wrapped);
  wrongSum[0] ^= 1;
  assert.deepEqual(await unwrap(wrongSum), wrongSum);
});

/** A header as other writers make it: zero-padded octal numbers. */
function header(name: string, kind: string, bytes: number): Buffer {
  const block = Buffer.alloc(512);
  block.write(name, 0, "latin1");
  block.write("0000644\0", 100, "latin1");
  block.write(`${bytes.toString(8).padStart(11, "0")}\0`, 124, "latin1");
  block.write(`        ${kind}`, 148, "latin1");
  block.write("ustar\x0000", 257, "latin1");
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148, "latin1");
  return block;
}

function block(text: string): Buffer {
  const bytes = Buffer.alloc(Math.ceil(text.length / 512) * 512);
  bytes.write(text, "latin1");
  return bytes;
}

const payload = Buffer.from("the layer itself");
const padded = Buffer.concat([payload, payloadTail(payload.length)]);

test("a plain ustar header is a wrapper too", async () => {
  assert.deepEqual(await unwrap(Buffer.concat([header("layer", "0", payload.length), padded])), payload);
  assert.deepEqual(await unwrap(Buffer.concat([header("layer", "\0", payload.length), padded])), payload);
});

test("long names, global and local records before the member are passed over", async () => {
  const tar = Buffer.concat([
    header("pax_global_header", "g", 22),
    block("22 comment=0123456789\n"),
    header("././@LongLink", "L", 600),
    block("n".repeat(600)),
    header("PaxHeaders/x", "x", 31),
    block(`20 mtime=1234567890\n11 size=${payload.length}\n`),
    header("layer", "0", 0),
    padded,
  ]);
  assert.deepEqual(await unwrap(tar), payload);
});

const damaged: [name: string, tar: Buffer][] = [
  ["a member longer than the file", Buffer.concat([header("layer", "0", 5000), padded])],
  ["a record that announces more than there is", Buffer.concat([header("x", "x", 20), block("99 size=16\n"), header("l", "0", 0), padded])],
  ["a record without an end of line", Buffer.concat([header("x", "x", 11), block("11 size=16_"), header("l", "0", 0), padded])],
  ["a record whose length is no number", Buffer.concat([header("x", "x", 11), block("1x size=16\n"), header("l", "0", 0), padded])],
  ["a size that is no number", Buffer.concat([header("x", "x", 11), block("11 size=1z\n"), header("l", "0", 0), padded])],
  ["a size beyond 2^53", Buffer.concat([header("x", "x", 28), block("28 size=9999999999999999999\n"), header("l", "0", 0), padded])],
  ["records that are too long", Buffer.concat([header("x", "x", 1 << 20), Buffer.alloc(1 << 20), header("l", "0", 16), padded])],
  ["records and nothing behind them", Buffer.concat([header("x", "x", 11), block("11 size=16\n")])],
  ["a member header without magic", Buffer.concat([header("x", "x", 11), block("11 size=16\n"), Buffer.alloc(512), padded])],
  ["a directory in first place", Buffer.concat([header("bin/", "5", 0), padded])],
  ["nine long names", Buffer.concat([...Array.from({ length: 9 }, () => header("L", "L", 0)), header("l", "0", 16), padded])],
];
for (const [name, tar] of damaged) {
  test(`${name} makes a tar corrupt`, async () => {
    await assert.rejects(unwrap(tar), isCorrupt);
  });
}

test("a changed digit of the size, or any changed byte of the inner header's sum, is noticed or changes the payload", async () => {
  for (let at = 512; at < 512 + 15; at++) {
    const tar = Buffer.from(wrapped);
    tar[at] ^= 0x05;
    const result = await unwrap(tar).catch((error: unknown) => assert.ok(isCorrupt(error), String(error)));
    if (result) assert.notEqual(result.length, bare.length, `byte ${at}`);
  }
  for (let at = 1024; at < PAYLOAD_OFFSET; at++) {
    const tar = Buffer.from(wrapped);
    tar[at] ^= 0x41;
    await assert.rejects(unwrap(tar), isCorrupt, `byte ${at}`);
  }
});

test("random headers are refused or give bytes of the file", async () => {
  const flip = fc.tuple(fc.nat(PAYLOAD_OFFSET - 1), fc.nat(255));
  await fc.assert(
    fc.asyncProperty(fc.array(flip, { minLength: 1, maxLength: 4 }), fc.boolean(), async (flips, repaired) => {
      const tar = Buffer.from(wrapped);
      for (const [at, value] of flips) tar[at] = value;
      for (const at of repaired ? [0, 1024] : []) {
        tar.write("        ", at + 148, "latin1");
        const sum = tar.subarray(at, at + 512).reduce((total, byte) => total + byte, 0);
        tar.write(`${sum.toString(8).padStart(6, "0")}\0 `, at + 148, "latin1");
      }
      try {
        const found = await unwrap(tar);
        assert.ok(tar.includes(found));
      } catch (error) {
        assert.ok(isCorrupt(error), String(error));
      }
    }),
    { numRuns: 500 },
  );
});
