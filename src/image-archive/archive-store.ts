import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { FileSource } from "../bytes/file.ts";
import type { ByteSource } from "../bytes/source.ts";
import { detectCompression } from "../compression/decompress.ts";
import { corrupt, LazyError, unsupported } from "../errors.ts";
import { placeError } from "../image-layout/layout-index.ts";
import { MAX_CONFIG_BYTES } from "../oci/config.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import { DigestHash, type Digest } from "../oci/digest.ts";
import { MAX_MANIFEST_BYTES } from "../oci/document.ts";
import type { CallOptions, ImageStore, PutBlobResult, ResolvedDocument, ResolveTarget } from "../oci/image-store.ts";
import { filterReferrers, parseReferrersList } from "../oci/referrers.ts";
import type { ArchiveContent } from "./archive-content.ts";
import { spoolArchive, type SpoolOptions } from "./archive-spool.ts";
import { DockerContent } from "./docker-content.ts";
import { LayoutContent } from "./layout-content.ts";
import { indexMembers, type MemberIndex } from "./member-index.ts";

const READ_BYTES = 1 << 20;
const MAGIC_BYTES = 4;

/** `oci` has a layout in it, `docker` a `manifest.json`. What docker saves today has both, and is read as a layout. */
export type ArchiveFormat = "oci" | "docker";

export interface ArchiveOptions extends SpoolOptions {
  /** What the archive has to be; either, if it is not said. */
  readonly format?: ArchiveFormat | undefined;
  /** Tags are asked for with this name in front. */
  readonly repository?: string | undefined;
}

/**
 * Opens an archive for reading: in place where it is a plain tar in a regular file, else by way of a temporary file.
 * Throws `NOT_FOUND`, `USAGE` for an archive of the other format, `CORRUPT` for what is none, `UNSUPPORTED` beyond bounds.
 */
export async function openArchiveFile(file: string, options: ArchiveOptions): Promise<ImageStore> {
  return await openStore(await openBytes(file, options), file, options);
}

/** The same for an archive that comes as a stream, such as standard input. */
export async function openArchiveStream(chunks: AsyncIterable<Uint8Array>, name: string, options: ArchiveOptions): Promise<ImageStore> {
  return await openStore(await spoolArchive(chunks, name, options), name, options);
}

async function openBytes(file: string, options: ArchiveOptions): Promise<ByteSource> {
  let source: FileSource | undefined;
  try {
    const found = await stat(file);
    if (found.isDirectory()) throw new LazyError("USAGE", `${file}: is a directory, expected an archive; oci:DIRECTORY names a layout`);
    if (found.isFile()) {
      source = await FileSource.open(file);
      if (detectCompression(await source.read(0, Math.min(MAGIC_BYTES, source.size))) === "none") return source;
    }
  } catch (error) {
    throw placeError(file, error);
  }
  await source?.close();
  const { signal } = options;
  return await spoolArchive(createReadStream(file, { highWaterMark: READ_BYTES, ...(signal && { signal }) }), file, options);
}

async function openStore(source: ByteSource, name: string, options: ArchiveOptions): Promise<ImageStore> {
  try {
    if (source.size === 0) throw corrupt(`${name}: is empty, expected an archive with an image`);
    const members = await indexMembers(source, options.signal);
    return new ArchiveStore(name, source, await openContent(members, name, options));
  } catch (error) {
    await source.close();
    throw error;
  }
}

async function openContent(members: MemberIndex, name: string, options: ArchiveOptions): Promise<ArchiveContent> {
  const { format, repository, signal } = options;
  const layout = await LayoutContent.open(members, name, repository);
  if (layout && (format !== "docker" || members.find("manifest.json"))) return layout;
  if (layout) throw new LazyError("USAGE", `${name}: is an OCI archive, name it oci-archive:${name}`);
  const docker = await DockerContent.open(members, name, { repository, signal });
  if (docker && format !== "oci") return docker;
  if (docker) throw new LazyError("USAGE", `${name}: is an archive of docker save, name it docker-archive:${name}`);
  if (members.find("repositories")) {
    throw unsupported(`${name}: was written by a docker before 1.10, which gave images no digests; load and save it with a current one`);
  }
  throw corrupt(`${name}: none of its ${members.count} members is an oci-layout or a manifest.json; it holds no image`);
}

