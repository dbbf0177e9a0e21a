import assert from "node:assert/strict";
import { test } from "node:test";
import type { HttpResponse } from "./http.ts";
import { readRangeAnswer } from "./ranges.ts";

const BYTES = Buffer.from("a range of a blob");

function answerOf(...pieces: Uint8Array[]): HttpResponse {
  return {
    status: 206,
    url: new URL("https://registry.example/blob"),
    header: (name) => (name === "content-range" ? `bytes 0-${BYTES.length - 1}/100` : undefined),
    body: (async function* () {
      yield* pieces;
    })(),
    discard: async () => {},
  };
}

async function read(...pieces: Uint8Array[]): Promise<Uint8Array> {
  return await readRangeAnswer(answerOf(...pieces), { first: 0, last: BYTES.length - 1 }, 100);
}

test("a range is put together out of its pieces, and their memory is free then", async () => {
  const pieces = [new Uint8Array(BYTES.subarray(0, 5)), new Uint8Array(BYTES.subarray(5))];
  assert.deepEqual(Buffer.from(await read(...pieces)), BYTES);
  assert.deepEqual(
    pieces.map(({ byteLength }) => byteLength),
    [0, 0],
  );
});

test("memory that holds more than a piece stays: what comes behind it, and what Node shares", async () => {
  const buffer = new Uint8Array(BYTES.length + 1);
  buffer.set(BYTES);
  assert.deepEqual(Buffer.from(await read(buffer.subarray(0, 5), buffer.subarray(5, BYTES.length))), BYTES);
  assert.equal(buffer.length, BYTES.length + 1);
  const pool = Buffer.allocUnsafe(1).buffer;
  const shared = new Uint8Array(pool, pool.byteLength - BYTES.length);
  await read(shared);
  assert.equal(shared.length, BYTES.length);
});

test("a range that is too long or too short is none", async () => {
  await assert.rejects(read(new Uint8Array(BYTES.length), new Uint8Array(1)), { code: "CORRUPT" });
  await assert.rejects(read(new Uint8Array(BYTES.length - 1)), { code: "UNAVAILABLE" });
});
