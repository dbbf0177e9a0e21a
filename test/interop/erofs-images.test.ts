import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { after, before, test } from "node:test";
import { openLayoutStore } from "../../src/image-layout/layout-store.ts";
import { digestOf } from "../../src/oci/digest.ts";
import { OCI_LAYER_TAR } from "../../src/oci/media-types.ts";
import { verifyImage } from "../../src/verify/verify-image.ts";
import { listTree, MountBench } from "../journeys/mount-support.ts";
import { erofsLayerBlobs } from "../support/erofs-layers.ts";
import { layerOfTar, writeImage } from "../support/image-builder.ts";
import { lazylayer } from "../support/programs.ts";
import { tarArchive, type TarMember } from "../support/tar-builder.ts";
import { TemporaryDirectory } from "../support/temporary-directory.ts";

const BIG = Buffer.alloc(5_000_000, "0123456789abcdef\n");
const FAR_AWAY = 2 ** 36;

const LOWER: readonly TarMember[] = [
  { name: "etc/", mtime: 1_700_000_000 },
  { name: "etc/motd", data: "hello\n", mtime: { seconds: 1_700_000_000, nanoseconds: 5 }, uid: 3, gid: 4, xattrs: { "user.a": "1" } },
  { name: "etc/secret", data: "gone\n" },
  { name: "etc/future", data: "", mtime: FAR_AWAY },
  { name: "dev/null", type: "character", major: 1, minor: 3, mode: 0o666 },
  { name: "big", data: BIG, mode: 0o4755 },
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
const UPPER: readonly TarMember[] = [
  { name: "etc/.wh.secret" },
  { name: "etc/link", type: "symlink", link: "motd", mode: 0o777 },
  { name: "etc/same", type: "hardlink", link: "etc/motd" },
  { name: "pipe", type: "fifo" },
];

let scratch: TemporaryDirectory;
let blobs: readonly Uint8Array[];

before(async () => {
  scratch = await TemporaryDirectory.create();
  const tars = [tarArchive(LOWER), tarArchive(UPPER)];
  blobs = await erofsLayerBlobs(tars);
  await writeImage(scratch.join("source"), "x", { layers: tars.map(layerOfTar) });
  const layers = blobs.map((blob) => ({ blob, diffId: digestOf(blob), mediaType: OCI_LAYER_TAR }));
  await writeImage(scratch.join("converted"), "x", { layers });
});
after(async () => await scratch[Symbol.asyncDispose]());

async function printed(...args: string[]): Promise<Buffer> {
  const { status, stdout, stderr } = await lazylayer(args);
  assert.deepEqual([status, stderr], [0, ""]);
  return stdout;
}

test("ls and cat show what is in an EROFS image", async () => {
  const image = `oci:${scratch.join("converted")}:x`;
  assert.equal((await printed("ls", image, "etc")).toString(), "future\nlink\nmotd\nsame\n");
  const lines = (await printed("ls", "-l", image, "etc")).toString();
  assert.match(lines, /^-0644 +2 3:4 +6 2023-11-14T22:13:20Z motd$/m);
  assert.match(lines, /^l0777 +1 0:0 +4 .* link -> motd$/m);
  assert.match((await printed("ls", "-l", image, "dev")).toString(), /^c0666 +1 0:0 +1,3 .* null$/m);
  assert.deepEqual(await printed("cat", image, "big"), BIG);
  assert.equal((await printed("cat", image, "etc/link")).toString(), "hello\n");
});

test("verify finds an EROFS image equal to its source, and what differs in another", async () => {
  const differences = async (source: string): Promise<string[]> => {
    const found: string[] = [];
    const place = async (directory: string): Promise<Parameters<typeof verifyImage>[0]> => ({
      store: await openLayoutStore(scratch.join(directory)),
      target: { tag: "x" },
    });
    const { paths } = await verifyImage(await place(source), await place("converted"), {
      platforms: [],
      signal: new AbortController().signal,
      observe: () => {},
      differs: ({ path, what }) => found.push(`${path}: ${what}`),
    });
    assert.ok(paths > 8);
    return found;
  };
  assert.deepEqual(await differences("source"), []);
  const changed = LOWER.map((member) =>
    member.name === "big"
      ? { ...member, data: BIG.toReversed() }
      : member.name === "etc/future"
        ? { ...member, mtime: FAR_AWAY + 1 }
        : member,
  );
  await writeImage(scratch.join("other"), "x", { layers: [changed, UPPER].map((members) => layerOfTar(tarArchive(members))) });
  assert.deepEqual((await differences("other")).toSorted(), ["big: content", "etc/future: modification time"]);
});

test("an EROFS image is mounted as such, and umount leaves nothing of it", async () => {
  await using bench = await MountBench.create(blobs);
  const directory = await bench.mountPoint();
  await bench.mount(directory);
  const line = readFileSync("/proc/self/mounts", "utf8")
    .split("\n")
    .find((each) => each.includes(` ${directory} `))!;
  const [, , type, options] = line.split(" ");
  assert.equal(type, "erofs");
  for (const option of ["ro", "nosuid", "nodev"]) assert.ok(options.split(",").includes(option), options);
  assert.deepEqual(await readFile(`${directory}/big`), BIG);
  assert.equal(await readFile(`${directory}/etc/same`, "utf8"), "hello\n");
  assert.equal((await listTree(directory)).length, 11);
  await bench.umount(directory);
  assert.deepEqual(bench.leftovers(), []);
});
