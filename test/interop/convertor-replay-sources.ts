import { readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";
import { MemorySource } from "../../src/bytes/source.ts";
import { openLayoutStore } from "../../src/image-layout/layout-store.ts";
import { digestOf } from "../../src/oci/digest.ts";
import type { ImageStore } from "../../src/oci/image-store.ts";
import { DOCKER_CONFIG, DOCKER_MANIFEST, OCI_INDEX, OCI_LAYER_GZIP } from "../../src/oci/media-types.ts";
import { layerOf, layerOfTar, writeImage } from "../support/image-builder.ts";
import { RECORDING } from "./convertor-replay-shape.ts";

/** The recorded manifest of `small-docker:v1`, whose layers are those of `small-oci:v1`. */
const SMALL_DOCKER = RECORDING.cases["obd-small-docker"].source ?? "";
const GZIP_LAYER = "a0f179cc75f0484b3eeb5352bfc557b399f88061320cbecaaeb41a5187ec6abb";
const SMALL_LAYER = layerOf([
  { name: "etc/", type: "directory" },
  { name: "etc/hostname", data: "fields\n" },
]);

/** Every recorded repository that is not named here holds `small-oci:v1`. */
const REPOSITORIES = ["small-oci", "small-docker", "mixed", "multi-oci", "multi-docker", "fields"];
const COPIES = ["sametag", "otherrepo", "third", "fourth", "fifth", "np1", "np2", "refdb", "redis"];

/** Tags that do not exist before a run makes them. */
const NOWHERE = ["nope", "v1_obd"];

/** The tag in the layout of what was `repository:tag` when the runs were recorded; undefined if there was nothing. */
export function sourceOf(repository: string, tag: string): string | undefined {
  if (COPIES.includes(repository)) return "small-oci-v1";
  if (!REPOSITORIES.includes(repository) || NOWHERE.includes(tag)) return undefined;
  return `${repository}-${tag}`;
}

/** Adds images that testdata/images does not have. */
export async function addSources(directory: string): Promise<void> {
  const store = await openLayoutStore(directory);
  await addSmallDocker(store);
  const tar = gunzipSync(readFileSync(`${directory}/blobs/sha256/${GZIP_LAYER}`));
  await writeImage(directory, "mixed-trunctar", { layers: [layerOfTar(tar.subarray(0, 1_000_000))] });
  await writeImage(directory, "small-oci-v1_toci_oci", {
    layers: [SMALL_LAYER],
    manifest: { layers: [{ ...describe(SMALL_LAYER.blob, OCI_LAYER_GZIP), annotations: TURBO_ANNOTATIONS }] },
  });
  await addFields(directory, store);
  await store.close();
}

const TURBO_ANNOTATIONS = {
  "containerd.io/snapshot/overlaybd/version": "0.1.0-turbo.ociv1",
  "containerd.io/snapshot/overlaybd/turbo-oci/target-media-type": OCI_LAYER_GZIP,
};

async function addSmallDocker(store: ImageStore): Promise<void> {
  const manifest = RECORDING.documents[SMALL_DOCKER];
  const config = RECORDING.documents[(JSON.parse(manifest) as { config: { digest: string } }).config.digest];
  await put(store, Buffer.from(config), DOCKER_CONFIG);
  await store.putManifest(Buffer.from(manifest), DOCKER_MANIFEST, { tag: "small-docker-v1" });
}

/** A config with all that a config may have, also what Docker adds and what nobody knows. */
export const ALL_FIELDS = {
  created: "2026-01-02T03:04:05.120+02:00",
  author: "<a & b>",
  "os.version": "10.0.1",
  "os.features": ["f"],
  variant: "v8",
  docker_version: "27.0",
  container: "c0ffee",
  config: {
    User: "1000",
    Env: ["PATH=/bin", "ä=\u2028"],
    Labels: { b: "2", a: "1" },
    Healthcheck: { Test: ["CMD", "true"] },
    OnBuild: ["RUN true"],
    Shell: ["/bin/sh", "-c"],
    StopTimeout: 7,
  },
  history: [{ created_by: "ADD", empty_layer: false, comment: "" }],
  "x-unknown": { kept: [1, 2.5] },
};

/** Images and indexes with unusual documents. The recorded ones were not kept; these are made after their description. */
async function addFields(directory: string, store: ImageStore): Promise<void> {
  const image = { layers: [SMALL_LAYER] };
  const annotations = { "org.example.note": "kept" };
  await writeImage(directory, "fields-fields", { ...image, config: ALL_FIELDS, manifest: { annotations } });
  await writeImage(directory, "fields-minimal", image);
  await writeImage(directory, "fields-nomediatype", { ...image, manifest: { mediaType: undefined } });
  const first = await writeImage(directory, "fields-first", image);
  const manifest = { artifactType: "application/x-test", subject: { ...first }, annotations };
  const second = await writeImage(directory, "fields-subject", { ...image, config: { variant: "v1" }, manifest });
  const third = await writeImage(directory, "fields-third", { ...image, config: { architecture: "arm64" } });
  const entries = [first, second, third].map((entry, at) => ({
    ...entry,
    platform: { architecture: ["amd64", "amd64", "arm64"][at], os: "linux", ...(at === 1 && { variant: "v1" }) },
    annotations: { "org.example.entry": String(at) },
    ...(at === 2 && { urls: ["https://never-asked.invalid/"] }),
  }));
  const index = { schemaVersion: 2, mediaType: OCI_INDEX, manifests: entries, annotations };
  await putJson(store, index, "fields-idx-fields");
  const { mediaType: _, ...without } = { ...index, manifests: entries.slice(0, 2) };
  await putJson(store, without, "fields-idx-nomediatype");
}

async function putJson(store: ImageStore, value: object, tag: string): Promise<void> {
  await store.putManifest(Buffer.from(JSON.stringify(value)), OCI_INDEX, { tag });
}

async function put(store: ImageStore, bytes: Uint8Array, mediaType: string): Promise<void> {
  await store.putBlob(describe(bytes, mediaType), new MemorySource(bytes));
}

function describe(bytes: Uint8Array, mediaType: string) {
  return { mediaType, digest: digestOf(bytes), size: bytes.length };
}
