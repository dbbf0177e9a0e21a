import { createHash } from "node:crypto";
import { gzipSync, gunzipSync } from "node:zlib";
import { checkRange, MemorySource, type ByteSource } from "../../src/bytes/source.ts";
import { PlainSpans, type SpanIndex } from "../../src/compression/span-index.ts";
import type { BlobPlace } from "../../src/device/blob-place.ts";
import { parseGzipIndex } from "../../src/formats/gzip-index/gzip-index-reader.ts";
import { encodeSpanDigests } from "../../src/formats/span-digests/span-digests.ts";
import type { Descriptor } from "../../src/oci/descriptor.ts";
import { digestOf, type Digest } from "../../src/oci/digest.ts";
import { OCI_LAYER_GZIP, OCI_LAYER_TAR } from "../../src/oci/media-types.ts";
import { TarReader } from "../../src/tar/tar-reader.ts";
import { load } from "./recorded-tree.ts";
import { tarArchive, type TarMember } from "./tar-builder.ts";

const PREFIX = "containerd.io/snapshot/overlaybd/";

/** A layer as a manifest names it, and the blobs that it is read from. */
export interface StoredLayer {
  readonly descriptor: Descriptor;
  readonly blob: Uint8Array;
  /** The layer that it was made from, for a turboOCI layer. */
  readonly target?: Uint8Array;
}

export interface TurboLayerParts {
  /** Members of the layer blob. */
  readonly members: readonly TarMember[];
  readonly target: Uint8Array;
  readonly targetMediaType?: string;
  /** Instead of those that usually go with the parts. */
  readonly annotations?: Readonly<Record<string, string>>;
}

/** A turboOCI layer: a gzip of a tar of the members. */
export function turboLayer({ members, target, targetMediaType = OCI_LAYER_GZIP, annotations }: TurboLayerParts): Required<StoredLayer> {
  const blob = gzipSync(tarArchive(members));
  const usual = {
    [`${PREFIX}version`]: "0.1.0-turbo.ociv1",
    [`${PREFIX}turbo-oci/target-digest`]: digestOf(target),
    [`${PREFIX}turbo-oci/target-media-type`]: targetMediaType,
  };
  return { descriptor: descriptorOf(blob, OCI_LAYER_GZIP, annotations ?? usual), blob, target };
}

/** An overlaybd layer. */
export function nativeLayer(blob: Uint8Array): StoredLayer {
  return { descriptor: descriptorOf(blob, OCI_LAYER_TAR, { [`${PREFIX}version`]: "0.1.0" }), blob };
}

function descriptorOf(blob: Uint8Array, mediaType: string, annotations: Readonly<Record<string, string>>): Descriptor {
  return { mediaType, digest: digestOf(blob), size: blob.length, annotations };
}

/** The side file with the digests of a content's spans. */
export function spanDigests(content: Uint8Array, index: SpanIndex = new PlainSpans(content.length)): Uint8Array {
  const spans = Array.from({ length: index.spanCount }, (_, span) => {
    const contentOffset = index.contentOffset(span);
    const bytes = content.subarray(contentOffset, index.contentOffset(span + 1));
    return { contentOffset, sha256: createHash("sha256").update(bytes).digest() };
  });
  return encodeSpanDigests({ contentBytes: content.length, spans });
}

/**
 * The layers that `testdata/turbo-oci` has of one kind, and the base layer if they need one; the lowest first. Digests of spans, which
 * the tools that made them do not know, are added on demand.
 */
export function recordedTurboLayers(kind: "base" | "mkfs" | "erofs", { withDigests = false } = {}): StoredLayer[] {
  const layers = [0, 1, 2].map((layer) => {
    const [target, index] = recordedTarget(layer, kind === "erofs");
    const metadata = `${kind === "erofs" ? "erofs" : "ext4"}.fs.meta`;
    const members = [
      { name: metadata, data: load(`turbo-oci/${kind}-layer${layer}.fs.meta`) },
      { name: ".turbo.ociv1" },
      { name: "gzip.meta", data: index },
      ...(withDigests ? [{ name: "spans.sha256", data: spanDigests(gunzipSync(target), parseGzipIndex(index, "index")) }] : []),
    ];
    return turboLayer({ members, target });
  });
  return kind === "base" ? [nativeLayer(baseLayer()), ...layers] : layers;
}

/** A layer of the recorded image, and its index. */
export function recordedTarget(layer: number, isOfErofs = false): [target: Buffer, index: Buffer] {
  if (layer === 0) return [load("gzip-index/layer0.tar.gz"), load("gzip-index/layer0.gzip.meta")];
  if (layer === 2) return [load("overlaybd/layer2.tar.gz"), load("gzip-index/layer2.gzip.meta")];
  const name = isOfErofs ? "erofs-layer1" : "layer1";
  return [load(`turbo-oci/${name}.tar.gz`), load(`turbo-oci/${name}.gzip.meta`)];
}

/** The layer file inside of the archive that the base layer is distributed as. */
export function baseLayer(): Buffer {
  const chunks: Uint8Array[] = [];
  const reader = new TarReader({ entry: () => {}, data: (bytes) => chunks.push(Uint8Array.from(bytes)), entryEnd: () => {} }, "ext4_64");
  reader.write(gunzipSync(load("lsmt/ext4_64.tar.gz")));
  reader.close();
  return Buffer.concat(chunks);
}

/** A place of blobs that notes what is read of each, and gives what `spoil` makes of it. */
export class WatchedPlace implements BlobPlace {
  readonly name: string;
  readonly reads: { readonly digest: Digest; readonly offset: number; readonly length: number }[] = [];
  spoil: (bytes: Uint8Array, digest: Digest, offset: number) => void = () => {};
  /** Sources that are open. */
  open = 0;
  readonly blobs = new Map<Digest, Uint8Array>();

  constructor(layers: readonly StoredLayer[], name = "place") {
    this.name = name;
    for (const { blob, target } of layers) {
      this.add(blob);
      if (target !== undefined) this.add(target);
    }
  }

  add(blob: Uint8Array): void {
    this.blobs.set(digestOf(blob), blob);
  }

  readsOf(blob: Uint8Array): [offset: number, length: number][] {
    const wanted = digestOf(blob);
    return this.reads.filter(({ digest }) => digest === wanted).map(({ offset, length }) => [offset, length]);
  }

  async blobSize(digest: Digest): Promise<number | undefined> {
    return this.blobs.get(digest)?.length;
  }

  async blobSource({ digest, size }: Descriptor): Promise<ByteSource> {
    const inner = new MemorySource(this.blobs.get(digest) ?? new Uint8Array(0), `${this.name}: blob ${digest}`);
    this.open++;
    let isOpen = true;
    return {
      name: inner.name,
      size,
      read: async (offset, length) => {
        checkRange({ name: inner.name, size }, offset, length);
        this.reads.push({ digest, offset, length });
        const bytes = await inner.read(offset, length);
        this.spoil(bytes, digest, offset);
        return bytes;
      },
      close: async () => {
        if (isOpen) this.open--;
        isOpen = false;
      },
    };
  }
}
