import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { MemorySource } from "../../bytes/source.ts";
import { LazyError } from "../../errors.ts";
import { findRootFilesystems } from "./disk-partitions.ts";

const SEED = 2026;
const DISK_BYTES = 1 << 20;
const LINUX = "af3dc60f838472478e793d69d8477de4";
const SWAP = "6dfd5706aba4c44384e50933c84b4f4f";
const EFI = "28732ac11ff8d211ba4b00a0c93ec93b";
const OTHER = "00112233445566778899aabbccddeeff";

interface Partition {
  readonly type: number | string;
  readonly firstSector: number;
  readonly sectors: number;
}

function mbrDisk(partitions: readonly Partition[]): Buffer {
  const disk = Buffer.alloc(DISK_BYTES);
  for (const [index, { type, firstSector, sectors }] of partitions.entries()) {
    disk[446 + index * 16 + 4] = Number(type);
    disk.writeUInt32LE(firstSector, 446 + index * 16 + 8);
    disk.writeUInt32LE(sectors, 446 + index * 16 + 12);
  }
  disk.writeUInt16LE(0xaa55, 510);
  return disk;
}

function gptDisk(partitions: readonly Partition[]): Buffer {
  const disk = mbrDisk([{ type: 0xee, firstSector: 1, sectors: DISK_BYTES / 512 - 1 }]);
  disk.write("EFI PART", 512, "latin1");
  disk.writeBigUInt64LE(2n, 512 + 72);
  disk.writeUInt32LE(128, 512 + 80);
  disk.writeUInt32LE(128, 512 + 84);
  for (const [index, { type, firstSector, sectors }] of partitions.entries()) {
    const at = 1024 + index * 128;
    disk.write(String(type), at, "hex");
    disk.writeBigUInt64LE(BigInt(firstSector), at + 32);
    disk.writeBigUInt64LE(BigInt(firstSector + sectors - 1), at + 40);
  }
  return disk;
}

function putExt4(disk: Buffer, sector: number): void {
  disk.writeUInt16LE(0xef53, sector * 512 + 0x438);
}

async function found(disk: Buffer): Promise<[firstSector: number, sectors: number][]> {
  return (await findRootFilesystems(new MemorySource(disk, "disk"))).map(({ offset, length }) => [offset / 512, length / 512]);
}

test("of an MBR, Linux partitions with a known filesystem are taken, in the table's order", async () => {
  const disk = mbrDisk([
    { type: 0x83, firstSector: 1024, sectors: 512 },
    { type: 0x82, firstSector: 256, sectors: 16 },
    { type: 0x83, firstSector: 512, sectors: 256 },
    { type: 0x83, firstSector: 64, sectors: 64 },
  ]);
  putExt4(disk, 1024);
  putExt4(disk, 256);
  disk.write("XFSB", 512 * 512, "latin1");
  assert.deepEqual(await found(disk), [
    [1024, 512],
    [512, 256],
  ]);
});

test("of a GPT, partitions that are not for swap or booting are taken if they have a known filesystem", async () => {
  const disk = gptDisk([
    { type: EFI, firstSector: 64, sectors: 64 },
    { type: SWAP, firstSector: 128, sectors: 64 },
    { type: LINUX, firstSector: 256, sectors: 256 },
    { type: OTHER, firstSector: 512, sectors: 512 },
    { type: LINUX, firstSector: 1024, sectors: 8 },
  ]);
  for (const sector of [64, 128, 256, 1024]) putExt4(disk, sector);
  disk.writeUInt32LE(0xf2f52010, 512 * 512 + 0x400);
  assert.deepEqual(await found(disk), [
    [256, 256],
    [512, 512],
    [1024, 8],
  ]);
});

test("a disk without partitions is taken whole if it is a filesystem", async () => {
  const disk = Buffer.alloc(DISK_BYTES);
  assert.deepEqual(await found(disk), []);
  disk.write("_BHRfS_M", 0x10040, "latin1");
  assert.deepEqual(await found(disk), [[0, DISK_BYTES / 512]]);
  assert.deepEqual(await found(Buffer.alloc(100)), []);
});

test("partitions that do not lie on the disk are refused", async () => {
  await assert.rejects(found(mbrDisk([{ type: 0x83, firstSector: 2000, sectors: 1000 }])), {
    code: "CORRUPT",
    message: /partition table names/,
  });
  await assert.rejects(found(gptDisk([{ type: LINUX, firstSector: 2 ** 60, sectors: 1 }])), { code: "CORRUPT" });
});

test(`broken partition tables give an error or ranges on the disk (seed ${SEED})`, async () => {
  const whole = gptDisk([{ type: LINUX, firstSector: 256, sectors: 256 }]);
  putExt4(whole, 256);
  await fc.assert(
    fc.asyncProperty(fc.array(fc.tuple(fc.nat(1400), fc.nat(255)), { minLength: 1, maxLength: 6 }), async (edits) => {
      const disk = Buffer.from(whole);
      for (const [at, value] of edits) disk[at] = value;
      try {
        for (const [firstSector, sectors] of await found(disk)) assert.ok(sectors > 0 && (firstSector + sectors) * 512 <= DISK_BYTES);
      } catch (error) {
        assert.ok(error instanceof LazyError, String(error));
      }
    }),
    { seed: SEED, numRuns: 300 },
  );
});
