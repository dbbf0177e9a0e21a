import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { tarArchive, tarHeader, tarLongName, tarPax, type TarMember } from "../../test/support/tar-builder.ts";
import { MemorySource } from "../bytes/source.ts";
import { LazyError } from "../errors.ts";
import { DockerContent } from "./docker-content.ts";
import { LayoutContent } from "./layout-content.ts";
import { indexMembers, type IndexLimits, type MemberIndex } from "./member-index.ts";

const LIMITS: IndexLimits = { members: 1000, nameBytes: 100_000 };

async function indexOf(members: readonly TarMember[]): Promise<MemberIndex> {
  return await indexMembers(new MemorySource(tarArchive(members), "a.tar"));
}

async function textOf(index: MemberIndex, path: string): Promise<string | undefined> {
  const source = index.find(path);
  return source && Buffer.from(await source.read(0, source.size)).toString();
}

describe("the index of an archive", () => {
  it("finds files by name, whatever stands in front of it", async () => {
    const names = ["a", "./b", "/c", "d/e", "./d//f", "../g", "é", `${"n".repeat(120)}/${"m".repeat(120)}`];
    const bytes = (name: string): string => Buffer.from(name).toString("latin1");
    const index = await indexOf([{ name: "d/" }, ...names.map((name) => ({ name: bytes(name), data: `in ${name}` }))]);
    const found = ["a", "b", "c", "d/e", "./d/f", "g", "é", names[7]];
    for (const [at, name] of found.entries()) assert.equal(await textOf(index, name), `in ${names[at]}`, name);
    for (const name of ["A", "e", "d/g", "../../../etc/passwd", "blobs/sha256/x"]) assert.equal(index.find(name), undefined, name);
    assert.equal(index.count, names.length + 1);
  });

  it("passes over data, however much there is", async () => {
    const [size, at] = [2 ** 40, 512 + 2 ** 40];
    const tail = tarArchive([{ name: "b", data: "small" }]);
    let read = 0;
    const source = {
      name: "huge.tar",
      size: at + tail.length,
      read: async (offset: number, length: number): Promise<Uint8Array> => {
        read += length;
        const bytes = Buffer.alloc(length);
        if (offset === 0) bytes.set(tarHeader({ name: "a", raw: { size: "\x80\0\0\0\0\0\x01\0\0\0\0\0" } }, 0));
        if (offset >= at) bytes.set(tail.subarray(offset - at, offset - at + length));
        return bytes;
      },
      close: async () => {},
    };
    const index = await indexMembers(source);
    assert.deepEqual([index.find("a")?.size, await textOf(index, "b")], [size, "small"]);
    assert.ok(read < 100_000, `${read} bytes were read`);
  });

  it("follows links inside of the archive", async () => {
    const index = await indexOf([
      { name: "id1/layer.tar", data: "one" },
      { name: "id2/layer.tar", type: "symlink", link: "../id1/layer.tar" },
      { name: "id3/layer.tar", type: "hardlink", link: "id2/layer.tar" },
      { name: "id4/layer.tar", type: "symlink", link: ".././/id3/../id3/layer.tar" },
    ]);
    for (const id of ["id1", "id2", "id3", "id4"]) assert.equal(await textOf(index, `${id}/layer.tar`), "one", id);
  });

  for (const [what, members, message] of [
    ["a link out of the archive", [{ name: "d/f", type: "symlink", link: "../../etc/passwd" }], /outside of the archive/],
    ["an absolute link", [{ name: "d/f", type: "symlink", link: "/etc/passwd" }], /"\/etc\/passwd", outside of the archive/],
    ["a hard link out of the archive", [{ name: "d/f", type: "hardlink", link: "../../etc/passwd" }], /there is no such member/],
    ["a link to nothing", [{ name: "d/f", type: "symlink", link: "g" }], /a link to "d\/g": there is no such member/],
    ["a link to itself", [{ name: "d/f", type: "symlink", link: "f" }], /more than 16 links/],
    [
      "links in a circle",
      [
        { name: "d/f", type: "symlink", link: "../e" },
        { name: "e", type: "hardlink", link: "d/f" },
      ],
      /more than 16 links/,
    ],
    ["a link to the archive's root", [{ name: "d/f", type: "symlink", link: ".." }, { name: "./" }], /is a directory, expected a file/],
    [
      "a file that is there twice",
      [
        { name: "d/f", data: "a" },
        { name: "./d/f", data: "b" },
      ],
      /more than once/,
    ],
    ["a file and a directory of one name", [{ name: "d/f/" }, { name: "d/f", data: "b" }], /more than once/],
    ["a directory", [{ name: "d/f/" }], /is a directory, expected a file/],
    ["a device", [{ name: "d/f", type: "character", major: 1, minor: 3 }], /is a character, expected a file/],
    ["a sparse file", [{ name: "d/f", data: "abc", sparse: { size: 9000, extents: [{ offset: 7, length: 3 }] } }], /sparse file/],
  ] as const satisfies readonly (readonly [string, readonly TarMember[], RegExp])[]) {
    it(`refuses ${what} when it is asked for, and no other member`, async () => {
      const index = await indexOf([...members, { name: "other", data: "x" }]);
      assert.throws(() => index.find("d/f"), { code: "CORRUPT", message });
      assert.equal(await textOf(index, "other"), "x");
    });
  }

  it("takes a directory that is there twice as one", async () => {
    assert.equal(await textOf(await indexOf([{ name: "d/" }, { name: "d/" }, { name: "d/f", data: "x" }]), "d/f"), "x");
  });

  it("holds no more members and names than it may", async () => {
    const many = (count: number): TarMember[] => Array.from({ length: count }, (_, at) => ({ name: `f${at}` }));
    const names = [{ name: "n".repeat(200), type: "symlink", link: "t".repeat(200) }] as const;
    const index = async (members: readonly TarMember[], limits: Partial<IndexLimits>): Promise<MemberIndex> =>
      await indexMembers(new MemorySource(tarArchive(members), "a.tar"), undefined, { ...LIMITS, ...limits });
    assert.equal((await index(many(50), { members: 50 })).count, 50);
    await assert.rejects(index(many(51), { members: 50 }), { code: "UNSUPPORTED", message: "a.tar: has more than 50 members" });
    assert.equal((await index(names, { nameBytes: 400 })).count, 1);
    await assert.rejects(index(names, { nameBytes: 399 }), { code: "UNSUPPORTED", message: /names of more than 399 bytes/ });
    const same = Array.from({ length: 51 }, () => ({ name: "f" }));
    await assert.rejects(index(same, { members: 50 }), { code: "UNSUPPORTED" }, "also if they all have one name");
  });

  it("refuses a million members", async () => {
    const header = tarHeader({ name: "f" }, 0);
    const source = {
      name: "many.tar",
      size: 1_000_000 * 512,
      read: async (_offset: number, length: number) => Buffer.alloc(length, header),
      close: async () => {},
    };
    await assert.rejects(indexMembers(source), { code: "UNSUPPORTED", message: "many.tar: has more than 100000 members" });
  });

  for (const [what, bytes, code, message] of [
    ["is cut in a header", tarArchive([{ name: "f" }]).subarray(0, 300), "CORRUPT", /stops in the middle, after 300 bytes/],
    ["is cut in data", tarArchive([{ name: "f", data: "x".repeat(5000) }]).subarray(0, 4000), "CORRUPT", /stops in the middle, after 4000/],
    ["is no tar", Buffer.alloc(2000, "text"), "CORRUPT", /a\.tar: tar header at 0: .*this may be no tar archive/],
    ["has an endless name", tarHeader({ name: "x", raw: { typeflag: "L", size: 2 ** 30 } }, 0), "UNSUPPORTED", /1073741824 bytes long/],
    [
      "has a name too long for a path",
      Buffer.concat([tarLongName("L", "n/".repeat(9000)), tarArchive([{ name: "f" }])]),
      "UNSUPPORTED",
      /18\d\d\d bytes|17999 bytes/,
    ],
    [
      "has an endless pax header",
      tarHeader({ name: "x", raw: { typeflag: "x", size: 2 ** 31 } }, 0),
      "UNSUPPORTED",
      /2147483648 bytes long/,
    ],
    ["has a broken pax header", Buffer.concat([tarPax("x", [["size", "-1"]]), tarArchive([{ name: "f" }])]), "CORRUPT", /size is "-1"/],
  ] as const) {
    it(`is not made of an archive that ${what}`, async () => {
      await assert.rejects(indexMembers(new MemorySource(bytes, "a.tar")), { code, message });
    });
  }

  it("stops when the signal says so", async () => {
    const signal = AbortSignal.abort(new Error("changed my mind"));
    await assert.rejects(indexMembers(new MemorySource(tarArchive([{ name: "f" }])), signal), { message: "changed my mind" });
  });
});

