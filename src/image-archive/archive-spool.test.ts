import assert from "node:assert/strict";
import { readdir } from "node:fs/promises";
import { after, before, describe, it } from "node:test";
import { gzipSync, zstdCompressSync } from "node:zlib";
import { TemporaryDirectory } from "../../test/support/temporary-directory.ts";
import type { ByteSource } from "../bytes/source.ts";
import { spoolArchive } from "./archive-spool.ts";

let scratch: TemporaryDirectory;

before(async () => {
  scratch = await TemporaryDirectory.create();
});
after(async () => scratch[Symbol.asyncDispose]());

async function* pieces(bytes: Uint8Array, size = 1000): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

async function spooled(bytes: Uint8Array, usableBytes?: number): Promise<ByteSource> {
  return await spoolArchive(pieces(bytes), "standard input", { temporaryDirectory: scratch.path }, usableBytes);
}

describe("a stream that is spooled", () => {
  it("can be read anywhere, decompressed, and has no name", async () => {
    const bytes = Buffer.from(Array.from({ length: 5000 }, (_, at) => at % 251));
    for (const stored of [
      bytes,
      gzipSync(bytes),
      zstdCompressSync(bytes),
      Buffer.concat([gzipSync(bytes.subarray(0, 7)), gzipSync(bytes.subarray(7))]),
    ]) {
      const source = await spooled(stored);
      assert.deepEqual(await readdir(scratch.path), []);
      assert.equal(source.size, bytes.length);
      assert.deepEqual(Buffer.from(await source.read(0, 5000)), bytes);
      assert.deepEqual(Buffer.from(await source.read(4000, 3)), bytes.subarray(4000, 4003));
      await assert.rejects(source.read(4999, 2), { code: "CORRUPT", message: /standard input/ });
      await source.close();
      await assert.rejects(source.read(0, 1));
    }
  });

  it("takes no more of the disk than it may, however small the stream is", async () => {
    const bomb = gzipSync(Buffer.alloc(20_000_000));
    assert.ok(bomb.length < 25_000);
    await assert.rejects(spooled(bomb, 1_000_000), {
      code: "UNAVAILABLE",
      message: /^standard input: cannot be held in .*: more than the 1000000 bytes that it may take there; name another directory/,
    });
    const exact = await spooled(Buffer.alloc(1000), 1000);
    assert.equal(exact.size, 1000);
    await exact.close();
    assert.deepEqual(await readdir(scratch.path), []);
  });

  it("is refused when it is broken, and fails with what it fails with", async () => {
    await assert.rejects(spooled(gzipSync(Buffer.alloc(5000)).subarray(0, 20)), {
      code: "CORRUPT",
      message: /standard input: the compressed data/,
    });
    const failure = new Error("unplugged");
    const failing = async function* (): AsyncGenerator<Uint8Array> {
      yield Buffer.alloc(10);
      throw failure;
    };
    await assert.rejects(spoolArchive(failing(), "x", { temporaryDirectory: scratch.path }), (error) => error === failure);
    assert.deepEqual(await readdir(scratch.path), []);
  });

  it("stops when the signal says so, and closes its stream", async () => {
    const controller = new AbortController();
    let isClosed = false;
    const endless = async function* (): AsyncGenerator<Uint8Array> {
      try {
        for (;;) {
          yield Buffer.alloc(1000);
          controller.abort(new Error("changed my mind"));
        }
      } finally {
        isClosed = true;
      }
    };
    const spooling = spoolArchive(endless(), "x", { temporaryDirectory: scratch.path, signal: controller.signal });
    await assert.rejects(spooling, { message: "changed my mind" });
    assert.deepEqual([isClosed, await readdir(scratch.path)], [true, []]);
  });

  it("needs a directory", async () => {
    const spooling = spoolArchive(pieces(Buffer.alloc(10)), "x", { temporaryDirectory: scratch.join("none") });
    await assert.rejects(spooling, { code: "UNAVAILABLE", message: /none\/.*ENOENT.*name another directory for temporary data/ });
  });
});
