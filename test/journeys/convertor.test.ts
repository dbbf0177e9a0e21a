import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, beforeEach, test } from "node:test";
import { gunzipSync } from "node:zlib";
import { openLayoutStore } from "../../src/image-layout/layout-store.ts";
import { digestOf } from "../../src/oci/digest.ts";
import type { ImageStore } from "../../src/oci/image-store.ts";
import { parseManifest, type Manifest } from "../../src/oci/manifest.ts";
import { DOCKER_LAYER_TAR, DOCKER_MANIFEST, OCI_LAYER_TAR, OCI_MANIFEST } from "../../src/oci/media-types.ts";
import { parseReference } from "../../src/oci/reference.ts";
import { FixedCredentials, type CredentialSource } from "../../src/registry/credentials.ts";
import { openRegistryStore } from "../../src/registry/registry-store.ts";
import type { CommandResult } from "../support/command.ts";
import { REGISTRY_USER, startDockerRegistry, type DockerRegistry } from "../support/docker-registry.ts";
import { startHostileRegistry } from "../support/hostile-registry.ts";
import { copyImage } from "../support/image-builder.ts";
import { copyImages, type ImagesLayout } from "../support/images.ts";
import { convertor, lazylayer } from "../support/programs.ts";
import { TemporaryDirectory } from "../support/temporary-directory.ts";

const SOURCE_HEX = "0da5ea15638d84985451ec3d570c9153edb121945591482ec78aa888aba87a6e";
const BASE_LAYER = new URL("../../testdata/lsmt/ext4_64.tar.gz", import.meta.url);
/** The base layer as the well-known tool stores it in an image. */
const WRAPPED_BASE = { digest: "sha256:a8b5fca80efae55088290f3da8110d7742de55c2a378d5ab53226a483f390e21", size: 4739584 };

let registry: DockerRegistry;
let images: ImagesLayout;
let scratch: TemporaryDirectory;
let repository = "";

before(async () => {
  images = await copyImages();
  registry = await startDockerRegistry();
  repository = `${registry.host}/small`;
  await push(registry, "small", "small-oci-v1", "v1");
  await push(registry, "small", "multi-oci-v1", "multi");
});

beforeEach(async () => {
  await scratch?.[Symbol.asyncDispose]();
  scratch = await TemporaryDirectory.create();
});

after(async () => {
  await scratch[Symbol.asyncDispose]();
  await registry.stop();
  await images[Symbol.asyncDispose]();
});

async function push({ host }: DockerRegistry, name: string, tag: string, as: string): Promise<void> {
  const store = openStore(`${host}/${name}`, new FixedCredentials(REGISTRY_USER.username, REGISTRY_USER.password));
  await copyImage(await openLayoutStore(images.directory), { tag }, store, as);
  await store.close();
}

function openStore(text: string, credentials?: CredentialSource): ImageStore {
  const reference = parseReference(text);
  assert.ok(reference.kind === "registry");
  return openRegistryStore(reference, { credentials });
}

/** Runs it in a directory of its own, as its users do. */
async function run(...args: string[]): Promise<CommandResult> {
  return await convertor(args, { cwd: scratch.path });
}

function succeeded({ status, stdout, stderr }: CommandResult): string {
  assert.equal(status, 0, stderr);
  assert.equal(stdout.toString(), "", "all messages go to standard error");
  return stderr;
}

function assertRefused({ status, stderr }: CommandResult, expected: RegExp, code = 2): void {
  assert.match(stderr, expected);
  assert.equal(status, code, stderr);
  assert.doesNotMatch(stderr, /\n\s+at /, "no stack trace");
}

async function manifestOf(tag: string): Promise<Manifest> {
  const store = openStore(repository);
  try {
    const { descriptor, bytes } = await store.resolve({ tag });
    return parseManifest(bytes, descriptor.mediaType, tag);
  } finally {
    await store.close();
  }
}

async function exists(tag: string): Promise<boolean> {
  const store = openStore(repository);
  try {
    await store.resolve({ tag });
    return true;
  } catch {
    return false;
  } finally {
    await store.close();
  }
}

