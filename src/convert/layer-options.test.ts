import assert from "node:assert/strict";
import { test } from "node:test";
import { convertLayout } from "../../test/support/convert.ts";
import { layerOf, writeImage } from "../../test/support/image-builder.ts";
import { TemporaryDirectory } from "../../test/support/temporary-directory.ts";
import { FILESYSTEM_TYPES } from "./image-format.ts";
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
const RECORDED: Readonly<Record<string, readonly string[]>> = {
  "overlaybd-2,ext4,vsize=68719476736,mkfs,lz4,4096": [
    "sha256:30762b37d08d90ffc33c51b2ff88e652455a194876fb9f8b87e25be0be2103f9",
    "sha256:f1038696858746b39fa07f65927a90dbce26564e7c7637046585a096983891d3",
  ],
  "overlaybd-2,erofs,vsize=68719476736,mkfs,lz4,4096": [
    "sha256:1ef3f60744fd30786b3aef00dbbc4e57ec0113ccba0635026aca3e20f9908293",
    "sha256:0c5658b9c6a56aba4bbfdad37c66ec7fb6d1bfeb9678ac7e09ec7e526278802e",
  ],
  "turbo-1,ext4,vsize=68719476736,mkfs,lz4,4096": [
    "sha256:02e8a93c2256bacafbdcd880f8588ad69cb55a3628ad14421fd420fcc4f20aae",
    "sha256:7dfa593e094702153f22ae91ea8737df2bd6c21b87702ef64116aaa60a471a5b",
  ],
  "turbo-1,erofs,vsize=68719476736,mkfs,lz4,4096": [
    "sha256:979f4cb9e51b01ecbfe7e2e8f0713f1eb2aad1e35ab26154877dd539e8572832",
    "sha256:b641648bd2d3c0f45ac4ee113587bcda22ce0bcf1c7c0b82948d904a60de6a65",
  ],
};

for (const format of ["overlaybd", "turbo"] as const) {
  for (const filesystem of FILESYSTEM_TYPES) {
    test(`the same layers give the same ${format} layers with ${filesystem} as long as the fingerprint is the same`, async () => {
      await using scratch = await TemporaryDirectory.create();
      await writeImage(scratch.join("in"), "x", { layers: [LOWER, UPPER] });
      const options = { virtualSize: VIRTUAL_SIZE, filesystem };
      const { images } = await convertLayout(scratch.join("in"), "x", scratch.join("out"), { ...options, format });
      const digests = images[0].layers.map((layer) => layer.converted.digest);
      const [{ fingerprint }] = await layerOptionsOf([{ format }], options);
      const why =
        "if other bytes are intended, raise the format's version in layer-options.ts, or databases will combine what does not fit";
      assert.deepEqual(digests, RECORDED[fingerprint], `${fingerprint}: ${why}`);
    });
  }
}
