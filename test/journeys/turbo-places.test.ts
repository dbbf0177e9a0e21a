import assert from "node:assert/strict";
import { existsSync, readdirSync } from "node:fs";
import { mkdir, readFile } from "node:fs/promises";
import { after, before, beforeEach, describe, it, test } from "node:test";
import { zstdCompressSync } from "node:zlib";
import { digestOf, hexOf, type Digest } from "../../src/oci/digest.ts";
import { OCI_LAYER_ZSTD } from "../../src/oci/media-types.ts";
import { startDockerRegistry, type DockerRegistry } from "../support/docker-registry.ts";
import { startHostileRegistry, type HostileRegistry } from "../support/hostile-registry.ts";
import { layerOf } from "../support/image-builder.ts";
import { lazylayer } from "../support/programs.ts";
import { tarArchive } from "../support/tar-builder.ts";
import { TemporaryDirectory } from "../support/temporary-directory.ts";
import { imageParts, noise, openRepository, pushImage, succeeded, treeImage } from "./turbo-support.ts";

const IMAGE = treeImage();
const LAYERS = IMAGE.layers.map(({ blob }) => digestOf(blob));
const SMALL_FILE = "small\n";

let scratch: TemporaryDirectory;
let registry: DockerRegistry;
let watched: HostileRegistry;
let source = "";

before(async () => {
  [scratch, registry] = await Promise.all([TemporaryDirectory.create(), startDockerRegistry()]);
  watched = await startHostileRegistry(registry.host);
  await pushImage(scratch.join("source"), "v1", IMAGE, `${registry.host}/app`);
  source = `oci:${scratch.join("source")}:v1`;
});

beforeEach(() => watched.reset());

after(async () => {
  await watched.stop();
  await registry.stop();
  await scratch[Symbol.asyncDispose]();
});

async function convert(from: string, to: string, ...options: string[]): Promise<void> {
  succeeded(await lazylayer(["convert", from, to, "--to", "turbo", ...options]));
}

async function assertSame(converted: string, ...options: string[]): Promise<void> {
  const { stdout } = succeeded(await lazylayer(["verify", source, converted, ...options]));
  assert.equal(stdout, "");
}

async function inRepository(name: string, digests: readonly Digest[]): Promise<boolean[]> {
  await using store = openRepository(name);
  return await Promise.all(digests.map(async (digest) => await store.repository.hasBlob(digest)));
}

/** Layers of the source that were sent. */
function sent(): Digest[] {
  return LAYERS.filter((digest) =>
    watched.seen.some(({ method, url }) => method === "PUT" && decodeURIComponent(url).includes(`digest=${digest}`)),
  );
}

describe("the layers that a turboOCI image refers to", () => {
  it("are mounted from a neighbour repository", async () => {
    await convert(`${watched.host}/app:v1`, `${watched.host}/neighbour:turbo`);
    const mounts = watched.seen.filter(({ method, url }) => method === "POST" && url.includes("mount=") && url.includes("from=app"));
    assert.equal(mounts.length, LAYERS.length);
    assert.deepEqual(new Set(mounts.map(({ url }) => new URLSearchParams(url.split("?")[1]).get("mount"))), new Set(LAYERS));
    assert.deepEqual(sent(), []);
    assert.deepEqual(await inRepository(`${registry.host}/neighbour`, LAYERS), [true, true, true]);
    await assertSame(`${registry.host}/neighbour:turbo`);
  });

  it("are copied to another registry, and into a directory", async () => {
    await convert(source, `${watched.host}/copied:turbo`);
    assert.deepEqual(sent(), LAYERS);
    await assertSame(`${registry.host}/copied:turbo`);

    const directory = scratch.join("layout");
    await convert(`${watched.host}/app:v1`, `oci:${directory}:turbo`);
    for (const digest of LAYERS) assert.ok(existsSync(`${directory}/blobs/sha256/${hexOf(digest)}`));
    await assertSame(`oci:${directory}:turbo`);
  });

  it("stay where they are with --leave-data, and are read from there with --data-repository", async () => {
    const bare = `${registry.host}/bare:turbo`;
    await convert(`${watched.host}/app:v1`, `${watched.host}/bare:turbo`, "--leave-data");
    assert.deepEqual(await inRepository(`${registry.host}/bare`, LAYERS), [false, false, false]);
    assert.ok(!watched.seen.some(({ url }) => url.includes("-layers")), "nothing is held that is not there");
    for (const command of [
      ["ls", bare, "/d"],
      ["cat", bare, "/d/small"],
      ["verify", source, bare],
    ]) {
      const { status, stderr } = await lazylayer(command);
      assert.equal(status, 1);
      assert.match(stderr, /its data is in blob sha256:[0-9a-f]{64}.*does not have; name the repository .* with --data-repository\n$/);
    }
    for (const place of [`${registry.host}/app`, `oci:${scratch.join("source")}`]) {
      const names = succeeded(await lazylayer(["ls", bare, "/d", "--data-repository", place])).stdout;
      assert.deepEqual(names.trimEnd().split("\n"), ["another", "large", "link", "link2", "replaced", "same", "small"]);
      assert.equal(succeeded(await lazylayer(["cat", bare, "/d/small", "--data-repository", place])).stdout, SMALL_FILE);
      await assertSame(bare, "--data-repository", place);
    }
  });

  it("are mounted from there, too", async () => {
    const directory = scratch.join("mounted");
    await mkdir(directory);
    const call = ["mount", `${registry.host}/bare:turbo`, directory, "--cache-dir", scratch.join("cache")];
    const refused = await lazylayer(call);
    assert.equal(refused.status, 1);
    assert.match(refused.stderr, /--data-repository/);
    succeeded(await lazylayer([...call, "--data-repository", `${registry.host}/app`]));
    try {
      assert.deepEqual(await readFile(`${directory}/d/large`), noise("large", 3_000_000));
    } finally {
      succeeded(await lazylayer(["umount", directory]));
    }
    assert.deepEqual(readdirSync(directory), []);
  });
});

