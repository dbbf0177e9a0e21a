import assert from "node:assert/strict";
import { test } from "node:test";
import type { ByteSource } from "../bytes/source.ts";
import { WindowSource } from "./window-source.ts";

const SIZE = 40_000_001;

/** A source that counts reads and can fail. */
function countingSource(): ByteSource & { reads: number; failing: boolean } {
  return {
    name: "counting",
    size: SIZE,
    reads: 0,
    failing: false,
    async read(offset, length) {
      this.reads++;
      if (this.failing) throw new Error("failed");
      return Uint8Array.from({ length }, (_, at) => (offset + at) % 253);
    },
    async close() {},
  };
}

test("reads come out right across windows and at the end, and near ones cost one read", async () => {
  const source = countingSource();
  const windows = new WindowSource(source);
  for (const [offset, length] of [
    [0, 10],
    [2_097_140, 30],
    [SIZE - 5, 5],
    [4_000_000, 5_000_000],
    [7, 0],
  ]) {
    const bytes = await windows.read(offset, length);
    assert.equal(bytes.length, length);
    assert.ok(bytes.every((byte, at) => byte === (offset + at) % 253));
  }
  const before = source.reads;
  for (let at = 4_200_000; at < 6_000_000; at += 100_000) await windows.read(at, 4096);
  assert.equal(source.reads, before);
  await assert.rejects(windows.read(SIZE - 5, 6));
});

test("a failed read is not remembered", async () => {
  const source = countingSource();
  const windows = new WindowSource(source);
  source.failing = true;
  await assert.rejects(windows.read(0, 1), /failed/);
  source.failing = false;
  assert.equal((await windows.read(1, 1))[0], 1);
});