test("the usual call converts within a repository and leaves no trace", async () => {
  const said = succeeded(await run("-r", repository, "--plain", "-i", "v1", "-o", "v1_obd", "-d", "tmp_conv"));
  const digest = /^converted to "(.*)", digest: "(sha256:[0-9a-f]{64})"/m.exec(said);
  assert.equal(digest?.[1], `${repository}:v1_obd`);
  const manifest = await manifestOf("v1_obd");
  assert.equal(manifest.mediaType, DOCKER_MANIFEST);
  assert.deepEqual([...new Set(manifest.layers.map((layer) => layer.mediaType))], [DOCKER_LAYER_TAR]);
  assert.deepEqual(readdirSync(scratch.path), []);
  const verified = await lazylayer(["verify", `${repository}:v1`, `${repository}:v1_obd`]);
  assert.deepEqual([verified.status, verified.stdout.toString()], [0, ""]);
});

test("each way to say the same gives the same image", async () => {
  const converted = async (...args: string[]): Promise<string | undefined> =>
    /sha256:[0-9a-f]{64}/.exec(succeeded(await run(...args)))?.[0];
  const expected = await converted("-r", repository, "-i", "v1", "-o", "a");
  assert.equal(await converted(`--repository=${repository}`, "-g", `sha256:${SOURCE_HEX}`, "--overlaybd", "b"), expected);
  assert.equal(
    await converted("-r", repository, "-i=v1", "-o", "c", "--overlaybd", "c", "--mkfs", "--mkfs=true", "--oci=false", "--fstype=ext4"),
    expected,
  );
  const others = [
    "--disable-sparse",
    "--insecure",
    "--vsize",
    "64",
    "--concurrency-limit=0",
    "--dir",
    scratch.join("deep/er"),
    "-u",
    "",
    "-g=",
  ];
  assert.equal(await converted("--repository", repository, "--input-tag", "v1", "--output-tag", "d", ...others), expected);
  assert.deepEqual(readdirSync(scratch.path), []);
});

test("--oci, --vsize and an index do what they say; --verbose says what is done", async () => {
  const said = succeeded(await run("-r", repository, "-i", "v1", "-o", "oci", "--oci", "--vsize", "16", "--verbose"));
  const manifest = await manifestOf("oci");
  assert.equal(manifest.mediaType, OCI_MANIFEST);
  assert.deepEqual([...new Set(manifest.layers.map((layer) => layer.mediaType))], [OCI_LAYER_TAR]);
  assert.match(said, /converting .*: 3 layers, \d+ bytes\n(.*\n)*layer 0 converted, \d+ bytes\n(.*\n)*layer 2 uploaded/);
  const verified = await lazylayer(["verify", `${repository}:v1`, `${repository}:oci`]);
  assert.equal(verified.status, 0, verified.stdout.toString());
  succeeded(await run("-r", repository, "-i", "multi", "-o", "multi_obd"));
  const both = await lazylayer(["verify", `${repository}:multi`, `${repository}:multi_obd`]);
  assert.match(both.stderr, /verified 1336 paths/);
});

test("--reserve keeps the blobs, --dump-manifest the documents, in the directories that scripts know", async () => {
  succeeded(await run("-r", repository, "-i", "v1", "-o", "kept", "--reserve", "--dump-manifest", "-d", "tmp_conv"));
  const directory = scratch.join("tmp_conv", `1--${SOURCE_HEX}`);
  const manifest = await manifestOf("kept");
  const layers = [
    "0000_sha256:a0f179cc75f0484b3eeb5352bfc557b399f88061320cbecaaeb41a5187ec6abb",
    "0001_sha256:cf71ef90ea9dcc56d5e34969d697b5e5df88cc89951f4d9eaa350c4c47affd2f",
    "0002_sha256:7ab780ae98b4d165da5c1ad8bf1761f5316afc007f907cceade9d57b4fe570c4",
  ];
  assert.deepEqual(readdirSync(directory).toSorted(), [...layers, "config.json", "manifest.json"]);
  for (const [index, layer] of layers.entries()) {
    const blob = readFileSync(join(directory, layer, "overlaybd.commit"));
    assert.equal(digestOf(blob), manifest.layers[index].digest);
  }
  assert.equal(digestOf(readFileSync(join(directory, "config.json"))), manifest.config.digest);
  assert.deepEqual(parseManifest(readFileSync(join(directory, "manifest.json")), DOCKER_MANIFEST, "dump"), manifest);
});