const entry = (digit: string): object => ({
  mediaType: "application/vnd.oci.image.index.v1+json",
  digest: `sha256:${digit.repeat(64)}`,
  size: 1,
});
/** Documents that fit where they are, more often than not. */
const DOCUMENTS: Readonly<Record<string, readonly string[]>> = {
  "oci-layout": ['{"imageLayoutVersion":"1.0.0"}', '{"imageLayoutVersion":"2.0.0"}'],
  "index.json": [[], [entry("0")], [entry("0"), entry("1")]].map((manifests) => JSON.stringify({ schemaVersion: 2, manifests })),
  "manifest.json": [
    '[{"Config":"index.json","RepoTags":["a:b"],"Layers":["d/f","../x","oci-layout"]}]',
    '[{"Config":"d","RepoTags":null,"Layers":null}]',
    '[{"Config":"x"}, {"Config":"d/f"}]',
    '[{"Config":1}]',
    "[]",
  ],
  [`blobs/sha256/${"0".repeat(64)}`]: ["{}"],
  "d/f": ["layer"],
  x: ["x"],
  "d/": [],
};
const NAME = fc.constantFrom(...Object.keys(DOCUMENTS));
const FITTING = NAME.chain((name) => fc.record({ name: fc.constant(name), data: fc.constantFrom("", ...DOCUMENTS[name]) }));
const LINK = fc.record({
  name: NAME,
  type: fc.constantFrom("symlink" as const, "hardlink" as const),
  link: fc.oneof(NAME, fc.constant("../x")),
});
const ODD = fc.record({ name: NAME, data: fc.json() });
const MEMBER = fc.oneof({ weight: 8, arbitrary: FITTING }, LINK, ODD);
const MEMBERS: fc.Arbitrary<TarMember[]> = fc.uniqueArray(MEMBER, { maxLength: 8, selector: ({ name }) => name });
const REPEATED: fc.Arbitrary<TarMember[]> = fc.array(MEMBER, { maxLength: 8 });

