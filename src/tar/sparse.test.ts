import assert from "node:assert/strict";
import { test } from "node:test";
import { tarArchive, tarHeader, tarMember, type TarMember } from "../../test/support/tar-builder.ts";
import { contentOf, readTar, type ReadMember } from "../../test/support/tar-events.ts";

const BLOCK = 512;
const END = new Uint8Array(2 * BLOCK);

function one(member: TarMember): ReadMember {
  const members = readTar(tarArchive([member]));
  assert.equal(members.length, 1);
  return members[0];
}

function refused(archive: Uint8Array, message: RegExp, code = "CORRUPT"): void {
  assert.throws(() => readTar(archive), { name: "LazyError", code, message });
}

test("PAX sparse files of all three formats have the same extents", () => {
  const size = 1_000_000;
  const data = "a".repeat(700) + "b".repeat(100);
  const extents = [
    { offset: 4096, length: 700 },
    { offset: 999_900, length: 100 },
  ];
  const formats: TarMember[] = [
    { name: "sp", data, sparse: { size, extents } },
    {
      name: "raw",
      data,
      pax: [
        ["GNU.sparse.size", `${size}`],
        ["GNU.sparse.name", "sp"],
        ["GNU.sparse.map", "4096,700,999900,100"],
      ],
    },
    {
      name: "sp",
      data,
      pax: [
        ["GNU.sparse.size", `${size}`],
        ["GNU.sparse.numblocks", "2"],
        ["GNU.sparse.offset", "4096"],
        ["GNU.sparse.numbytes", "700"],
        ["GNU.sparse.offset", "999900"],
        ["GNU.sparse.numbytes", "100"],
      ],
    },
  ];
  const expected = Buffer.alloc(size);
  expected.fill("a", 4096, 4796).fill("b", 999_900);
  for (const member of formats) {
    const [sparse, after] = readTar(tarArchive([member, { name: "after" }]));
    assert.deepEqual([sparse.path, sparse.size, sparse.storedBytes, sparse.extents, after.path], ["sp", size, 800, extents, "after"]);
    assert.ok(contentOf(sparse).equals(expected));
    assert.equal(Buffer.from(tarArchive([member])).toString("latin1", sparse.dataOffset, sparse.dataOffset + 800), data);
  }
});

test("maps of 1.0 may span blocks, adjoining extents are joined and empty ones dropped", () => {
  const extents = Array.from({ length: 500 }, (_, at) => ({ offset: at * 1_000_000_007, length: 1 }));
  const large = one({ name: "sp", data: "x".repeat(500), sparse: { size: 500_000_003_500, extents } });
  assert.deepEqual([large.extents, large.data.length, large.size], [extents, 500, 500_000_003_500]);
  const joined = one({
    name: "sp",
    data: "abcd",
    sparse: {
      size: 9,
      extents: [
        { offset: 0, length: 1 },
        { offset: 1, length: 0 },
        { offset: 1, length: 3 },
        { offset: 9, length: 0 },
      ],
    },
  });
  assert.deepEqual(joined.extents, [{ offset: 0, length: 4 }]);
  const hole = one({ name: "sp", sparse: { size: 9, extents: [] } });
  assert.deepEqual([hole.size, hole.extents, hole.storedBytes], [9, [], 0]);
  assert.deepEqual(
    one({
      name: "f",
      pax: [
        ["GNU.sparse.size", "5"],
        ["GNU.sparse.map", ""],
      ],
    }).extents,
    [],
  );
});

