import { open } from "node:fs/promises";
import { join } from "node:path";
import { after, before } from "node:test";
import { startDockerRegistry, type DockerRegistry } from "../../test/support/docker-registry.ts";
import { hexOf } from "../oci/digest.ts";
import { startReferrersRegistry, type ReferrersRegistry } from "../../test/support/referrers-registry.ts";
import { describeImageStore } from "../oci/image-store.contract.ts";
import { openRegistryStore } from "./registry-store.ts";

let registry: DockerRegistry;
const conforming: ReferrersRegistry[] = [];
let repositories = 0;

before(async () => {
  registry = await startDockerRegistry();
});
after(async () => {
  for (const server of [registry, ...conforming]) await server.stop();
});

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

for (const [what, options] of [
  ["with a referrers API", {}],
  ["with a referrers API in pages of one", { pageSize: 1 }],
  ["with a referrers API that does not filter", { filters: false }],
] as const) {
  let current: ReferrersRegistry | undefined;
  describeImageStore(`a registry ${what}`, () => ({
    open: async () => {
      if (!current) conforming.push((current = await startReferrersRegistry(options)));
      const reference = { kind: "registry", host: current.host, repository: `contract/r${repositories++}` } as const;
      return openRegistryStore(reference, { retry: { tries: 2, firstDelayMs: 1 } });
    },
    damage: async (_store, digest) => {
      for (const [key, bytes] of current?.blobs ?? []) if (key.endsWith(`@${digest}`)) bytes.write("\xff\xee\xdd", 5, "latin1");
    },
  }));
}