describe("any archive", () => {
  it("is indexed and read, or refused with an error that says why", async () => {
    const outcomes = new Set<string>();
    const flips = fc.oneof(fc.constant([]), fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 4 }));
    await fc.assert(
      fc.asyncProperty(fc.oneof(MEMBERS, REPEATED), flips, fc.nat(), fc.boolean(), async (members, changes, cut, whole) => {
        const archive = Buffer.from(tarArchive(members));
        for (const [at, value] of changes) archive[at % archive.length] = value;
        const source = new MemorySource(whole ? archive : archive.subarray(0, cut % (archive.length + 1)), "a.tar");
        try {
          outcomes.add(await readEverything(await indexMembers(source, undefined, LIMITS)));
        } catch (error) {
          if (!(error instanceof LazyError)) throw error;
          assert.match(error.message, /a\.tar/);
          outcomes.add(error.code);
        }
      }),
      { numRuns: 3000 },
    );
    assert.deepEqual([...outcomes].toSorted(), ["CORRUPT", "NOT_FOUND", "UNSUPPORTED", "USAGE", "docker", "layout", "nothing"]);
  });
});

async function readEverything(index: MemberIndex): Promise<string> {
  const layout = await LayoutContent.open(index, "a.tar", undefined);
  const content = layout ?? (await DockerContent.open(index, "a.tar", {}));
  if (!content) return "nothing";
  const { digest } = await content.find({});
  const blob = content.open(digest);
  await blob?.read(0, blob.size);
  return layout ? "layout" : "docker";
}
