import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { tarArchive, tarLongName, tarMember, type TarMember } from "../../test/support/tar-builder.ts";
import { readTar, type ReadMember } from "../../test/support/tar-events.ts";
import { LazyError } from "../errors.ts";

const pieceSizes = fc.array(fc.oneof(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 1, max: 3000 })), { minLength: 1, maxLength: 60 });

const name = fc.oneof(
  fc.constantFrom("a", "b/c", "./d//e", "../f"),
  fc.string({ minLength: 1, maxLength: 20, unit: "binary-ascii" }),
  fc.constant("n/".repeat(90) + "n"),
);
const data = fc.uint8Array({ maxLength: 1500 });
const plain = { noNullPrototype: true };
const time = fc.record({ seconds: fc.integer(), nanoseconds: fc.integer({ min: 0, max: 999_999_999 }) }, plain);
const xattrs = fc.dictionary(fc.constantFrom("user.a", "security.b", "trusted.c"), fc.uint8Array({ maxLength: 30 }), plain);
const sparse = fc.array(fc.tuple(fc.integer({ min: 1, max: 1e9 }), fc.integer({ min: 1, max: 300 })), { maxLength: 60 }).map((steps) => {
  let offset = 0;
  const extents = steps.map(([hole, length]) => {
    const extent = { offset: offset + hole, length };
    offset = extent.offset + length;
    return extent;
  });
  return { size: offset + 5, extents };
});

const member: fc.Arbitrary<TarMember> = fc.oneof(
  fc.record({ name, data, mtime: time, xattrs, uid: fc.nat(4_000_000), mode: fc.nat(0o7777) }),
  fc.record({ name, mtime: time }).map((fields) => ({ ...fields, type: "directory" as const })),
  fc.record({ name, link: fc.constantFrom("a", "../b", "t".repeat(200)), type: fc.constantFrom("symlink" as const, "hardlink" as const) }),
  fc.record({ name, type: fc.constantFrom("character" as const, "block" as const), major: fc.nat(4095), minor: fc.nat(1_048_575) }),
  fc.tuple(name, sparse).map(([at, map]) => ({ name: at, sparse: map, data: Buffer.alloc(map.extents.reduce((sum, { length }) => sum + length, 0), "s") })), // prettier-ignore
);

const members = fc.array(member, { maxLength: 6 });

test("the same archive gives the same members, however it is cut into pieces", () => {
  fc.assert(
    fc.property(members, pieceSizes, (list, sizes) => {
      const archive = tarArchive(list.filter(({ name: at }) => !at.includes("\0")));
      assert.deepEqual(readTar(archive, sizes), readTar(archive));
    }),
    { numRuns: 150 },
  );
});

test("what was built is what is read", () => {
  const clean = fc.constantFrom("a", "b/c", "d/e/f", "n/".repeat(90) + "n");
  const file = fc.record(
    { name: clean, data, mtime: time, xattrs, uid: fc.nat(4_000_000), gid: fc.nat(4_000_000), mode: fc.nat(0o7777) },
    plain,
  );
  fc.assert(
    fc.property(fc.array(file, { maxLength: 5 }), (files) => {
      const read = readTar(tarArchive(files));
      assert.deepEqual(
        read.map(summaryOf),
        files.map((given) => ({ ...given, data: Buffer.from(given.data), xattrs: sorted(given.xattrs) })),
      );
    }),
    { numRuns: 150 },
  );
});

function sorted(values: Readonly<Record<string, Uint8Array>>): [string, Buffer][] {
  return Object.entries(values)
    .map(([key, value]): [string, Buffer] => [key, Buffer.from(value)])
    .sort(([a], [b]) => (a < b ? -1 : 1));
}

function summaryOf({ path, data: bytes, mtime, xattrs: values, uid, gid, mode }: ReadMember): object {
  return { name: path, data: bytes, mtime, xattrs: [...values].map(([key, value]) => [key, Buffer.from(value)]), uid, gid, mode };
}

const SEEDS = [
  tarArchive([
    { name: "f", data: "x".repeat(700), xattrs: { "user.a": "1" }, mtime: { seconds: -1, nanoseconds: 5 } },
    { name: "d/" },
    { name: "l", type: "symlink", link: "f" },
  ]),
  tarArchive([{ name: "sp", data: "abc", sparse: { size: 9000, extents: [{ offset: 5, length: 2 }, { offset: 8000, length: 1 }] } }]), // prettier-ignore
  Buffer.concat([tarLongName("L", "n/".repeat(150)), tarMember({ name: "f", data: "x", pax: [["GNU.sparse.size", "9"], ["GNU.sparse.map", "3,1"]] })]), // prettier-ignore
  tarArchive([{ name: "c", type: "character", major: 1, minor: 3 }], { globalPax: [["mtime", "1.5"]] }),
];

/** Overwrites bytes and repairs the header checksums, so that damage gets past them. */
const damage = fc.record({
  edits: fc.array(fc.tuple(fc.nat(5000), fc.oneof(fc.nat(255), fc.constantFrom(0, 0x20, 0x30, 0x31, 0x37, 0x80, 0xff))), { maxLength: 6 }),
  cut: fc.option(fc.nat(5000)),
  repaired: fc.boolean(),
});

function damaged(
  archive: Uint8Array,
  { edits, cut, repaired }: { edits: [number, number][]; cut: number | null; repaired: boolean },
): Buffer {
  const bytes = Buffer.from(archive);
  for (const [at, byte] of edits) bytes[at % bytes.length] = byte;
  for (let at = 0; repaired && at < bytes.length; at += 512)
    if (bytes.toString("latin1", at + 257, at + 262) === "ustar") repair(bytes.subarray(at, at + 512));
  return bytes.subarray(0, cut ?? bytes.length);
}

function repair(header: Buffer): void {
  header.write("        ", 148, "latin1");
  const sum = header.reduce((total, byte) => total + byte, 0);
  header.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148, "latin1");
}

test("damaged archives give members or a LazyError, the same in one piece and in many, and members stay in bounds", () => {
  fc.assert(
    fc.property(fc.constantFrom(...SEEDS), damage, pieceSizes, (seed, change, sizes) => {
      const archive = damaged(seed, change);
      const whole = outcome(archive, [archive.length]);
      assert.deepEqual(outcome(archive, sizes), whole);
      if (typeof whole === "string") return;
      for (const { data: bytes, storedBytes, extents, size, dataOffset, type } of whole) {
        if (type === "file") assert.equal(bytes.length, storedBytes);
        assert.ok(dataOffset + bytes.length <= archive.length);
        const last = extents.at(-1);
        if (last !== undefined) assert.ok(last.offset + last.length <= size);
      }
    }),
    { numRuns: 6000 },
  );
});

function outcome(archive: Uint8Array, sizes: readonly number[]): ReadMember[] | string {
  try {
    return readTar(archive, sizes);
  } catch (error) {
    if (error instanceof LazyError) return `${error.code}: ${error.message}`;
    throw error;
  }
}