test("--reserve alone keeps blobs, --dump-manifest alone keeps documents, also of an index", async () => {
  succeeded(await run("-r", repository, "-i", "v1", "-o", "kept", "--reserve", "-d", "a"));
  assert.deepEqual(
    readdirSync(scratch.join("a", `1--${SOURCE_HEX}`)).filter((name) => name.endsWith(".json")),
    [],
  );
  succeeded(await run("-r", repository, "-i", "multi", "-o", "kept-multi", "--dump-manifest", "-d", "b"));
  const names = readdirSync(scratch.join("b")).toSorted();
  assert.match(names.join(" "), /^1-linux_amd64-[0-9a-f]{64} 2-linux_arm64_v8-[0-9a-f]{64} index\.json$/);
  for (const name of names.slice(0, 2)) assert.deepEqual(readdirSync(scratch.join("b", name)).toSorted(), ["config.json", "manifest.json"]);
});

test("--no-upload asks the registry for nothing but the image", async () => {
  await using watched = await startHostileRegistry(registry.host);
  const said = succeeded(await run("-r", `${watched.host}/small`, "-i", "multi", "-o", "dry", "--no-upload", "--dump-manifest"));
  assert.match(said, /converted, not pushed, digest: "sha256:/);
  assert.deepEqual([...new Set(watched.seen.map(({ method }) => method))], ["GET"]);
  assert.equal(await exists("dry"), false);
  const digest = /sha256:[0-9a-f]{64}/.exec(said)?.[0];
  assert.equal(digestOf(readFileSync(scratch.join("tmp_conv/index.json"))), digest, "the digest is what would have been pushed");
});

test("--mkfs=false builds on the base layer, byte for byte the one that other tools have in their images", async () => {
  const base = scratch.join("ext4_64");
  writeFileSync(base, memberOf(gunzipSync(readFileSync(BASE_LAYER))));
  const env = { LAZYLAYER_BASE_LAYER: base };
  for (const flag of ["--mkfs=false", "--no-mkfs"]) {
    succeeded(await convertor(["-r", repository, "-i", "v1", "-o", "on-base", flag, "--vsize=64"], { cwd: scratch.path, env }));
    const { layers } = await manifestOf("on-base");
    assert.equal(layers.length, 4);
    assert.deepEqual([layers[0].digest, layers[0].size], [WRAPPED_BASE.digest, WRAPPED_BASE.size]);
  }
  const verified = await lazylayer(["verify", `${repository}:v1`, `${repository}:on-base`]);
  assert.deepEqual([verified.status, verified.stdout.toString()], [0, ""]);
  const missing = await convertor(["-r", repository, "-i", "v1", "-o", "x", "--mkfs=false"], {
    env: { LAZYLAYER_BASE_LAYER: scratch.join("none") },
  });
  assertRefused(missing, /base layer .*none cannot be opened/, 1);
});

/** The one member of a tar. */
function memberOf(tar: Buffer): Buffer {
  const size = Number.parseInt(tar.toString("latin1", 124, 135), 8);
  return tar.subarray(512, 512 + size);
}

test("a wrong call has status 2, and nothing happens", async () => {
  const call = ["-r", repository, "-i", "v1", "-o", "never"];
  for (const wrong of [["--fstype", "xfs"], ["--overlaybd", "other"], ["--vsize", "0"], ["--force=perhaps"]]) {
    assertRefused(await run(...call, ...wrong), /not supported|name two results|from 1 to 16383|expected true or false/);
  }
  assertRefused(await run(), /required option '-r, --repository <repository>' not specified/);
  assert.equal(await exists("never"), false);
  assert.equal(existsSync(scratch.join("tmp_conv")), false);
});

test("-h prints help", async () => {
  const { status, stdout } = await run("-h");
  assert.equal(status, 0);
  for (const flag of ["-r,", "-u,", "-i,", "-g,", "-o,", "-d,", "--mkfs", "--vsize", "--reserve", "--no-upload", "--dump-manifest"]) {
    assert.ok(stdout.includes(flag), flag);
  }
});

test("-u gives the registry's user and password", async () => {
  await using locked = await startDockerRegistry({ basicAuth: true });
  const { username, password } = REGISTRY_USER;
  await push(locked, "app", "small-oci-hardlink-lower", "v1");
  succeeded(await run("-r", `${locked.host}/app`, "-i", "v1", "-o", "x", "-u", `${username}:${password}`));
  const refused = await run("-r", `${locked.host}/app`, "-i", "v1", "-o", "x", "-u", `${username}:wrong`);
  assertRefused(refused, /401|credentials|log in/i, 1);
});
