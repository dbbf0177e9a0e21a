import assert from "node:assert/strict";
import { closeSync, ftruncateSync, openSync, writeSync } from "node:fs";
import { openOverlaybdLayer } from "../../src/device/layer.ts";
import type { ImageStore } from "../../src/oci/image-store.ts";
import type { Manifest } from "../../src/oci/manifest.ts";
import { execute } from "./command.ts";

const SECTOR_BYTES = 512;
const READ_BYTES = 1 << 20;

/** Writes a converted image's layers into a sparse file, the lowest first, as one block device. `after` is called behind each. */
export async function flatten(store: ImageStore, manifest: Manifest, path: string, after: (layer: number) => Promise<void>): Promise<void> {
  const file = openSync(path, "w");
  try {
    for (const [index, descriptor] of manifest.layers.entries()) {
      const { lsmt } = await openOverlaybdLayer(await store.blobSource(descriptor), { declared: true, keepPinned: false });
      ftruncateSync(file, lsmt.virtualSize);
      const { count, firstSector, sectors, mappedSector, zeroed, tag } = lsmt.segments;
      for (let segment = 0; segment < count; segment++) {
        const bytes = sectors[segment] * SECTOR_BYTES;
        for (let at = 0; at < bytes; at += READ_BYTES) {
          const length = Math.min(READ_BYTES, bytes - at);
          const data =
            zeroed[segment] === 1
              ? Buffer.alloc(length)
              : await lsmt.files[tag[segment]].read(mappedSector[segment] * SECTOR_BYTES + at, length);
          writeSync(file, data, 0, length, firstSector[segment] * SECTOR_BYTES + at);
        }
      }
      await lsmt.close();
      await after(index);
    }
  } finally {
    closeSync(file);
  }
}

/** e2fsck must have nothing to say. */
export async function assertClean(path: string, when: string): Promise<void> {
  const { status, stdout, stderr } = await execute("e2fsck", ["-fn", path], { env: { LC_ALL: "C" } });
  const said = `${stdout.toString()}${stderr}`.split("\n");
  const complaints = said.filter((line) => line !== "" && !/^(e2fsck 1\.|Pass [1-5]: )|: \d+\/\d+ files \(/.test(line));
  assert.deepEqual({ status, complaints }, { status: 0, complaints: [] }, when);
}
