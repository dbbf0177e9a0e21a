import assert from "node:assert/strict";
import { createCipheriv } from "node:crypto";
import { readlinkSync } from "node:fs";
import { mkdir, open, type FileHandle } from "node:fs/promises";
import { basename, join } from "node:path";
import { mock, test } from "node:test";
import { chanceOf, RecordedDisk, type Chance, type RecordedFile } from "../../test/support/recorded-file.ts";
import { TemporaryDirectory } from "../../test/support/temporary-directory.ts";
import { MemorySource } from "../bytes/source.ts";
import { digestOf } from "../oci/digest.ts";
import { BlockCache } from "./block-cache.ts";
import { SEGMENT_CHUNKS } from "./segment-file.ts";

const SEED = 20_261_121;
const CHUNK = 4096;
const OPTIONS = { capacityBytes: 2 ** 30, chunkBytes: CHUNK };
const CUTS = 100;
/** Two segments, and a last chunk that is not full. */
const BLOBS = [1, 2].map((key) => noise(key, (SEGMENT_CHUNKS + 9) * CHUNK + 77));

function noise(key: number, bytes: number): Buffer {
  return createCipheriv("aes-256-ctr", Buffer.alloc(32, key), Buffer.alloc(16)).update(Buffer.alloc(bytes));
}

/** The files of a cache, by name, and every write to them in its order. */
interface Recording {
  readonly disk: RecordedDisk;
  readonly files: Map<string, RecordedFile>;
}

/** Notes what is written through file handles below a directory while `work` runs. */
async function record(directory: string, work: () => Promise<void>): Promise<Recording> {
  const recording: Recording = { disk: new RecordedDisk(), files: new Map() };
  const { disk, files } = recording;
  await using handle = await open(directory, "r");
  const prototype = Object.getPrototypeOf(handle) as FileHandle;
  const original: unknown = Reflect.get(prototype, "write");
  assert.ok(typeof original === "function");
  const patch = mock.method(
    prototype,
    "write",
    async function write(this: FileHandle, ...args: [Uint8Array, number, number, number]): Promise<unknown> {
      const [bytes, from, length, position] = args;
      const name = basename(readlinkSync(`/proc/self/fd/${this.fd}`));
      if (!files.has(name)) files.set(name, disk.file(name));
      await files.get(name)!.write(position, bytes.subarray(from, from + length));
      const written: unknown = await Reflect.apply(original, this, args);
      return written;
    },
  );
  await work();
  patch.mock.restore();
  return recording;
}

/** Reads blobs here and there, some of it at the same time, by several openings one after the other. */
async function fill(directory: string, chance: Chance): Promise<void> {
  for (let opening = 0; opening < 3; opening++) {
    const cache = await BlockCache.open(directory, OPTIONS);
    for (const blob of BLOBS) {
      const source = cache.source(digestOf(blob), new MemorySource(blob));
      for (let turn = 0; turn < 3; turn++) {
        const offsets = Array.from({ length: 4 }, () => chance.below(blob.length));
        await Promise.all(
          offsets.map(async (offset) => await source.read(offset, Math.min(chance.below(20 * CHUNK), blob.length - offset))),
        );
        if (chance.below(3) === 0) source.discard(offsets[0], 1);
      }
      await source.close();
    }
  }
}

/** Writes the files as they are after a cut behind the first `count` writes. What a file has no block for reads as zeros, or as anything. */
async function cutInto(directory: string, { disk, files }: Recording, count: number, chance: Chance): Promise<void> {
  const isStale = chance.below(2) === 0;
  for (const [name, file] of files) {
    const cut = disk.cut(file, count, chance, new RecordedDisk());
    const bytes = isStale ? noise(chance.below(255), cut.size) : Buffer.alloc(cut.size);
    for (const { offset, length } of cut.extents) {
      bytes.set(await cut.read(offset, Math.min(length, cut.size - offset)), offset);
    }
    await using handle = await open(join(directory, name), "w");
    await handle.writeFile(bytes);
  }
}

/** Reads all of a blob in both ways that there are, and answers how much of it was on disk. */
async function readWhole(directory: string, blob: Buffer, where: string): Promise<number> {
  const source = (await BlockCache.open(directory, OPTIONS)).source(digestOf(blob), new MemorySource(blob));
  for (let at = 0; at < blob.length; at += SEGMENT_CHUNKS * CHUNK) await source.read(at, 1);
  await source.settled();
  let kept = 0;
  for (let at = 0; at < blob.length; at += CHUNK) {
    const piece = new Uint8Array(Math.min(CHUNK, blob.length - at));
    if (!source.shared.readSync(at, piece, false)) continue;
    assert.ok(blob.subarray(at, at + CHUNK).equals(piece), `${where}: wrong bytes at ${at}`);
    kept += piece.length;
  }
  assert.ok(blob.equals(await source.read(0, blob.length)), where);
  await source.close();
  return kept;
}

test("whenever the power is cut, no wrong byte is read, and the cache fills again", async () => {
  const chance = chanceOf(SEED);
  await using scratch = await TemporaryDirectory.create();
  const recording = await record(scratch.path, async () => await fill(scratch.join("whole"), chance));
  const writes = recording.disk.operations.length;
  let kept = 0;
  for (let cut = 0; cut < CUTS; cut++) {
    const count = chance.below(writes + 1);
    const where = `seed ${SEED}, cut ${cut}, after ${count} of ${writes} writes`;
    const directory = scratch.join(`cut${cut}`);
    await mkdir(directory);
    await cutInto(directory, recording, count, chance);
    for (const blob of BLOBS) kept += await readWhole(directory, blob, where);
    for (const blob of BLOBS) assert.equal(await readWhole(directory, blob, where), blob.length, `${where}: everything is stored`);
  }
  assert.ok(kept > 0, "what was stored before the cut is used");
});
