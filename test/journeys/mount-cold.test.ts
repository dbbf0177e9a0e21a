import assert from "node:assert/strict";
import { createCipheriv, createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { MemorySource } from "../../src/bytes/source.ts";
import { openLayoutStore } from "../../src/image-layout/layout-store.ts";
import { digestOf } from "../../src/oci/digest.ts";
import { OCI_CONFIG, OCI_LAYER_TAR, OCI_MANIFEST } from "../../src/oci/media-types.ts";
import { run } from "../support/command.ts";
import { tarArchive, type TarMember } from "../support/tar-builder.ts";
import { convertInto, convertOptions } from "../support/convert.ts";
import { MountBench } from "./mount-support.ts";

const FILES_PER_DIRECTORY = 40;
const DIRECTORIES = 40;
const FILE_BYTES = 9_000;

/** Bytes that do not compress, the same for the same name. */
function noise(name: string, bytes: number): Buffer {
  const key = createHash("sha256").update(name).digest();
  return createCipheriv("aes-256-ctr", key, Buffer.alloc(16)).update(Buffer.alloc(bytes));
}

function layerTar(layer: number): Uint8Array {
  const members: TarMember[] = [{ name: `layer${layer}/` }];
  for (let directory = 0; directory < DIRECTORIES; directory++) {
    members.push({ name: `layer${layer}/${directory}/` });
    for (let file = 0; file < FILES_PER_DIRECTORY; file++) {
      const name = `layer${layer}/${directory}/${file}`;
      members.push({ name, data: noise(name, FILE_BYTES) });
    }
  }
  return tarArchive(members);
}

/** Puts an image of the layers into `DIRECTORY/source` and its converted form into `DIRECTORY/image`. */
async function convertedImage(bench: MountBench, tars: readonly Uint8Array[]): Promise<void> {
  const source = await openLayoutStore(bench.join("source"), { create: true });
  const config = Buffer.from(
    JSON.stringify({ architecture: "amd64", os: "linux", config: {}, rootfs: { type: "layers", diff_ids: tars.map(digestOf) } }),
  );
  const described = await Promise.all(
    [config, ...tars].map(async (bytes, i) => {
      const descriptor = { mediaType: i === 0 ? OCI_CONFIG : OCI_LAYER_TAR, digest: digestOf(bytes), size: bytes.length };
      await source.putBlob(descriptor, new MemorySource(bytes));
      return descriptor;
    }),
  );
  const [configDescriptor, ...layers] = described;
  const manifest = { schemaVersion: 2, mediaType: OCI_MANIFEST, config: configDescriptor, layers };
  await source.putManifest(Buffer.from(JSON.stringify(manifest)), OCI_MANIFEST, { tag: "latest" });
  const destination = await openLayoutStore(bench.join("image"), { create: true });
  const options = convertOptions(bench.join("work"), { family: "oci", concurrency: 1 });
  await convertInto(source, { tag: "latest" }, destination, "latest", options);
  await source.close();
  await destination.close();
}

test("a cold mount fetches at most two ranges a layer, and listing the tree fetches nothing more", async () => {
  await using bench = await MountBench.create([]);
  const tars = [0, 1, 2].map(layerTar);
  await convertedImage(bench, tars);
  const directory = await bench.mountPoint();
  await bench.mount(directory);
  const toMount = [...bench.fetched().values()].map((ranges) => ranges.length);
  assert.equal(toMount.length, 3);
  assert.ok(Math.max(...toMount) <= 2, `ranges a layer: ${toMount.join(", ")}`);

  const bytesToMount = bytesOf(bench);
  const tarBytes = tars.reduce((sum, tar) => sum + tar.length, 0);
  assert.ok(bytesToMount < tarBytes / 5, `${bytesToMount} bytes of ${tarBytes} fetched`);

  const names = (await run("find", [directory])).trimEnd().split("\n");
  assert.equal(names.length, 1 + 3 * (1 + DIRECTORIES * (1 + FILES_PER_DIRECTORY)));
  assert.equal(bytesOf(bench), bytesToMount, "metadata came with the layers' ends");

  const name = "layer1/30/7";
  assert.deepEqual(readFileSync(`${directory}/${name}`), noise(name, FILE_BYTES));
  assert.ok(bytesOf(bench) - bytesToMount < 512 * 1024, "a small file costs little");

  await bench.umount(directory);
});

function bytesOf(bench: MountBench): number {
  return [...bench.fetched().values()].flat().reduce((sum, range) => sum + Number(range.split("+")[1]), 0);
}