/** An archive that is read. Nothing can be put into it. */
class ArchiveStore implements ImageStore {
  readonly name: string;
  readonly #source: ByteSource;
  readonly #content: ArchiveContent;
  #isClosed = false;

  constructor(name: string, source: ByteSource, content: ArchiveContent) {
    this.name = name;
    this.#source = source;
    this.#content = content;
  }

  async resolve(target: ResolveTarget): Promise<ResolvedDocument> {
    const { mediaType, digest, size } = await this.#content.find(target);
    const descriptor = { mediaType, digest, size };
    return { descriptor, bytes: await this.manifest(descriptor) };
  }

  async manifest(descriptor: Descriptor): Promise<Uint8Array> {
    return await this.#readSmall(descriptor, MAX_MANIFEST_BYTES);
  }

  async blob(descriptor: Descriptor): Promise<Uint8Array> {
    return await this.#readSmall(descriptor, MAX_CONFIG_BYTES);
  }

  async #readSmall(descriptor: Descriptor, limit: number): Promise<Uint8Array> {
    const { digest, size } = descriptor;
    if (size > limit) throw corrupt(`${this.name}: ${digest} is ${size} bytes, expected at most ${limit}`);
    const chunks: Uint8Array[] = [];
    for await (const chunk of this.blobStream(descriptor)) chunks.push(Buffer.from(chunk));
    return Buffer.concat(chunks);
  }

  async *blobStream(descriptor: Descriptor, { signal }: CallOptions = {}): AsyncGenerator<Uint8Array> {
    const source = await this.blobSource(descriptor);
    const hash = new DigestHash();
    for (let at = 0; at < source.size; at += READ_BYTES) {
      signal?.throwIfAborted();
      const bytes = await source.read(at, Math.min(READ_BYTES, source.size - at));
      hash.update(bytes);
      yield bytes;
    }
    signal?.throwIfAborted();
    const found = hash.digest();
    if (found !== descriptor.digest) throw corrupt(`${source.name}: content has digest ${found}, expected ${descriptor.digest}`);
  }

  async blobSource({ digest, size }: Descriptor): Promise<ByteSource> {
    const source = this.#content.open(digest);
    if (!source) throw new LazyError("NOT_FOUND", `${this.name}: has no blob ${digest}`);
    if (source.size !== size) throw corrupt(`${source.name}: ${source.size} bytes, expected ${size}`);
    return source;
  }

  async blobSize(digest: Digest): Promise<number | undefined> {
    return this.#content.open(digest)?.size;
  }

  async hasBlob(digest: Digest, size?: number): Promise<boolean> {
    const found = await this.blobSize(digest);
    return found !== undefined && (size === undefined || found === size);
  }

  async putBlob(): Promise<PutBlobResult> {
    throw this.#isRead();
  }

  async putUnhashed(): Promise<undefined> {
    throw this.#isRead();
  }

  async mountBlob(): Promise<boolean> {
    throw this.#isRead();
  }

  async putManifest(): Promise<Descriptor> {
    throw this.#isRead();
  }

  #isRead(): LazyError {
    return new LazyError("USAGE", `${this.name}: nothing can be added to an archive; name another destination`);
  }

  async referrers(digest: Digest, artifactType?: string): Promise<Descriptor[]> {
    const list = this.#content.referrersOf(digest);
    const where = `${this.name}: referrers of ${digest}`;
    const found = list ? parseReferrersList(await this.manifest(list), list.mediaType, where).manifests : [];
    return filterReferrers(found, artifactType, where);
  }

  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    await this.#source.close();
  }
}