test("an image that is turboOCI already brings what it refers to where it is copied to", async () => {
  const turbo = `${registry.host}/app:again`;
  await convert(`${registry.host}/app:v1`, turbo);
  const directory = scratch.join("again");
  const { stderr } = succeeded(await lazylayer(["convert", turbo, `oci:${directory}:copy`]));
  assert.match(stderr, /^warning: .* is converted already; it stays as it is\nconverted /);
  await assertSame(`oci:${directory}:copy`);
  await convert(turbo, `${watched.host}/app:tagged`);
  assert.ok(watched.seen.some(({ method, url }) => method === "PUT" && url.endsWith("/manifests/tagged-layers")));

  const bare = `${registry.host}/bare:again`;
  await convert(`${registry.host}/app:v1`, bare, "--leave-data");
  const copied = succeeded(await lazylayer(["convert", bare, `oci:${directory}:bare`]));
  assert.match(copied.stderr, /^warning: .*what it refers to stays where it is: .* refers to blob/m);
});

/** Removes a manifest and so its tags, by the registry's own API. */
async function deleteManifest(host: string, repository: string, tag: string): Promise<void> {
  await using store = openRepository(`${host}/${repository}`);
  const { digest } = (await store.repository.resolve({ tag })).descriptor;
  const { status } = await fetch(`http://${host}/v2/${repository}/manifests/${digest}`, { method: "DELETE" });
  assert.equal(status, 202);
}

test("a registry's garbage collection keeps the layers as long as there is the tag that holds them", async () => {
  await using own = await startDockerRegistry();
  await pushImage(scratch.join("kept"), "v1", IMAGE, `${own.host}/app`);
  const converted = `${own.host}/app:turbo`;
  await convert(`${own.host}/app:v1`, converted);
  await deleteManifest(own.host, "app", "v1");
  await own.collectGarbage();
  assert.equal((await lazylayer(["verify", `${own.host}/app:v1`, converted])).status, 1, "the source is gone");
  await assertSame(converted);

  await deleteManifest(own.host, "app", "turbo-layers");
  await own.collectGarbage();
  const { status, stderr } = await lazylayer(["verify", source, converted]);
  assert.equal(status, 1);
  assert.match(stderr, new RegExp(`its data is in blob (${LAYERS.join("|")}), .*which .*/app.* does not have`));
});

test("a layer that was compressed anew is in the repository, and is kept there", async () => {
  await using own = await startDockerRegistry();
  const tar = tarArchive([{ name: "large", data: noise("one frame", 5 << 20) }]);
  const large = { blob: zstdCompressSync(tar), diffId: digestOf(tar), mediaType: OCI_LAYER_ZSTD };
  await pushImage(scratch.join("frames"), "v1", { layers: [layerOf([{ name: "f", data: "f" }]), large] }, `${own.host}/app`);
  await convert(`${own.host}/app:v1`, `${own.host}/app:turbo`, "--recompress", "gzip");
  await deleteManifest(own.host, "app", "v1");
  await own.collectGarbage();
  const { manifest } = await imageParts(`${own.host}/app`, "turbo");
  const target = manifest.layers[1].annotations?.["containerd.io/snapshot/overlaybd/turbo-oci/target-digest"];
  assert.notEqual(target, digestOf(large.blob));
  const { stdout } = succeeded(await lazylayer(["verify", `oci:${scratch.join("frames")}:v1`, `${own.host}/app:turbo`]));
  assert.equal(stdout, "");
});
