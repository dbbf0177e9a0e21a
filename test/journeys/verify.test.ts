import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { openLayoutStore } from "../../src/image-layout/layout-store.ts";
import type { Difference } from "../../src/verify/compare-trees.ts";
import { verifyImage } from "../../src/verify/verify-image.ts";
import { convertLayout } from "../support/convert.ts";
import { damageBlob, layerOf, writeImage } from "../support/image-builder.ts";
import { lazylayer } from "../support/programs.ts";
import type { TarMember } from "../support/tar-builder.ts";
import { TemporaryDirectory } from "../support/temporary-directory.ts";

const CONTENT = Buffer.alloc(3_000_000, "content ");
const MEMBERS: readonly TarMember[] = [
  { name: "f", data: CONTENT, mtime: { seconds: 5, nanoseconds: 7 }, xattrs: { "user.a": "1" } },
  { name: "d/", uid: 4 },
  { name: "d/one", data: "1" },
  { name: "d/same", type: "hardlink", link: "d/one" },
  { name: "d/other", data: "1" },
  { name: "link", type: "symlink", link: "f" },
  { name: "null", type: "character", major: 1, minor: 3 },
  {
    name: "holes",
    data: "xy",
    sparse: {
      size: 1 << 20,
      extents: [
        { offset: 0, length: 1 },
        { offset: 500_000, length: 1 },
      ],
    },
  },
];

let scratch: TemporaryDirectory;

before(async () => {
  scratch = await TemporaryDirectory.create();
  await writeImage(scratch.join("source"), "x", { layers: [layerOf(MEMBERS)] });
  await convertLayout(scratch.join("source"), "x", scratch.join("converted"));
});

after(async () => await scratch[Symbol.asyncDispose]());

/** Compares an image of other members with what `MEMBERS` was converted to. */
async function differences(name: string, members: readonly TarMember[]): Promise<string[]> {
  await writeImage(scratch.join(name), "x", { layers: [layerOf(members)] });
  const found: Difference[] = [];
  const place = async (directory: string): Promise<Parameters<typeof verifyImage>[0]> => ({
    store: await openLayoutStore(scratch.join(directory)),
    target: { tag: "x" },
  });
  const result = await verifyImage(await place(name), await place("converted"), {
    platforms: [],
    signal: new AbortController().signal,
    observe: () => {},
    differs: (difference) => found.push(difference),
  });
  assert.equal(result.differences, found.length);
  return found.map(({ path, what }) => `${path}: ${what}`);
}

/** `MEMBERS` with one of them changed; `undefined` leaves it out. */
function withChange(name: string, change: Partial<TarMember> | undefined): TarMember[] {
  return MEMBERS.flatMap((member) => (member.name !== name ? [member] : change === undefined ? [] : [{ ...member, ...change }]));
}

const flipped = Buffer.from(CONTENT);
flipped[2_999_999] ^= 1;

const ROWS: readonly (readonly [change: string, members: readonly TarMember[], found: readonly string[]])[] = [
  ["nothing", MEMBERS, []],
  ["the order", [...MEMBERS.slice(1, 3), ...MEMBERS.slice(5), MEMBERS[0], ...MEMBERS.slice(3, 5)], []],
  ["the mode", withChange("f", { mode: 0o4644 }), ["f: mode"]],
  ["the owner", withChange("f", { uid: 1 }), ["f: owner"]],
  ["the group", withChange("d/", { gid: 1 }), ["d: owner"]],
  ["a bit at the end", withChange("f", { data: flipped }), ["f: content"]],
  ["a byte less", withChange("f", { data: CONTENT.subarray(1) }), ["f: size", "f: content"]],
  ["a zero more", withChange("d/other", { data: "1\0" }), ["d/other: size"]],
  ["a second", withChange("d/other", { mtime: 1 }), ["d/other: modification time", "d/other: access time", "d/other: change time"]],
  [
    "a nanosecond",
    withChange("f", { mtime: { seconds: 5, nanoseconds: 8 } }),
    ["f: modification time", "f: access time", "f: change time"],
  ],
  ["an access time", withChange("d/other", { pax: [["atime", "9"]] }), ["d/other: access time"]],
  ["an xattr's value", withChange("f", { xattrs: { "user.a": "2" } }), ["f: extended attributes"]],
  ["no xattr", withChange("f", { xattrs: {} }), ["f: extended attributes"]],
  ["one xattr more", withChange("d/other", { xattrs: { "user.b": "" } }), ["d/other: extended attributes"]],
  ["the type", withChange("null", { type: "block" }), ["null: type"]],
  ["the device", withChange("null", { minor: 4 }), ["null: device"]],
  ["the target", withChange("link", { link: "./f" }), ["link: link target"]],
  ["a link that is none", withChange("d/same", { type: "file", data: "1" }), ["d/same: hard links"]],
  [
    "another link",
    [...MEMBERS.filter(({ name }) => name !== "d/same"), { name: "d/same", type: "hardlink", link: "d/other" }],
    ["d/same: hard links"],
  ],
  [
    "where the data is",
    withChange("holes", {
      sparse: {
        size: 1 << 20,
        extents: [
          { offset: 0, length: 1 },
          { offset: 500_001, length: 1 },
        ],
      },
    }),
    ["holes: content"],
  ],
  ["a path less", withChange("d/other", undefined), ["d/other: extra"]],
  ["a path more", [...MEMBERS, { name: "d/new", data: "" }], ["d/new: missing"]],
  ["a lost+found", [...MEMBERS, { name: "lost+found/", mode: 0o755 }], ["lost+found: missing"]],
];

for (const [at, [change, members, found]] of ROWS.entries()) {
  test(`a difference in ${change} is found, and nothing else`, async () => {
    assert.deepEqual((await differences(`row-${at}`, members)).toSorted(), found.toSorted());
  });
}

test("holes and zeros are the same content", async () => {
  const spelled = Buffer.alloc(1 << 20);
  spelled[0] = "x".charCodeAt(0);
  spelled[500_000] = "y".charCodeAt(0);
  assert.deepEqual(
    await differences(
      "spelled",
      MEMBERS.map((member) => (member.name === "holes" ? { name: "holes", data: spelled } : member)),
    ),
    [],
  );
});

test("the command prints what differs, a line each, and exits with 1", async () => {
  await writeImage(scratch.join("changed"), "x", { layers: [layerOf(withChange("f", { mode: 0o600, uid: 9 }))] });
  const { status, stdout, stderr } = await lazylayer(["verify", `oci:${scratch.join("changed")}:x`, `oci:${scratch.join("converted")}:x`]);
  assert.equal(stdout.toString(), '"/f": mode: source 0600, converted 0644\n"/f": owner: source 9:0, converted 0:0\n');
  assert.match(stderr, /^verified 9 paths in .*: 2 differences\n$/);
  assert.equal(status, 1);
});

test("a damaged converted layer is an error, not a difference", async () => {
  await convertLayout(scratch.join("source"), "x", scratch.join("damaged"));
  const store = await openLayoutStore(scratch.join("damaged"));
  const { bytes } = await store.resolve({ tag: "x" });
  const { layers } = JSON.parse(Buffer.from(bytes).toString()) as { layers: { digest: `sha256:${string}` }[] };
  await damageBlob(scratch.join("damaged"), layers[0].digest as Parameters<typeof damageBlob>[1], "flip");
  const { status, stdout, stderr } = await lazylayer(["verify", `oci:${scratch.join("source")}:x`, `oci:${scratch.join("damaged")}:x`]);
  assert.match(stderr, /^lazylayer: .*\n$/);
  assert.deepEqual([status, stdout.toString()], [1, ""]);
});
