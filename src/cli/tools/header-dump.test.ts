import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { scanLayer } from "../../convert/layer-scan.ts";
import { LazyError } from "../../errors.ts";
import { tarArchive, tarPax, type TarMember } from "../../../test/support/tar-builder.ts";
import { dumpHeaders, readHeaderDump } from "./header-dump.ts";

const SEED = 20260;

async function* inPieces(bytes: Uint8Array, size: number): AsyncGenerator<Uint8Array, void> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

async function dumpOf(archive: Uint8Array, size = 10_000): Promise<Buffer> {
  const blocks = [];
  for await (const block of dumpHeaders(inPieces(archive, size), "archive")) blocks.push(block);
  return Buffer.concat(blocks);
}

const member: fc.Arbitrary<TarMember> = fc
  .record({
    name: fc.stringMatching(/^[a-z]{1,150}$/),
    type: fc.constantFrom("file", "directory", "symlink", "hardlink", "character", "fifo"),
    bytes: fc.nat(3000),
    major: fc.nat(200),
  })
  .map(({ name, type, bytes, major }) => {
    const link = type === "symlink" || type === "hardlink" ? { link: name.slice(0, 120) } : {};
    const data = type === "file" ? { data: Buffer.alloc(bytes, "x") } : {};
    return { name, type, ...link, ...data, ...(type === "character" && { major }), xattrs: { "user.x": name } };
  });

test(`a dump of headers has the entries of its archive, with the places of their data (seed ${SEED})`, async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(member, { maxLength: 8 }), fc.integer({ min: 1, max: 5000 }), async (members, size) => {
      const archive = tarArchive(members);
      const options = { payload: false, indexed: false };
      const scan = await scanLayer(
        inPieces(archive, size),
        "archive",
        async () => {},
        () => new ArrayBuffer(0),
        options,
      );
      const dump = await dumpOf(archive, size);
      const read = await readHeaderDump(inPieces(dump, size), "dump");
      assert.deepEqual([...read.entries], [...scan.entries]);
      assert.equal(read.payloadBlocks, scan.payloadBlocks);
    }),
    { seed: SEED, numRuns: 60 },
  );
});

test("the headers of files have the place of their data, and others stay as they are", async () => {
  const archive = tarArchive([{ name: "d/" }, { name: "f", data: "some" }, { name: "g", data: "" }]);
  const dump = await dumpOf(archive);
  assert.equal(dump.length, 3 * 512);
  assert.ok(dump.subarray(0, 512).equals(archive.subarray(0, 512)));
  assert.equal(dump.readBigInt64LE(512 + 329), 1024n);
  assert.equal(dump.readBigInt64LE(1024 + 329), 2048n);
});

test("sparse files whose map is in their data cannot be dumped", async () => {
  const archive = tarArchive([{ name: "s", data: "x", sparse: { size: 10_000, extents: [{ offset: 0, length: 1 }] } }]);
  await assert.rejects(dumpOf(archive), { code: "UNSUPPORTED", message: /sparse file/ });
});

test("an archive that is cut off, or no archive, cannot be dumped", async () => {
  const archive = tarArchive([{ name: "f", data: Buffer.alloc(2000) }]);
  for (const length of [100, 600, 1000]) await assert.rejects(dumpOf(archive.subarray(0, length)), { code: "CORRUPT" }, String(length));
  await assert.rejects(dumpOf(tarPax("x", [["path", "f"]]).subarray(0, 700)), { code: "CORRUPT" });
});

test("a dump whose data lies nowhere is refused", async () => {
  for (const offset of [-512n, 100n, 2n ** 60n]) {
    const dump = await dumpOf(tarArchive([{ name: "f", data: "some" }]));
    dump.writeBigInt64LE(offset, 329);
    await assert.rejects(readHeaderDump(inPieces(dump, 512), "dump"), { code: "CORRUPT", message: /dump: header at 0: data is at/ });
  }
});

test(`broken dumps give an error or entries, and nothing else (seed ${SEED})`, async () => {
  const dump = await dumpOf(
    tarArchive([{ name: "d/" }, { name: "x".repeat(120), data: "some" }, { name: "l", type: "symlink", link: "d" }]),
  );
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.tuple(fc.nat(dump.length - 1), fc.nat(255)), { minLength: 1, maxLength: 5 }),
      fc.nat(dump.length),
      async (edits, length) => {
        const broken = Buffer.from(dump.subarray(0, length));
        for (const [at, value] of edits) if (at < length) broken[at] = value;
        try {
          await readHeaderDump(inPieces(broken, 700), "dump");
        } catch (error) {
          assert.ok(error instanceof LazyError, String(error));
        }
      },
    ),
    { seed: SEED, numRuns: 400 },
  );
});
