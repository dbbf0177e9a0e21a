import assert from "node:assert/strict";
import { after, before, beforeEach, test } from "node:test";
import { gunzipSync, gzipSync } from "node:zlib";
import { ScanThreads } from "../../src/convert/scan-threads.ts";
import { openLayoutStore } from "../../src/image-layout/layout-store.ts";
import type { Descriptor } from "../../src/oci/descriptor.ts";
import { digestOf } from "../../src/oci/digest.ts";
import {
  DOCKER_LAYER_GZIP,
  DOCKER_LAYER_TAR,
  DOCKER_MANIFEST,
  OCI_LAYER_GZIP,
  OCI_LAYER_TAR,
  OCI_MANIFEST,
} from "../../src/oci/media-types.ts";
import { convertLayout } from "../support/convert.ts";
import { startDockerRegistry, type DockerRegistry } from "../support/docker-registry.ts";
import { startHostileRegistry, type HostileRegistry } from "../support/hostile-registry.ts";
import type { BuiltLayer } from "../support/image-builder.ts";
import { convertor, lazylayer } from "../support/programs.ts";
import { tarArchive } from "../support/tar-builder.ts";
import { TemporaryDirectory } from "../support/temporary-directory.ts";
import { imageParts, memberNames, noise, partsOf, pushImage, succeeded, TREE, wholeReads, type ImageParts } from "./turbo-support.ts";

const PREFIX = "containerd.io/snapshot/overlaybd/";

interface KindRow {
  /** What the manifest says the layer is. */
  readonly said: string;
  readonly isGzip: boolean;
  /** What the turboOCI layer says it is: the same family, and what the bytes are. */
  readonly target: string;
}

const KINDS: readonly KindRow[] = [
  { said: OCI_LAYER_GZIP, isGzip: true, target: OCI_LAYER_GZIP },
  { said: OCI_LAYER_TAR, isGzip: false, target: OCI_LAYER_TAR },
  { said: DOCKER_LAYER_GZIP, isGzip: true, target: DOCKER_LAYER_GZIP },
  { said: DOCKER_LAYER_TAR, isGzip: false, target: DOCKER_LAYER_TAR },
  { said: DOCKER_LAYER_TAR, isGzip: true, target: DOCKER_LAYER_GZIP },
];

const GZIP_MEMBERS = ["ext4.fs.meta", ".turbo.ociv1", "gzip.meta", "spans.sha256"];
const TAR_MEMBERS = ["ext4.fs.meta", ".turbo.ociv1", "spans.sha256"];

let scratch: TemporaryDirectory;
let registry: DockerRegistry;
let watched: HostileRegistry;
let source: Descriptor;
let layers: readonly BuiltLayer[];

before(async () => {
  scratch = await TemporaryDirectory.create();
  registry = await startDockerRegistry();
  watched = await startHostileRegistry(registry.host);
  layers = KINDS.map(({ said, isGzip }, at) => {
    const tar = tarArchive(TREE[at] ?? [{ name: `more${at}`, data: noise(`more${at}`, 2_500_000 + at) }]);
    return { blob: isGzip ? gzipSync(tar, { level: 1 }) : tar, diffId: digestOf(tar), mediaType: said };
  });
  source = await pushImage(scratch.join("source"), "v1", { layers }, `${registry.host}/app`);
});

beforeEach(() => watched.reset());

after(async () => {
  await watched.stop();
  await registry.stop();
  await scratch[Symbol.asyncDispose]();
});

async function convert(...args: string[]): Promise<string> {
  const call = ["-r", `${watched.host}/app`, "-i", "v1", "-d", scratch.join("tmp_conv")];
  return succeeded(await convertor([...call, ...args])).stderr;
}

async function verify(tag: string): Promise<void> {
  const { stdout, stderr } = succeeded(await lazylayer(["verify", `${registry.host}/app:v1`, `${registry.host}/app:${tag}`]));
  assert.equal(stdout, "");
  assert.match(stderr, /^verified \d+ paths .*: all the same\n$/);
}

