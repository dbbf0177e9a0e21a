import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { gunzipSync, zstdDecompressSync } from "node:zlib";
import { MemorySource } from "../../src/bytes/source.ts";
import { openBaseLayer } from "../../src/convert/base-layer.ts";
import { openOverlaybdLayer } from "../../src/device/layer.ts";
import { openLayoutStore } from "../../src/image-layout/layout-store.ts";
import { isAttestation } from "../../src/oci/image-selection.ts";
import { parseIndex } from "../../src/oci/index.ts";
import { parseJsonObject, type JsonObject } from "../../src/oci/json.ts";
import { parseManifest, type Manifest } from "../../src/oci/manifest.ts";
import { documentKind } from "../../src/oci/media-types.ts";
import type { ImageStore } from "../../src/oci/image-store.ts";
import { convertLayout } from "../support/convert.ts";
import { copyImages, type ImagesLayout } from "../support/images.ts";
import { TemporaryDirectory } from "../support/temporary-directory.ts";

interface RecordedCase {
  readonly case: string;
  readonly source: string;
  readonly flags: readonly string[];
  readonly documents: Readonly<Record<string, string>>;
  readonly uuids: readonly (readonly [uuid: string, parent: string])[];
}

const CASES = JSON.parse(readFileSync(new URL("../../testdata/convertor/results.json", import.meta.url), "utf8")) as RecordedCase[];
const BASE_LAYER = new URL("../../testdata/lsmt/ext4_64.tar.gz", import.meta.url);

let images: ImagesLayout;
let scratch: TemporaryDirectory;

before(async () => {
  images = await copyImages();
  scratch = await TemporaryDirectory.create();
  const tar = gunzipSync(readFileSync(BASE_LAYER));
  writeFileSync(scratch.join("ext4_64"), tar.subarray(512, 512 + Number.parseInt(tar.toString("latin1", 124, 135), 8)));
});

after(async () => {
  await scratch[Symbol.asyncDispose]();
  await images[Symbol.asyncDispose]();
});

/** A document's text without what depends on the layers' bytes. */
function shape(document: string): string {
  return document
    .replaceAll(/sha256:[0-9a-f]{64}/g, "DIGEST")
    .replaceAll(/"size":\d+/g, '"size":BYTES')
    .replaceAll(/"containerd.io\/snapshot\/overlaybd\/blob-size":"\d+"/g, '"blob-size":"BYTES"');
}

/** What an image or index is made of: documents by place, as `testdata/convertor/README.md` names them, and the images' manifests. */
async function documentsOf(store: ImageStore, tag: string): Promise<{ documents: Map<string, string>; manifests: Map<string, Manifest> }> {
  const documents = new Map<string, string>();
  const manifests = new Map<string, Manifest>();
  const visit = async (place: string, mediaType: string, bytes: Uint8Array): Promise<void> => {
    documents.set(place, Buffer.from(bytes).toString());
    if (documentKind(mediaType) === "index") {
      const entries = parseIndex(bytes, mediaType, place).manifests.filter((entry) => !isAttestation(entry));
      for (const [at, entry] of entries.entries()) await visit(`${place}-${at}`, entry.mediaType, await store.manifest(entry));
    } else {
      const manifest = parseManifest(bytes, mediaType, place);
      manifests.set(place, manifest);
      documents.set(`${place}.config`, Buffer.from(await store.blob(manifest.config)).toString());
    }
  };
  const { descriptor, bytes } = await store.resolve({ tag });
  await visit("top", descriptor.mediaType, bytes);
  return { documents, manifests };
}

const NO_PARENT = "00000000-0000-0000-0000-000000000000";
const NOT_KEPT = new Set(["container", "container_config", "docker_version", "Healthcheck", "OnBuild", "Shell", "StopTimeout"]);

/** A config as the other tool writes it: without what it does not know, and without what is empty. */
function reduced(config: JsonObject): JsonObject {
  const isEmpty = (value: unknown): boolean => value === "" || value === false || (Array.isArray(value) && value.length === 0);
  const without = (value: JsonObject): JsonObject =>
    Object.fromEntries(Object.entries(value).filter(([key, inner]) => !NOT_KEPT.has(key) && !isEmpty(inner)));
  return { ...without(config), config: without(config["config"] as JsonObject), rootfs: config["rootfs"] };
}

for (const { case: name, source, flags, documents, uuids } of CASES) {
  test(`${name}: manifests, configs, index and layer identities are those of the other tool`, async () => {
    const to = scratch.join(name);
    const base = flags.includes("--mkfs=false") ? await openBaseLayer(scratch.join("ext4_64")) : undefined;
    await convertLayout(images.directory, source, to, { family: flags.includes("--oci") ? "oci" : "docker", base, attestations: "drop" });
    await base?.device.close();
    const store = await openLayoutStore(to);
    const ours = await documentsOf(store, source);
    const original = await documentsOf(await openLayoutStore(images.directory), source);
    assert.deepEqual([...ours.documents.keys()].toSorted(), Object.keys(documents).toSorted());

    for (const [place, text] of ours.documents) {
      const recorded = documents[place];
      if (!place.endsWith(".config")) {
        assert.equal(shape(text), shape(recorded), place);
        continue;
      }
      const layers = ours.manifests.get(place.slice(0, -".config".length))?.layers.map((layer) => layer.digest);
      const config = parseJsonObject(Buffer.from(text), place);
      const before = parseJsonObject(Buffer.from(original.documents.get(place) ?? ""), place);
      assert.deepEqual(config, { ...before, rootfs: { type: "layers", diff_ids: layers } }, "nothing is lost");
      assert.deepEqual(
        parseJsonObject(Buffer.from(shape(JSON.stringify(reduced(config)))), place),
        parseJsonObject(Buffer.from(shape(recorded)), place),
      );
    }

    const found: string[][] = [];
    for (const { layers } of ours.manifests.values()) {
      for (const layer of base ? layers.slice(1) : layers) {
        const { lsmt } = await openOverlaybdLayer(await store.blobSource(layer), { declared: true, keepPinned: true });
        found.push([lsmt.uuid.toLowerCase(), lsmt.parentUuid.toLowerCase().replace(NO_PARENT, "")]);
        assert.equal(lsmt.virtualSize, 64 * 2 ** 30);
        await lsmt.close();
      }
    }
    assert.deepEqual(sorted(found), sorted(uuids));
  });
}

function sorted(pairs: readonly (readonly string[])[]): string[] {
  return pairs.map((pair) => pair.join(" < ")).toSorted();
}

test("the other tool's layers all state the size of the device, as ours do", async () => {
  for (const index of [0, 1, 2]) {
    const stored = readFileSync(new URL(`../../testdata/overlaybd/stack-layer${index}.commit.zst`, import.meta.url));
    const { lsmt } = await openOverlaybdLayer(new MemorySource(zstdDecompressSync(stored)), { declared: true, keepPinned: true });
    assert.equal(lsmt.virtualSize, 64 * 2 ** 30);
  }
});
