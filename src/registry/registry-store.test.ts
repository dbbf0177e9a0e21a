import { open } from "node:fs/promises";
import { join } from "node:path";
import { after, before } from "node:test";
import { startDockerRegistry, type DockerRegistry } from "../../test/support/docker-registry.ts";
import { hexOf } from "../oci/digest.ts";
import { describeImageStore } from "../oci/image-store.contract.ts";
import { openRegistryStore } from "./registry-store.ts";

let registry: DockerRegistry;
let repositories = 0;

before(async () => {
  registry = await startDockerRegistry();
});
after(async () => registry.stop());

for (const uploadChunkBytes of [undefined, 700_000]) {
  describeImageStore(`a registry, uploads ${uploadChunkBytes === undefined ? "whole" : "in chunks"}`, () => ({
    open: async () => {
      const repository = `contract/r${repositories++}`;
      const retry = { tries: 2, firstDelayMs: 1 };
      return openRegistryStore({ kind: "registry", host: registry.host, repository }, { uploadChunkBytes, retry });
    },
    damage: async (_store, digest) => {
      const hex = hexOf(digest);
      const path = join(registry.directory, "docker/registry/v2/blobs/sha256", hex.slice(0, 2), hex, "data");
      await using file = await open(path, "r+");
      await file.write(Buffer.from([0xff, 0xee, 0xdd]), 0, 3, 5);
    },
  }));
}
