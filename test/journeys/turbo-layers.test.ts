import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { after, before, describe, it, test } from "node:test";
import { gzipSync, zstdCompressSync } from "node:zlib";
import { openLayoutStore } from "../../src/image-layout/layout-store.ts";
import { digestOf } from "../../src/oci/digest.ts";
import { OCI_LAYER_GZIP, OCI_LAYER_TAR, OCI_LAYER_ZSTD } from "../../src/oci/media-types.ts";
import type { CommandResult } from "../support/command.ts";
import { layerOf, writeImage, type BuiltImage } from "../support/image-builder.ts";
import { lazylayerInProcess } from "../support/in-process.ts";
import { lazylayer } from "../support/programs.ts";
import { tarArchive } from "../support/tar-builder.ts";
import { TemporaryDirectory } from "../support/temporary-directory.ts";
import { memberNames, noise, partsOf, succeeded, treeImage } from "./turbo-support.ts";

const TEXT = Buffer.alloc(2_500_000, "Text that compresses, so that an access point stands for more than it takes.\n");
/** Some megabytes, of which some compress. */
const TAR = tarArchive([
  { name: "d/" },
  { name: "d/noise", data: noise("first", 1_700_001) },
  { name: "d/text", data: TEXT },
  { name: "d/more", data: noise("second", 900_000) },
]);

let scratch: TemporaryDirectory;
before(async () => (scratch = await TemporaryDirectory.create()));
after(async () => await scratch[Symbol.asyncDispose]());

async function convert(name: string, image: BuiltImage, ...options: string[]): Promise<CommandResult> {
  await writeImage(scratch.join("source"), name, image);
  return await lazylayerInProcess([
    "convert",
    `oci:${scratch.join("source")}:${name}`,
    `oci:${scratch.join("out")}:${name}`,
    "--to",
    "turbo",
    ...options,
  ]);
}

async function assertSame(name: string): Promise<void> {
  const verified = await lazylayerInProcess(["verify", `oci:${scratch.join("source")}:${name}`, `oci:${scratch.join("out")}:${name}`]);
  assert.deepEqual([verified.status, verified.stdout.toString()], [0, ""], verified.stderr);
}

/** A layer with the tar in pieces, each compressed by itself. */
function inPieces(pieceBytes: number, compress: (piece: Uint8Array) => Uint8Array): Uint8Array {
  const count = Math.ceil(TAR.length / pieceBytes);
  return Buffer.concat(Array.from({ length: count }, (_, at) => compress(TAR.subarray(at * pieceBytes, (at + 1) * pieceBytes))));
}

const gzip = (bytes: Uint8Array, level = 6): Uint8Array => gzipSync(bytes, { level });
const SKIPPABLE_FRAME = Buffer.from("502a4d1803000000aabbcc", "hex");

const LAYERS: readonly (readonly [kind: string, blob: () => Uint8Array, index: string | undefined])[] = [
  ["gzip in one member", () => gzip(TAR), "gzip.meta"],
  ["gzip in two members", () => inPieces(2_000_001, gzip), "gzip.meta"],
  ["gzip in small members, as parallel writers make them", () => inPieces(128 << 10, gzip), "gzip.meta"],
  ["gzip of stored blocks", () => gzip(TAR, 0), "gzip.meta"],
  ["gzip with zeros behind it", () => Buffer.concat([gzip(TAR), Buffer.alloc(70_000)]), "gzip.meta"],
  ["gzip after an empty member", () => Buffer.concat([gzip(new Uint8Array()), gzip(TAR)]), "gzip.meta"],
  ["zstd in frames of up to 4 MiB", () => inPieces(4 << 20, (piece) => zstdCompressSync(piece)), "zstd.meta"],
  [
    "zstd in small frames, with frames between them that are to be skipped",
    () => inPieces(300_001, (piece) => Buffer.concat([SKIPPABLE_FRAME, zstdCompressSync(piece)])),
    "zstd.meta",
  ],
  ["a tar that is not compressed", () => TAR, undefined],
];

describe("a turboOCI layer reads as the layer that it was made from", () => {
  for (const [at, [kind, makeBlob, index]] of LAYERS.entries()) {
    it(kind, async () => {
      const blob = makeBlob();
      const mediaType = { "gzip.meta": OCI_LAYER_GZIP, "zstd.meta": OCI_LAYER_ZSTD }[index ?? ""] ?? OCI_LAYER_TAR;
      const name = `kind-${at}`;
      succeeded(await convert(name, { layers: [{ blob, diffId: digestOf(TAR), mediaType }] }));
      await assertSame(name);
      const store = await openLayoutStore(scratch.join("out"));
      const { manifest, blobs } = await partsOf(store, name);
      const target = manifest.layers[0].annotations?.["containerd.io/snapshot/overlaybd/turbo-oci/target-media-type"];
      assert.equal(target, mediaType);
      assert.deepEqual(memberNames(blobs[0]), ["ext4.fs.meta", ".turbo.ociv1", ...(index ? [index] : []), "spans.sha256"]);
      await store.close();
    });
  }
});

