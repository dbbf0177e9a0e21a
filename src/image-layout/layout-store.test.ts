import { mkdtemp, open, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before } from "node:test";
import { describeImageStore } from "../oci/image-store.contract.ts";
import { blobPath } from "./layout-blobs.ts";
import { openLayoutStore } from "./layout-store.ts";

let root: string;
let layouts = 0;

before(async () => {
  root = await mkdtemp(join(tmpdir(), "lazylayer-layout-"));
});
after(async () => rm(root, { recursive: true, force: true }));

describeImageStore("a layout directory", () => ({
  open: async () => openLayoutStore(join(root, String(layouts++)), { create: true }),
  damage: async (store, digest) => {
    await using file = await open(blobPath(store.name.slice("oci:".length), digest), "r+");
    await file.write(Buffer.from([0xff, 0xee, 0xdd]), 0, 3, 5);
  },
}));
