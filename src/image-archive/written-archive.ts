import { mkdir, readdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import type { ByteSource } from "../bytes/source.ts";
import { corrupt, LazyError } from "../errors.ts";
import { blobSize, readBlob } from "../image-layout/layout-blobs.ts";
import { placeError, readIndex, tagOf } from "../image-layout/layout-index.ts";
import { openLayoutStore } from "../image-layout/layout-store.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import { hexOf, parseDigest, type Digest } from "../oci/digest.ts";
import { listImages } from "../oci/image-selection.ts";
import type {
  CallOptions,
  ImageStore,
  PutBlobResult,
  PutManifestOptions,
  PutUnhashedOptions,
  ResolvedDocument,
  ResolveTarget,
  StoredBlob,
} from "../oci/image-store.ts";
import type { ImageIndex } from "../oci/index.ts";
import { encodeJson } from "../oci/json.ts";
import { formatReference, parseReference } from "../oci/reference.ts";
import { isReferrersTag } from "../oci/referrers.ts";
import { archiveBytes, directoryMember, memoryMember, type ArchiveMember } from "./archive-bytes.ts";
import type { ArchiveFormat } from "./archive-store.ts";
import type { ArchiveTarget } from "./archive-target.ts";
import { encodeDockerManifest, type DockerImage } from "./docker-manifest.ts";
import { IMAGE_NAME } from "./layout-content.ts";

export interface WriteOptions {
  /** `docker` adds to the layout what `docker load` and older readers want. */
  readonly format: ArchiveFormat;
  /** What images are called in a docker archive, with their tag; without it they have no name there. */
  readonly repository?: string | undefined;
  readonly signal?: AbortSignal | undefined;
}

/**
 * A new archive. What is put is kept in a layout of its own; when an image gets a tag, the archive is written with all that was put so
 * far, and the put succeeds when the whole archive is where it belongs. Until then nothing is there, or what was there before.
 * Put what has a tag last. Nothing of an archive that was in the same place is in the new one.
 */
export async function createArchive(target: ArchiveTarget, options: WriteOptions): Promise<ImageStore> {
  const { stagingDirectory } = target;
  try {
    await mkdir(stagingDirectory, { mode: 0o700 });
  } catch (error) {
    throw placeError(stagingDirectory, error);
  }
  return new WrittenArchive(target, options, await openLayoutStore(stagingDirectory, { create: true }));
}

class WrittenArchive implements ImageStore {
  readonly name: string;
  readonly #target: ArchiveTarget;
  readonly #options: WriteOptions;
  readonly #layout: ImageStore;
  #publishing: Promise<unknown> = Promise.resolve();
  #isClosed = false;

  constructor(target: ArchiveTarget, options: WriteOptions, layout: ImageStore) {
    this.name = target.name;
    this.#target = target;
    this.#options = options;
    this.#layout = layout;
  }

  async resolve(target: ResolveTarget): Promise<ResolvedDocument> {
    return await this.#layout.resolve(target);
  }

  async manifest(descriptor: Descriptor): Promise<Uint8Array> {
    return await this.#layout.manifest(descriptor);
  }

  async blob(descriptor: Descriptor): Promise<Uint8Array> {
    return await this.#layout.blob(descriptor);
  }

  blobStream(descriptor: Descriptor, options?: CallOptions): AsyncIterable<Uint8Array> {
    return this.#layout.blobStream(descriptor, options);
  }

  async blobSource(descriptor: Descriptor): Promise<ByteSource> {
    return await this.#layout.blobSource(descriptor);
  }

  async blobSize(digest: Digest): Promise<number | undefined> {
    return await this.#layout.blobSize(digest);
  }

  async hasBlob(digest: Digest, size?: number): Promise<boolean> {
    return await this.#layout.hasBlob(digest, size);
  }

  async putBlob(descriptor: Descriptor, content: ByteSource, options?: CallOptions): Promise<PutBlobResult> {
    this.#checkOpen();
    return await this.#layout.putBlob(descriptor, content, options);
  }

  async putUnhashed(content: ByteSource, options: PutUnhashedOptions): Promise<StoredBlob | undefined> {
    this.#checkOpen();
    return await this.#layout.putUnhashed(content, options);
  }

  async mountBlob(descriptor: Descriptor, from: string, options?: CallOptions): Promise<boolean> {
    return await this.#layout.mountBlob(descriptor, from, options);
  }

  async putManifest(bytes: Uint8Array, mediaType: string, options: PutManifestOptions): Promise<Descriptor> {
    this.#checkOpen();
    const descriptor = await this.#layout.putManifest(bytes, mediaType, options);
    if (options.tag !== undefined) await this.#publish(options.signal);
    return descriptor;
  }

  /** One archive at a time: the last one written has everything. */
  async #publish(signal: AbortSignal | undefined): Promise<void> {
    const both = [signal, this.#options.signal].filter((given) => given !== undefined);
    const publish = async (): Promise<void> => {
      this.#checkOpen();
      await this.#target.publish(archiveBytes(await this.#members()), both.length > 0 ? AbortSignal.any(both) : undefined);
    };
    const turn = this.#publishing.then(publish, publish);
    this.#publishing = turn;
    await turn;
  }

  async #members(): Promise<ArchiveMember[]> {
    const directory = this.#target.stagingDirectory;
    const index = await readIndex(directory);
    const members = [
      memoryMember("oci-layout", await readFile(join(directory, "oci-layout"))),
      memoryMember("index.json", encodeJson(this.#named(index))),
      ...["blobs/", "blobs/sha256/"].map(directoryMember),
    ];
    if (this.#options.format === "docker") {
      members.push(memoryMember("manifest.json", encodeDockerManifest(await this.#dockerImages(index))));
    }
    for (const name of await readdir(join(directory, "blobs/sha256"))) {
      if (!name.startsWith(".tmp-")) members.push(await blobMember(directory, parseDigest(`sha256:${name}`, directory)));
    }
    return members;
  }

  /** The index with whole names where docker and containerd look for them. */
  #named(index: ImageIndex): ImageIndex {
    if (this.#options.format !== "docker" || this.#options.repository === undefined) return index;
    const manifests = index.manifests.map((entry) => {
      const tag = imageTag(entry);
      if (tag === undefined) return entry;
      return { ...entry, annotations: { ...entry.annotations, [IMAGE_NAME]: wholeName(`${this.#options.repository}:${tag}`) } };
    });
    return { ...index, manifests };
  }

  /** The images that a docker archive has: of an index, the first has its name, since a name can be that of one image only. */
  async #dockerImages(index: ImageIndex): Promise<DockerImage[]> {
    const { repository } = this.#options;
    const found: DockerImage[] = [];
    for (const entry of index.manifests) {
      const tag = imageTag(entry);
      if (tag === undefined) continue;
      const images = await listImages(this.#layout, { digest: entry.digest });
      for (const [at, { manifest }] of images.entries()) {
        found.push({
          config: memberPath(manifest.config.digest),
          names: at === 0 && repository !== undefined ? [`${repository}:${tag}`] : [],
          layers: manifest.layers.map(({ digest }) => memberPath(digest)),
        });
      }
    }
    return found;
  }

  async referrers(digest: Digest, artifactType?: string): Promise<Descriptor[]> {
    return await this.#layout.referrers(digest, artifactType);
  }

  #checkOpen(): void {
    if (this.#isClosed) throw new LazyError("USAGE", `${this.name}: is closed`);
  }

  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    await this.#publishing.catch(() => undefined); // whoever put the image has been told
    await this.#layout.close();
    await rm(this.#target.stagingDirectory, { recursive: true, force: true });
  }
}

function imageTag(entry: Descriptor): string | undefined {
  const tag = tagOf(entry);
  return tag === undefined || isReferrersTag(tag) ? undefined : tag;
}

/** `docker.io/library/app:v1` for `app:v1`: the form in which docker and containerd look for a name. */
function wholeName(name: string): string {
  const reference = parseReference(name);
  return formatReference(reference).replace(/^registry-1\.docker\.io\//, "docker.io/");
}

function memberPath(digest: Digest): string {
  return `blobs/sha256/${hexOf(digest)}`;
}

async function blobMember(directory: string, digest: Digest): Promise<ArchiveMember> {
  const size = await blobSize(directory, digest);
  if (size === undefined) throw corrupt(`${directory}: ${digest} has gone`);
  return { path: memberPath(digest), size, content: () => readBlob(directory, digest, size) };
}