test("holes, whiteouts, opaque directories, replaced files and hard links over three layers stay what they are", async () => {
  succeeded(await convert("tree", treeImage()));
  await assertSame("tree");
});

test("a sparse file whose data does not begin with a sector is refused, and says where it is", async () => {
  const extents = [
    { offset: 0, length: 1 },
    { offset: 8192, length: 1 },
  ];
  const layer = layerOf([{ name: "odd", data: "xy", sparse: { size: 10_000, extents } }]);
  const { status, stderr } = await convert("odd-sparse", { layers: [layerOf([]), layer] });
  assert.match(stderr, /layer 1 \(sha256:[0-9a-f]{64}\): "odd" is a sparse file whose data at 0 .*; convert the image to overlaybd/);
  assert.equal(status, 1);
});

test("a zstd layer in one large frame is refused with what to do, and works with --recompress gzip", async () => {
  const large = { blob: zstdCompressSync(TAR), diffId: digestOf(TAR), mediaType: OCI_LAYER_ZSTD };
  const image = { layers: [layerOf([{ name: "below", data: "below" }]), large, layerOf([{ name: "above", data: "above" }])] };
  const refused = await convert("frame", image);
  assert.match(refused.stderr, /layer 1 \(sha256:[0-9a-f]{64}\): one frame of \d+ bytes: .*--recompress gzip/);
  assert.notEqual(refused.status, 0);
  assert.doesNotMatch(refused.stderr, /\n\s+at /);

  succeeded(await convert("frame", image, "--recompress", "gzip"));
  await assertSame("frame");
  const store = await openLayoutStore(scratch.join("out"));
  const { manifest } = await partsOf(store, "frame");
  const { descriptor, bytes } = await store.resolve({ tag: "frame-layers" });
  assert.equal(descriptor.mediaType, "application/vnd.oci.image.manifest.v1+json");
  const held = (JSON.parse(Buffer.from(bytes).toString()) as { layers: { digest: string; mediaType: string; size: number }[] }).layers;
  const targets = manifest.layers.map((layer) => layer.annotations?.["containerd.io/snapshot/overlaybd/turbo-oci/target-digest"]);
  assert.equal(held.length, 3);
  assert.deepEqual(new Set(held.map(({ digest }) => digest)), new Set(targets));
  assert.ok(!targets.includes(digestOf(large.blob)), "the layer that it stands for is not needed");
  assert.deepEqual(new Set(held.map(({ mediaType }) => mediaType)), new Set([OCI_LAYER_GZIP]));
  await store.close();
});

test("a tag that leaves no room for the tag of the layers is refused before anything is read", async () => {
  await writeImage(scratch.join("source"), "tag", treeImage());
  const to = (tag: string): string => `oci:${scratch.join("tags")}:${tag}`;
  const call = ["convert", "--to", "turbo", `oci:${scratch.join("source")}:tag`];
  const refused = await lazylayerInProcess([...call, to("x".repeat(122))]);
  assert.equal(refused.status, 2);
  assert.match(refused.stderr, /at most 121 characters/);
  assert.equal(existsSync(scratch.join("tags")), false);
  succeeded(await lazylayerInProcess([...call, to("x".repeat(121))]));
  succeeded(await lazylayerInProcess([...call, to("y".repeat(128)), "--leave-data"]));
});

test("archives hold what the image refers to, and no tag but its own", async () => {
  await writeImage(scratch.join("source"), "archived", treeImage());
  const source = `oci:${scratch.join("source")}:archived`;
  const files = ["oci-archive:a.tar", "oci-archive:b.tar:tag"].map((name) => name.replace(":", `:${scratch.path}/`));
  for (const file of files) {
    succeeded(await lazylayerInProcess(["convert", "--to", "turbo", source, file]));
    const { stdout } = succeeded(await lazylayerInProcess(["verify", source, file]));
    assert.equal(stdout.toString(), "");
  }
  const { stdout } = await lazylayer(["convert", "--to", "turbo", source, "-"]);
  assert.deepEqual(stdout, await readFile(scratch.join("a.tar")));
});

test("a layer that is damaged or lies is refused", async () => {
  const blob = gzip(TAR);
  const cut = blob.subarray(0, -20_000);
  const flipped = Buffer.from(blob);
  flipped[blob.length >> 1] ^= 4;
  for (const [name, bytes] of [
    ["cut", cut],
    ["flipped", flipped],
    ["trailing", Buffer.concat([blob, Buffer.from("no zeros")])],
  ] as const) {
    const { status, stderr } = await convert(name, { layers: [{ blob: bytes, diffId: digestOf(TAR) }] });
    assert.equal(status, 1, stderr);
    assert.match(stderr, /layer 0 \(sha256:[0-9a-f]{64}\)/);
  }
});
