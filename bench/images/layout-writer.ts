import { createHash, type Hash } from "node:crypto";
import { createWriteStream } from "node:fs";
import { link, mkdir, readFile, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Transform } from "node:stream";
import { pipeline } from "node:stream/promises";
import { createGzip } from "node:zlib";
import { z } from "zod";
import { CREATED, IMAGE_TAG } from "./debian-builder.ts";

const MANIFEST = "application/vnd.oci.image.manifest.v1+json";
const CONFIG = "application/vnd.oci.image.config.v1+json";
const LAYER = "application/vnd.oci.image.layer.v1.tar+gzip";

const descriptor = z.object({ mediaType: z.string(), digest: z.string().regex(/^sha256:[0-9a-f]{64}$/), size: z.int() });
type Descriptor = z.infer<typeof descriptor>;
const index = z.object({
  manifests: z.array(descriptor.extend({ annotations: z.record(z.string(), z.string()).optional() })),
});
const manifest = z.object({ config: descriptor, layers: z.array(descriptor) });
const config = z.object({ architecture: z.string(), rootfs: z.object({ diff_ids: z.array(z.string()) }) });

/** A layer in a layout, and the file that it is. */
export interface StoredLayer extends Descriptor {
  readonly path: string;
  readonly diffId: string;
}

export interface StoredImage {
  readonly manifest: Descriptor;
  readonly config: Descriptor;
  readonly architecture: string;
  readonly layers: readonly StoredLayer[];
}

/** What a layout holds under the tag that all images here have. */
export async function readLayout(layout: string): Promise<StoredImage> {
  const { manifests } = index.parse(await readJson(join(layout, "index.json")));
  const entry = manifests.find(({ annotations }) => annotations?.["org.opencontainers.image.ref.name"] === IMAGE_TAG);
  if (entry === undefined) throw new Error(`${layout}: has no image ${IMAGE_TAG}`);
  const found = manifest.parse(await readJson(blobPath(layout, entry.digest)));
  const { architecture, rootfs } = config.parse(await readJson(blobPath(layout, found.config.digest)));
  const layers = found.layers.map((layer, at) => ({ ...layer, path: blobPath(layout, layer.digest), diffId: rootfs.diff_ids[at] }));
  return { manifest: entry, config: found.config, architecture, layers };
}

/** Writes an OCI layout layer by layer. The same layers give the same bytes. */
export class LayoutWriter {
  readonly #layout: string;
  readonly #architecture: string;
  readonly #layers: { readonly descriptor: Descriptor; readonly diffId: string }[] = [];

  private constructor(layout: string, architecture: string) {
    this.#layout = layout;
    this.#architecture = architecture;
  }

  static async create(layout: string, architecture: string): Promise<LayoutWriter> {
    await mkdir(join(layout, "blobs/sha256"), { recursive: true });
    return new LayoutWriter(layout, architecture);
  }

  /** One more layer, the same as in another layout on the same disk: a second name of its file. */
  async addStored({ path, diffId, mediaType, digest, size }: StoredLayer): Promise<void> {
    await link(path, blobPath(this.#layout, digest));
    this.#layers.push({ descriptor: { mediaType, digest, size }, diffId });
  }

  /** One more layer out of a tar archive that comes in pieces. */
  async addTar(tar: Iterable<Uint8Array> | AsyncIterable<Uint8Array>): Promise<void> {
    const partial = join(this.#layout, "blobs/partial");
    const [inside, outside] = [createHash("sha256"), createHash("sha256")];
    let size = 0;
    const count = (piece: Uint8Array): void => void (size += piece.length);
    await pipeline(tar, hashing(inside), createGzip({ level: 6, chunkSize: 1 << 20 }), hashing(outside, count), createWriteStream(partial));
    const digest = `sha256:${outside.digest("hex")}`;
    await rename(partial, blobPath(this.#layout, digest));
    this.#layers.push({ descriptor: { mediaType: LAYER, digest, size }, diffId: `sha256:${inside.digest("hex")}` });
  }

  async finish(): Promise<void> {
    const diffIds = this.#layers.map(({ diffId }) => diffId);
    const settings = { created: CREATED, architecture: this.#architecture, os: "linux", config: {} };
    const configuration = await this.#addJson(CONFIG, { ...settings, rootfs: { type: "layers", diff_ids: diffIds } });
    const layers = this.#layers.map((layer) => layer.descriptor);
    const entry = await this.#addJson(MANIFEST, { schemaVersion: 2, mediaType: MANIFEST, config: configuration, layers });
    const annotations = { "org.opencontainers.image.ref.name": IMAGE_TAG };
    await writeFile(join(this.#layout, "oci-layout"), '{"imageLayoutVersion":"1.0.0"}');
    await writeFile(join(this.#layout, "index.json"), JSON.stringify({ schemaVersion: 2, manifests: [{ ...entry, annotations }] }));
  }

  async #addJson(mediaType: string, value: unknown): Promise<Descriptor> {
    const bytes = Buffer.from(JSON.stringify(value));
    const digest = `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
    await writeFile(blobPath(this.#layout, digest), bytes);
    return { mediaType, digest, size: bytes.length };
  }
}

function blobPath(layout: string, digest: string): string {
  return join(layout, "blobs", digest.replace(":", "/"));
}

async function readJson(path: string): Promise<unknown> {
  return JSON.parse(await readFile(path, "utf8"));
}

function hashing(hash: Hash, seen: (piece: Uint8Array) => void = () => {}): Transform {
  return new Transform({
    transform(piece: Uint8Array, _encoding, done) {
      hash.update(piece);
      seen(piece);
      done(null, piece);
    },
  });
}