test("sparse maps that fit no file are refused", () => {
  const sparse = (size: number, map: [number, number][], data: string): Uint8Array =>
    tarArchive([{ name: "sp", data, sparse: { size, extents: map.map(([offset, length]) => ({ offset, length })) } }]);
  refused(
    sparse(
      100,
      [
        [50, 10],
        [40, 5],
      ],
      "x".repeat(15),
    ),
    /expected ascending extents/,
  );
  refused(
    sparse(
      100,
      [
        [50, 10],
        [59, 5],
      ],
      "x".repeat(15),
    ),
    /expected ascending extents/,
  );
  refused(sparse(100, [[90, 11]], "x".repeat(11)), /in a file of 100 bytes/);
  refused(sparse(100, [[101, 0]], ""), /in a file of 100 bytes/);
  refused(sparse(100, [[0, 10]], "x".repeat(11)), /describes 10 bytes of data, the archive stores 11/);
  refused(sparse(100, [[0, 10]], ""), /describes 10 bytes of data, the archive stores 0/);
  const version = (...records: [string, string][]): Uint8Array => tarArchive([{ name: "sp", data: "x", pax: records }]);
  refused(version(["GNU.sparse.major", "2"], ["GNU.sparse.minor", "0"]), /sparse format 2\.0 is unknown/, "UNSUPPORTED");
  refused(version(["GNU.sparse.major", "1"], ["GNU.sparse.minor", "0"]), /without GNU\.sparse\.realsize/);
  refused(version(["GNU.sparse.map", "0,1"]), /without GNU\.sparse\.size/);
  refused(version(["GNU.sparse.size", "9"], ["GNU.sparse.map", "0,1,5"]), /expected pairs/);
  refused(version(["GNU.sparse.size", "9"], ["GNU.sparse.map", "0,x"]), /sparse length is "x"/);
  refused(version(["GNU.sparse.size", "9"], ["GNU.sparse.numbytes", "1"]), /where GNU\.sparse\.offset is due/);
  const lines = (text: string): Uint8Array =>
    tarArchive([
      {
        name: "sp",
        data: text.padEnd(BLOCK, "\0"),
        pax: [
          ["GNU.sparse.major", "1"],
          ["GNU.sparse.minor", "0"],
          ["GNU.sparse.realsize", "99"],
        ],
      },
    ]);
  refused(lines("1000001\n"), /1000001 extents/, "UNSUPPORTED");
  refused(lines("1\n0\n"), /no numbers in it/);
  refused(lines("1\n\n0\n"), /number in the sparse map is ""/);
  refused(lines("9".repeat(BLOCK)), /no numbers in it/);
  refused(lines("200\n" + "1\n1\n".repeat(127)), /expected ascending extents/);
  refused(lines(`200\n${"1\n0\n".repeat(127)}`), /longer than the data/);
});

test("GNU sparse members of the old kind have extents in their header and in blocks after it", () => {
  const octal = (value: number): string => `${value.toString(8).padStart(11, "0")}\0`;
  const pairs = Array.from({ length: 4 + 21 + 3 }, (_, at) => [at * 10_000, 100] as const);
  const text = (from: number, to: number): string =>
    pairs
      .slice(from, to)
      .map(([offset, length]) => octal(offset) + octal(length))
      .join("");
  const extension = (from: number, to: number, isContinued: boolean): Buffer => {
    const block = Buffer.alloc(BLOCK);
    block.write(text(from, to), "latin1");
    block[504] = isContinued ? 1 : 0;
    return block;
  };
  const sparse = (extensions: Buffer[], size: number): Uint8Array =>
    Buffer.concat([
      tarHeader(
        {
          name: "sp",
          raw: {
            typeflag: "S",
            magic: "ustar  \0",
            patches: [
              [386, text(0, 4)],
              [482, "\x01"],
              [483, octal(300_000)],
            ],
          },
        },
        size,
      ),
      ...extensions,
      Buffer.alloc(Math.ceil(size / BLOCK) * BLOCK, "x"),
      tarMember({ name: "after" }),
      END,
    ]);
  const [member, after] = readTar(sparse([extension(4, 25, true), extension(25, 28, false)], 2800));
  assert.deepEqual(
    [member.type, member.size, member.storedBytes, member.dataOffset, after.path],
    ["file", 300_000, 2800, 3 * BLOCK, "after"],
  );
  assert.deepEqual(
    member.extents,
    pairs.map(([offset, length]) => ({ offset, length })),
  );
  refused(sparse([extension(4, 25, false)], 2800), /describes 2500 bytes of data, the archive stores 2800/);
  refused(sparse([extension(4, 25, true), extension(4, 25, false)], 2800), /expected ascending extents/);
  refused(sparse([extension(4, 25, true)], 2800).subarray(0, 2 * BLOCK), /stops in the middle/);
});
