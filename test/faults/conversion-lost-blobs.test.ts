import assert from "node:assert/strict";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { z } from "zod";
import type { Descriptor } from "../../src/oci/descriptor.ts";
import { hexOf } from "../../src/oci/digest.ts";
import { parseManifest, type Manifest } from "../../src/oci/manifest.ts";
import { openRegistryStore } from "../../src/registry/registry-store.ts";
import { startDockerRegistry, type DockerRegistry } from "../support/docker-registry.ts";
import { startHostileRegistry, type HostileRegistry } from "../support/hostile-registry.ts";
import { layerOf, writeImage } from "../support/image-builder.ts";
import { lazylayerInProcess } from "../support/in-process.ts";
import { TemporaryDirectory } from "../support/temporary-directory.ts";

const document = z.object({ digest: z.string(), images: z.array(z.object({ layers: z.array(z.object({ outcome: z.string() })) })) });

/** What the registry loses of an image of three layers, and what then becomes of them with a database. */
const ROWS: readonly (readonly [what: string, lost: (manifest: Manifest) => readonly Descriptor[], outcomes: readonly string[]])[] = [
  ["its bottom layer", ({ layers }) => layers.slice(0, 1), ["uploaded", "reused", "reused"]],
  ["its middle layer", ({ layers }) => layers.slice(1, 2), ["reused", "uploaded", "reused"]],
  ["its top layer", ({ layers }) => layers.slice(2), ["reused", "reused", "uploaded"]],
  ["its config", ({ config }) => [config], ["reused", "reused", "reused"]],
  ["all of its blobs", ({ config, layers }) => [config, ...layers], ["uploaded", "uploaded", "uploaded"]],
];

let scratch: TemporaryDirectory;
let registry: DockerRegistry;
let front: HostileRegistry;

before(async () => {
  scratch = await TemporaryDirectory.create();
  registry = await startDockerRegistry();
  front = await startHostileRegistry(registry.host);
  await writeImage(scratch.join("source"), "v1", { layers: ["a", "b", "c"].map((name) => layerOf([{ name, data: name }])) });
});

after(async () => {
  await front.stop();
  await registry.stop();
  await scratch[Symbol.asyncDispose]();
});

async function convert(repository: string, tag: string, database: "none" | "sqlite"): Promise<z.infer<typeof document>> {
  const options = ["--db-type", database, "--output", "json"];
  const { status, stdout, stderr } = await lazylayerInProcess(
    ["convert", `oci:${scratch.join("source")}:v1`, `${front.host}/${repository}:${tag}`, ...options],
    { cacheDirectory: scratch.join(repository), temporaryDirectory: scratch.path },
  );
  assert.equal(status, 0, stderr);
  return document.parse(JSON.parse(stdout.toString()));
}

/** The manifest under the tag, all of whose blobs are read as a whole, without the front that lies. */
async function readImage(repository: string, tag: string): Promise<Manifest> {
  const store = openRegistryStore({ kind: "registry", host: registry.host, repository });
  const { bytes, descriptor } = await store.resolve({ tag });
  const manifest = parseManifest(bytes, descriptor.mediaType, tag);
  await store.blob(manifest.config);
  for (const layer of manifest.layers) for await (const _ of store.blobStream(layer));
  await store.close();
  return manifest;
}

for (const database of ["none", "sqlite"] as const) {
  for (const [at, [what, lost, outcomes]] of ROWS.entries()) {
    const memory = database === "none" ? "without a database" : "with a database";
    test(`a registry that has lost ${what} of an image, but says it has all, gets it again: ${memory}`, async () => {
      const repository = `${database}-${at}`;
      const { digest } = await convert(repository, "before", database);
      for (const blob of lost(await readImage(repository, "before"))) {
        await rm(join(registry.directory, "docker/registry/v2/repositories", repository, "_layers/sha256", hexOf(blob.digest)), {
          recursive: true,
        });
      }
      await assert.rejects(readImage(repository, "before"), { code: "NOT_FOUND" });
      front.reset();
      const claim = { kind: "answer", status: 200, headers: { "transfer-encoding": "chunked" } } as const;
      front.inject(({ method, url }) => (method === "HEAD" && url.includes("/blobs/") ? claim : undefined), Infinity);
      const again = await convert(repository, "after", database);
      front.reset();
      assert.equal(again.digest, digest);
      const expected = database === "sqlite" ? outcomes : outcomes.map((outcome) => (outcome === "reused" ? "exists" : outcome));
      assert.deepEqual(
        again.images[0].layers.map(({ outcome }) => outcome),
        expected,
      );
      await readImage(repository, "after");
    });
  }
}
