import { readdir } from "node:fs/promises";
import { resolve as absolutePath } from "node:path";
import { FileSource } from "../bytes/file.ts";
import { makeDirectories } from "../bytes/file-directories.ts";
import { MemorySource, type ByteSource } from "../bytes/source.ts";
import { corrupt, LazyError } from "../errors.ts";
import { MAX_CONFIG_BYTES } from "../oci/config.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import { artifactTypeOf } from "../oci/manifest.ts";
import { digestOf, type Digest } from "../oci/digest.ts";
import { detectMediaType, MAX_MANIFEST_BYTES } from "../oci/document.ts";
import type {
  CallOptions,
  ImageStore,
  PutBlobResult,
  PutManifestOptions,
  ResolvedDocument,
  ResolveTarget,
  StoredBlob,
} from "../oci/image-store.ts";
import type { ImageIndex } from "../oci/index.ts";
import { encodeJson } from "../oci/json.ts";
import { OCI_INDEX } from "../oci/media-types.ts";
import {
  filterReferrers,
  isReferrersTag,
  parseReferrer,
  parseReferrersList,
  referrersTag,
  withReferrer,
  type Referrer,
} from "../oci/referrers.ts";
import { parseTag } from "../oci/reference.ts";
import { blobPath, blobSize, readBlob, writeBlob } from "./layout-blobs.ts";
import { createLayout, isVacant, isLayout, placeError, readIndex, tagOf, withTag, writeIndex } from "./layout-index.ts";

export interface LayoutOptions {
  /** Make the layout, at the first write, if the directory is missing or empty. */
  readonly create?: boolean;
}

/** Changes of an index read it, change it and replace it; within this process one at a time for each directory. */
const indexChanges = new Map<string, Promise<unknown>>();

/** Throws `NOT_FOUND` if there is no layout and none may be made, `USAGE` if the directory is something else. */
export async function openLayoutStore(directory: string, options: LayoutOptions = {}): Promise<ImageStore> {
  const exists = await isLayout(directory);
  if (!exists) await checkVacant(directory, options.create ?? false);
  return new LayoutStore(directory, exists);
}

async function checkVacant(directory: string, create: boolean): Promise<void> {
  let names: string[] = [];
  try {
    names = await readdir(directory);
  } catch (error) {
    const failure = placeError(directory, error);
    if (failure.code !== "NOT_FOUND" || !create) throw failure;
  }
  if (!create) throw new LazyError("NOT_FOUND", `${directory}: is not an OCI layout, it has no oci-layout file`);
  if (!(await isVacant(directory, names)))
    throw new LazyError("USAGE", `${directory}: is neither empty nor an OCI layout; name another directory`);
}

/** An OCI image layout directory (image specification, image-layout.md). */
class LayoutStore implements ImageStore {
  readonly name: string;
  readonly #directory: string;
  #exists: boolean;

  constructor(directory: string, exists: boolean) {
    this.name = `oci:${directory}`;
    this.#directory = directory;
    this.#exists = exists;
  }

