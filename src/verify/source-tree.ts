import { decompress } from "../compression/decompress.ts";
import { corrupt } from "../errors.ts";
import type { ImageConfig } from "../oci/config.ts";
import { DigestHash, type Digest } from "../oci/digest.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import type { ImageStore } from "../oci/image-store.ts";
import type { Manifest } from "../oci/manifest.ts";
import type { TarEntry } from "../tar/tar-entry.ts";
import { TarReader } from "../tar/tar-reader.ts";
import { layerChanges } from "../tree/layer-changes.ts";
import { MemoryTree } from "../tree/memory-tree.ts";
import { ContentHash } from "./content-hash.ts";

/** An entry with the digest of its content; empty for what has none. */
interface HashedEntry extends TarEntry {
  content: string;
}

export type SourceTree = MemoryTree<HashedEntry, string>;

/** Reads all layers of an image and puts their tree together as the image specification says. */
export async function readSourceTree(
  store: ImageStore,
  manifest: Manifest,
  config: ImageConfig,
  signal: AbortSignal,
  observe: (bytes: number) => void,
): Promise<SourceTree> {
  const tree: SourceTree = new MemoryTree((entry) => entry.content);
  for (const [index, layer] of manifest.layers.entries()) {
    const name = `${store.name}: layer ${index} (${layer.digest})`;
    tree.apply(layerChanges(await readLayer(store, layer, name, config.rootfs.diff_ids[index], signal, observe)));
  }
  return tree;
}

async function readLayer(
  store: ImageStore,
  layer: Descriptor,
  name: string,
  diffId: Digest | undefined,
  signal: AbortSignal,
  observe: (bytes: number) => void,
): Promise<HashedEntry[]> {
  const entries: HashedEntry[] = [];
  const hasher = new EntryHasher();
  const reader = new TarReader(
    {
      entry: (entry) => entries.push(hasher.begin(entry)),
      data: (bytes) => hasher.data(bytes),
      entryEnd: () => hasher.end(),
    },
    name,
  );
  const hash = new DigestHash();
  const { stream } = await decompress(store.blobStream(layer, { signal }), name);
  for await (const chunk of stream) {
    hash.update(chunk);
    reader.write(chunk);
    observe(chunk.length);
  }
  reader.close();
  const found = hash.digest();
  if (found !== diffId) throw corrupt(`${name}: its content has diff ID ${found}, the config says ${diffId ?? "nothing"}`);
  return entries;
}

/** Follows an entry's stored data through its extents. */
class EntryHasher {
  #entry: HashedEntry | undefined;
  #hash = new ContentHash();
  #extent = 0;
  #done = 0;

  begin(entry: TarEntry): HashedEntry {
    this.#entry = { ...entry, content: "" };
    this.#hash = new ContentHash();
    this.#extent = 0;
    this.#done = 0;
    return this.#entry;
  }

  data(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length;) {
      const extent = this.#entry!.extents[this.#extent];
      const taken = Math.min(bytes.length - at, extent.length - this.#done);
      this.#hash.write(extent.offset + this.#done, bytes.subarray(at, at + taken));
      at += taken;
      this.#done += taken;
      if (this.#done < extent.length) continue;
      this.#extent++;
      this.#done = 0;
    }
  }

  end(): void {
    if (this.#entry?.type === "file") this.#entry.content = this.#hash.digest();
  }
}
