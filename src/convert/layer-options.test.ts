import assert from "node:assert/strict";
import { test } from "node:test";
import { convertLayout } from "../../test/support/convert.ts";
import { layerOf, writeImage } from "../../test/support/image-builder.ts";
import { TemporaryDirectory } from "../../test/support/temporary-directory.ts";
import { layerOptionsOf } from "./layer-options.ts";

const VIRTUAL_SIZE = 64 * 2 ** 30;
const LOWER = layerOf([
  { name: "etc/", mode: 0o750 },
  { name: "etc/passwd", data: "root:x:0:0\n" },
  { name: "usr/lib/data", data: Buffer.alloc(100_000, "some text that compresses, ") },
  ...Array.from({ length: 200 }, (_, at) => ({ name: `usr/share/file-${at}`, data: `${at}` })),
]);
const UPPER = layerOf([{ name: "etc/passwd", data: "root:x:0:0:changed\n" }, { name: "usr/share/.wh.file-3" }]);

/** What this version makes of the two layers. */
const RECORDED = {
  fingerprint: "overlaybd-2,ext4,vsize=68719476736,mkfs,lz4,4096",
  digests: [
    "sha256:30762b37d08d90ffc33c51b2ff88e652455a194876fb9f8b87e25be0be2103f9",
    "sha256:f1038696858746b39fa07f65927a90dbce26564e7c7637046585a096983891d3",
  ],
};

test("the same layers give the same bytes as long as the fingerprint is the same", async () => {
  await using scratch = await TemporaryDirectory.create();
  await writeImage(scratch.join("in"), "x", { layers: [LOWER, UPPER] });
  const { images } = await convertLayout(scratch.join("in"), "x", scratch.join("out"), { virtualSize: VIRTUAL_SIZE });
  const digests = images[0].layers.map((layer) => layer.converted.digest);
  const [{ fingerprint }] = await layerOptionsOf([{ format: "overlaybd" }], { virtualSize: VIRTUAL_SIZE, filesystem: "ext4" });
  const why = "if other bytes are intended, raise its format version in layer-options.ts, or databases will combine layers that do not fit";
  assert.deepEqual({ fingerprint, digests }, RECORDED, why);
});
