import assert from "node:assert/strict";
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { FileSource } from "./file.ts";
import { MemorySink } from "./sink.ts";
import { MemorySource, SubSource, type ByteSource } from "./source.ts";

const CONTENT = Buffer.from("0123456789");

async function withFile(use: (source: FileSource, path: string) => Promise<void>): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), "lazylayer-test-"));
  const path = join(directory, "file");
  writeFileSync(path, CONTENT);
  const source = await FileSource.open(path);
  try {
    await use(source, path);
  } finally {
    await source.close();
    rmSync(directory, { recursive: true });
  }
}

async function readsLikeContent(source: ByteSource): Promise<void> {
  assert.equal(source.size, 10);
  assert.equal(Buffer.from(await source.read(0, 10)).toString(), "0123456789");
  assert.equal(Buffer.from(await source.read(9, 1)).toString(), "9");
  assert.equal((await source.read(10, 0)).length, 0);
  for (const [offset, length] of [
    [0, 11],
    [10, 1],
    [-1, 2],
    [0, -1],
    [0.5, 1],
    [Number.NaN, 1],
  ] as const) {
    await assert.rejects(source.read(offset, length), { code: "CORRUPT" }, `${offset} ${length}`);
  }
}

test("memory, files and windows of them read the same, and nothing outside of them", async () => {
  await readsLikeContent(new MemorySource(CONTENT));
  await readsLikeContent(new SubSource(new MemorySource(Buffer.from("ab0123456789cd")), 2, 10));
  await withFile(readsLikeContent);
});

test("what was read is the caller's own", async () => {
  const bytes = Buffer.from("abc");
  const source = new MemorySource(bytes);
  const read = await source.read(0, 3);
  read.fill(0);
  assert.equal(bytes.toString(), "abc");
});

test("a window outside of its source is corrupt", () => {
  assert.throws(() => new SubSource(new MemorySource(CONTENT), 5, 6), { code: "CORRUPT" });
});

test("a file that has become shorter is corrupt, not short", async () => {
  await withFile(async (source, path) => {
    truncateSync(path, 4);
    await assert.rejects(source.read(2, 5), { code: "CORRUPT", message: /ends at 4, was 10 bytes/ });
  });
});

test("a memory sink keeps what was written, not the buffer it came in", async () => {
  const sink = new MemorySink();
  const buffer = Buffer.from("ab");
  await sink.write(buffer);
  buffer.write("cd");
  await sink.write(buffer);
  await sink.close();
  assert.equal(Buffer.from(sink.bytes()).toString(), "abcd");
});
