import { MemorySource, type ByteSource } from "../bytes/source.ts";
import { detectCompression, type Compression } from "../compression/decompress.ts";
import { corrupt } from "../errors.ts";
import { MAX_CONFIG_BYTES } from "../oci/config.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import { digestOf, DigestHash, type Digest } from "../oci/digest.ts";
import type { ResolveTarget } from "../oci/image-store.ts";
import { encodeJson } from "../oci/json.ts";
import { DOCKER_CONFIG, DOCKER_LAYER_GZIP, DOCKER_LAYER_TAR, DOCKER_LAYER_ZSTD, DOCKER_MANIFEST } from "../oci/media-types.ts";
import { readDocument, type ArchiveContent } from "./archive-content.ts";
import { parseDockerManifest, type DockerImage } from "./docker-manifest.ts";
import { imagesNamed, noSuchImage, tooManyImages } from "./image-names.ts";
import type { MemberIndex } from "./member-index.ts";

const READ_BYTES = 1 << 20;
const MAGIC_BYTES = 4;

const LAYER_TYPES: Readonly<Record<Compression, string>> = {
  gzip: DOCKER_LAYER_GZIP,
  zstd: DOCKER_LAYER_ZSTD,
  none: DOCKER_LAYER_TAR,
};

export interface DockerContentOptions {
  readonly repository?: string | undefined;
  readonly signal?: AbortSignal | undefined;
}

/**
 * What `docker save` writes without a layout in it: `manifest.json` names a config and layers by their members. Manifests are made
 * from that, with the digests of what the members hold, when an image is asked for.
 */
export class DockerContent implements ArchiveContent {
  readonly #members: MemberIndex;
  readonly #name: string;
  readonly #options: DockerContentOptions;
  readonly #images: readonly DockerImage[];
  readonly #descriptors = new Map<DockerImage, Promise<Descriptor>>();
  readonly #layers = new Map<string, Promise<Descriptor>>();
  readonly #blobs = new Map<Digest, ByteSource>();

  private constructor(members: MemberIndex, name: string, options: DockerContentOptions, images: readonly DockerImage[]) {
    this.#members = members;
    this.#name = name;
    this.#options = options;
    this.#images = images;
  }

  /** Undefined if there is no `manifest.json` in the archive. */
  static async open(members: MemberIndex, name: string, options: DockerContentOptions): Promise<DockerContent | undefined> {
    const manifest = members.find("manifest.json");
    if (!manifest) return undefined;
    return new DockerContent(members, name, options, parseDockerManifest(await readDocument(manifest), manifest.name));
  }

  async find({ tag, digest }: ResolveTarget): Promise<Descriptor> {
    if (digest !== undefined) return await this.#findDigest(digest);
    const wanted = { tag, repository: this.#options.repository };
    const found = imagesNamed(this.#images, wanted);
    if (found.length > 1) throw tooManyImages(this.#name, wanted, found);
    if (found.length === 0) throw noSuchImage(this.#name, wanted, this.#images);
    return await this.#describe(found[0]);
  }

  async #findDigest(digest: Digest): Promise<Descriptor> {
    for (const image of this.#images) {
      const descriptor = await this.#describe(image);
      if (descriptor.digest === digest) return descriptor;
    }
    throw noSuchImage(this.#name, { tag: digest }, this.#images);
  }

  open(digest: Digest): ByteSource | undefined {
    return this.#blobs.get(digest);
  }

  /** There is no place for them in such an archive. */
  referrersOf(): undefined {
    return undefined;
  }

  #describe(image: DockerImage): Promise<Descriptor> {
    return remembered(this.#descriptors, image, async () => {
      const config = await this.#config(image.config);
      const layers: Descriptor[] = [];
      for (const path of image.layers) layers.push(await this.#layer(path));
      const bytes = encodeJson({ schemaVersion: 2, mediaType: DOCKER_MANIFEST, config, layers });
      const descriptor = { mediaType: DOCKER_MANIFEST, digest: digestOf(bytes), size: bytes.length };
      this.#blobs.set(descriptor.digest, new MemorySource(bytes, `${this.#name}: manifest made from manifest.json`));
      return descriptor;
    });
  }

  async #config(path: string): Promise<Descriptor> {
    const source = this.#member(path);
    const bytes = await readDocument(source, MAX_CONFIG_BYTES);
    const descriptor = { mediaType: DOCKER_CONFIG, digest: digestOf(bytes), size: bytes.length };
    this.#blobs.set(descriptor.digest, source);
    return descriptor;
  }

  /** Several images, and one image, may name the same layer; it is read once. */
  #layer(path: string): Promise<Descriptor> {
    return remembered(this.#layers, path, async () => {
      const source = this.#member(path);
      const compression = detectCompression(await source.read(0, Math.min(MAGIC_BYTES, source.size)));
      const hash = new DigestHash();
      for (let at = 0; at < source.size; at += READ_BYTES) {
        this.#options.signal?.throwIfAborted();
        hash.update(await source.read(at, Math.min(READ_BYTES, source.size - at)));
      }
      const descriptor = { mediaType: LAYER_TYPES[compression], digest: hash.digest(), size: source.size };
      this.#blobs.set(descriptor.digest, source);
      return descriptor;
    });
  }

  #member(path: string): ByteSource {
    const source = this.#members.find(path);
    if (source) return source;
    throw corrupt(`${this.#name}: manifest.json names ${JSON.stringify(path.slice(0, 300))}, which is not in the archive; save it again`);
  }
}

function remembered<K, V>(known: Map<K, Promise<V>>, key: K, make: () => Promise<V>): Promise<V> {
  const before = known.get(key);
  if (before) return before;
  const made = make();
  known.set(key, made);
  return made;
}