  async resolve({ tag, digest }: ResolveTarget): Promise<ResolvedDocument> {
    const entry = this.#exists ? findEntry(await readIndex(this.#directory), { tag, digest }, this.name) : undefined;
    const wanted = entry?.digest ?? digest;
    const size = entry?.size ?? (wanted && (await blobSize(this.#directory, wanted)));
    if (wanted === undefined || size === undefined) {
      throw new LazyError("NOT_FOUND", `${this.name}: has no image ${digest ?? (tag === undefined ? "at all" : JSON.stringify(tag))}`);
    }
    const bytes = await this.#readSmall(wanted, size, MAX_MANIFEST_BYTES);
    const mediaType = entry?.mediaType ?? detectMediaType(bytes, undefined, `${this.name}@${wanted}`);
    return { descriptor: { mediaType, digest: wanted, size }, bytes };
  }

  async manifest({ digest, size }: Descriptor): Promise<Uint8Array> {
    return await this.#readSmall(digest, size, MAX_MANIFEST_BYTES);
  }

  async blob({ digest, size }: Descriptor): Promise<Uint8Array> {
    return await this.#readSmall(digest, size, MAX_CONFIG_BYTES);
  }

  async #readSmall(digest: Digest, size: number, limit: number): Promise<Uint8Array> {
    if (size > limit) throw corrupt(`${this.name}: ${digest} is ${size} bytes, expected at most ${limit}`);
    const chunks: Uint8Array[] = [];
    for await (const chunk of readBlob(this.#directory, digest, size)) chunks.push(chunk);
    return Buffer.concat(chunks);
  }

  blobStream({ digest, size }: Descriptor, options: CallOptions = {}): AsyncIterable<Uint8Array> {
    return readBlob(this.#directory, digest, size, options.signal);
  }

  async blobSource({ digest, size }: Descriptor): Promise<ByteSource> {
    const path = blobPath(this.#directory, digest);
    const found = await blobSize(this.#directory, digest);
    if (found === undefined) throw new LazyError("NOT_FOUND", `${path}: does not exist`);
    if (found !== size) throw corrupt(`${path}: ${found} bytes, expected ${size}`);
    return await FileSource.open(path);
  }

  async blobSize(digest: Digest): Promise<number | undefined> {
    return await blobSize(this.#directory, digest);
  }

  async hasBlob(digest: Digest, size?: number): Promise<boolean> {
    const found = await this.blobSize(digest);
    return found !== undefined && (size === undefined || found === size);
  }

  async putBlob({ digest, size }: Descriptor, content: ByteSource, { signal }: CallOptions = {}): Promise<PutBlobResult> {
    if (content.size !== size) throw corrupt(`${this.name}: content of ${digest} is ${content.size} bytes, expected ${size}`);
    if (await this.#holdsWhole(digest, size, signal)) return "exists";
    await this.#create();
    await writeBlob(this.#directory, content, { expected: digest, signal });
    return "uploaded";
  }

  /** What is there already is replaced: reading it, to see whether it is whole, would take as long. */
  async putUnhashed(content: ByteSource, { signal }: CallOptions): Promise<StoredBlob> {
    await this.#create();
    return await writeBlob(this.#directory, content, { signal });
  }

  /** A layout has no repositories to take blobs from. */
  async mountBlob({ digest, size }: Descriptor, _from: string, { signal }: CallOptions = {}): Promise<boolean> {
    return await this.#holdsWhole(digest, size, signal);
  }

  /** A blob that is there is read once more: a damaged one is replaced rather than built upon. */
  async #holdsWhole(digest: Digest, size: number, signal: AbortSignal | undefined): Promise<boolean> {
    signal?.throwIfAborted();
    if (!(await this.hasBlob(digest, size))) return false;
    try {
      for await (const _ of readBlob(this.#directory, digest, size, signal));
      return true;
    } catch (error) {
      if (error instanceof LazyError && (error.code === "CORRUPT" || error.code === "NOT_FOUND")) return false;
      throw error;
    }
  }

  async putManifest(bytes: Uint8Array, mediaType: string, { tag, signal }: PutManifestOptions): Promise<Descriptor> {
    if (tag !== undefined) parseTag(tag);
    const descriptor = { mediaType, digest: digestOf(bytes), size: bytes.length };
    const where = `${this.name}@${descriptor.digest}`;
    const referrer = parseReferrer(bytes, descriptor, where);
    const artifactType = artifactTypeOf(bytes, mediaType, where);
    await this.putBlob(descriptor, new MemorySource(bytes, `${this.name}: ${descriptor.digest}`), { signal });
    signal?.throwIfAborted();
    if (tag !== undefined) {
      const entry = { ...descriptor, ...(artifactType !== undefined && { artifactType }) };
      await this.#changeIndex((index) => withTag(index, tag, entry));
    }
    if (referrer) await this.#enterReferrer(referrer);
    return descriptor;
  }

  /** A layout has no API either; the tag of the distribution specification is what other tools look at in it. */
  async #enterReferrer({ subject, descriptor }: Referrer): Promise<void> {
    await this.#changeIndex(async (index) => {
      const list = await this.#referrersList(index, subject.digest);
      const entered = withReferrer(list, descriptor);
      if (entered === list) return index;
      const bytes = encodeJson(entered);
      const stored = { mediaType: OCI_INDEX, digest: digestOf(bytes), size: bytes.length };
      await this.putBlob(stored, new MemorySource(bytes, `${this.name}: ${stored.digest}`));
      return withTag(index, referrersTag(subject.digest), stored);
    });
  }

  async referrers(digest: Digest, artifactType?: string): Promise<Descriptor[]> {
    const list = this.#exists ? await this.#referrersList(await readIndex(this.#directory), digest) : undefined;
    return filterReferrers(list?.manifests ?? [], artifactType, `${this.name}: referrers of ${digest}`);
  }

  async #referrersList(index: ImageIndex, subject: Digest): Promise<ImageIndex | undefined> {
    const tag = referrersTag(subject);
    const entry = findEntry(index, { tag }, this.name);
    return entry && parseReferrersList(await this.manifest(entry), entry.mediaType, `${this.name}:${tag}`);
  }

  async close(): Promise<void> {}

  async #create(): Promise<void> {
    if (this.#exists) return;
    try {
      await makeDirectories(this.#directory);
    } catch (error) {
      throw placeError(this.#directory, error);
    }
    await inTurn(this.#directory, async () => {
      if (!(await isLayout(this.#directory))) await createLayout(this.#directory);
    });
    this.#exists = true;
  }

  async #changeIndex(change: (index: ImageIndex) => ImageIndex | Promise<ImageIndex>): Promise<void> {
    await inTurn(this.#directory, async () => writeIndex(this.#directory, await change(await readIndex(this.#directory))));
  }
}

async function inTurn(directory: string, change: () => Promise<void>): Promise<void> {
  const key = absolutePath(directory);
  const before = indexChanges.get(key) ?? Promise.resolve();
  const turn = before.then(change, change);
  indexChanges.set(key, turn);
  try {
    await turn;
  } finally {
    if (indexChanges.get(key) === turn) indexChanges.delete(key);
  }
}

function findEntry(index: ImageIndex, { tag, digest }: ResolveTarget, name: string): Descriptor | undefined {
  if (digest) return index.manifests.find((entry) => entry.digest === digest);
  const isMeant = (own: string | undefined): boolean => (tag === undefined ? own === undefined || !isReferrersTag(own) : own === tag);
  const all = index.manifests.filter((entry) => isMeant(tagOf(entry)));
  // Who names nothing means the image, not what is kept beside it.
  const images = tag === undefined ? all.filter((entry) => entry.artifactType === undefined) : all;
  const found = images.length > 0 ? images : all;
  const different = new Set(found.map((entry) => entry.digest));
  if (different.size <= 1) return found[0];
  if (tag !== undefined) throw corrupt(`${name}: tag ${JSON.stringify(tag)} is on ${different.size} different images`);
  const tags = found.map((entry) => tagOf(entry) ?? entry.digest).slice(0, 20);
  throw new LazyError("USAGE", `${name}: holds several images, name one of them: ${tags.join(", ")}`);
}