async function parts(tag: string): Promise<ImageParts> {
  return await imageParts(`${registry.host}/app`, tag);
}

test("convertor makes both images out of one read of each layer", async () => {
  const said = await convert("--overlaybd", "obd", "--turboOCI", "turbo");
  assert.match(said, /^converted to ".*\/app:obd", digest: "[^"]*"; converted to ".*\/app:turbo", digest: "[^"]*", in [\d.]+ s\n$/);
  for (const { blob } of layers) assert.equal(wholeReads(watched, digestOf(blob)), 1);
  const putTags = watched.seen.filter(({ method, url }) => method === "PUT" && url.includes("/manifests/"));
  assert.equal(putTags.length, 3);
  assert.deepEqual(new Set(putTags.map(({ url }) => url.split("/").at(-1))), new Set(["obd", "turbo", "turbo-layers"]));
  await verify("obd");
  await verify("turbo");
});

test("a turboOCI image says what its layers refer to, and its layers have what reading takes", async () => {
  const { manifest, diffIds, blobs } = await parts("turbo");
  assert.equal(manifest.mediaType, DOCKER_MANIFEST);
  assert.deepEqual(
    manifest.layers,
    manifest.layers.map(({ digest, size }, at) => ({
      mediaType: DOCKER_LAYER_GZIP,
      digest,
      size,
      annotations: {
        [`${PREFIX}blob-digest`]: digest,
        [`${PREFIX}blob-size`]: String(size),
        [`${PREFIX}turbo-oci/target-digest`]: digestOf(layers[at].blob),
        [`${PREFIX}turbo-oci/target-media-type`]: KINDS[at].target,
        [`${PREFIX}version`]: "0.1.0-turbo.ociv1",
      },
    })),
  );
  assert.deepEqual(
    blobs.map((blob) => digestOf(gunzipSync(blob))),
    diffIds,
  );
  assert.deepEqual(
    blobs.map(memberNames),
    KINDS.map(({ isGzip }) => (isGzip ? GZIP_MEMBERS : TAR_MEMBERS)),
  );
  const sourceBytes = layers.reduce((sum, { blob }) => sum + blob.length, 0);
  const bytes = blobs.reduce((sum, blob) => sum + blob.length, 0);
  assert.ok(bytes < sourceBytes / 10, `${bytes} bytes beside ${sourceBytes}`);
});

test("--referrer makes it a referrer of its source, in OCI types", async () => {
  await convert("--turboOCI", "referrer", "--referrer");
  const { manifest } = await parts("referrer");
  assert.equal(manifest.mediaType, OCI_MANIFEST);
  assert.equal(manifest.artifactType, "application/vnd.containerd.overlaybd.turbo.v1+json");
  assert.equal(manifest.subject?.digest, source.digest);
  assert.deepEqual(new Set(manifest.layers.map(({ mediaType }) => mediaType)), new Set([OCI_LAYER_GZIP]));
});

test("--fastoci is --turboOCI, and says that it is deprecated", async () => {
  const said = await convert("--fastoci", "fast");
  assert.match(said, /^--fastoci is deprecated; --turboOCI means the same\n/);
  const [fast, turbo] = [await parts("fast"), await parts("turbo")];
  assert.deepEqual(fast.manifest, turbo.manifest, "alone it is the same as beside overlaybd");
  const refused = await convertor(["-r", `${watched.host}/app`, "-i", "v1", "--fastoci", "a", "--turboOCI", "b"]);
  assert.equal(refused.status, 2);
  assert.match(refused.stderr, /name two results/);
});

test("however many threads convert, the blobs are the same byte for byte", async () => {
  const { manifest } = await parts("turbo");
  for (const threads of [1, 2, 3]) {
    const pool = new ScanThreads({ threads });
    const to = scratch.join(`threads-${threads}`);
    await convertLayout(scratch.join("source"), "v1", to, { format: "turbo", threads: pool, concurrency: threads });
    await pool.close();
    const store = await openLayoutStore(to);
    assert.deepEqual((await partsOf(store, "v1")).manifest, manifest, `${threads} threads`);
    await store.close();
  }
});
