import type { ByteSource } from "../bytes/source.ts";
import { gzipped } from "../compression/gzip-stream.ts";
import { unsupported } from "../errors.ts";
import { LsmtWriter } from "../formats/lsmt/lsmt-writer.ts";
import { MappingList } from "../formats/lsmt/mapping-list.ts";
import { ZFileWriter } from "../formats/zfile/zfile-writer.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import { DigestHash, type Digest } from "../oci/digest.ts";
import { ARCHIVE_END, memberHead, memberPadding } from "../tar/member-head.ts";
import { ConvertedLayer } from "./converted-layer.ts";
import { turboDescriptor } from "./image-format.ts";
import { storedLayer } from "./stored-layer.ts";
import type { LayerIndex } from "./layer-index.ts";
import { appendMetadata } from "./layer-metadata.ts";
import type { FinishedPasses, LayerWriter, LayerWriterOptions } from "./layer-writer.ts";
import type { OutputLayer } from "./output-image.ts";
import { PAYLOAD_BLOCK_BYTES } from "./payload-packer.ts";
import { mapToTar } from "./tar-mappings.ts";

export interface TurboLayerOptions extends LayerWriterOptions {
  /** There are layers below, or a base layer, whose data must not show in what is left of a file's last block. */
  readonly hidesBelow: boolean;
  /** The layer that this one is to refer to. */
  readonly source: Descriptor;
  /** Makes a layer with the same content that can be read in the middle; undefined if that is not wanted. */
  readonly recompress: (() => Promise<RecompressedLayer>) | undefined;
}

export interface RecompressedLayer {
  readonly descriptor: Descriptor;
  readonly content: ByteSource;
  readonly index: LayerIndex;
}

/** What a turboOCI layer refers to, and how that is read. */
interface ReadableLayer {
  readonly index: LayerIndex;
  readonly data: Descriptor;
  readonly dataContent?: ByteSource;
}

interface Member {
  readonly path: string;
  readonly pieces: readonly Uint8Array[];
}

/**
 * Writes one turboOCI layer blob: the filesystem's metadata, with a mapping from the device to the tar of the layer that it was made
 * from, and what it takes to read that tar in the middle. See docs/formats/turbo-oci.md.
 */
export class TurboLayerWriter implements LayerWriter {
  readonly needsPayload = false;
  readonly needsIndex = true;
  readonly #options: TurboLayerOptions;

  constructor(options: TurboLayerOptions) {
    this.#options = options;
  }

  async appendPayload(): Promise<void> {}

  async finish(passes: FinishedPasses): Promise<ConvertedLayer> {
    const { spool, family, filesystem, name } = this.#options;
    const { index, data, dataContent } = await this.#readable(passes.scan.index);
    const members: Member[] = [
      { path: `${filesystem}.fs.meta`, pieces: await this.#warpLayer(passes, index.contentBytes) },
      { path: ".turbo.ociv1", pieces: [] },
      ...(index.file ? [{ path: index.file.name, pieces: [index.file.bytes] }] : []),
      { path: "spans.sha256", pieces: [index.spans] },
    ];
    const hash = new DigestHash();
    for await (const piece of gzipped(hashed(archive(members), hash), name)) await spool.write(piece);
    const diffId = hash.digest();
    const { size } = spool;
    const describe = (digest: Digest): OutputLayer => ({
      descriptor: turboDescriptor({ digest, size }, family, filesystem, data),
      diffId,
      data,
    });
    return ConvertedLayer.made(spool, describe, { data, dataContent });
  }

  async #readable(index: LayerIndex | undefined): Promise<ReadableLayer> {
    const { name, source, recompress } = this.#options;
    if (index === undefined) throw new Error(`${name}: was scanned without an index`);
    if (index.unindexable === undefined) return { index, data: storedLayer(source, index.compression) };
    if (recompress === undefined) throw unsupported(`${name}: ${index.unindexable}`);
    const layer = await recompress();
    return { index: layer.index, data: layer.descriptor, dataContent: layer.content };
  }

  /** The metadata and all mappings, as a ZFile. */
  async #warpLayer(passes: FinishedPasses, contentBytes: number): Promise<Uint8Array[]> {
    const { name, compress, virtualSize, uuid, parentUuid, hidesBelow } = this.#options;
    const pieces: Uint8Array[] = [];
    const zfile = new ZFileWriter(
      { write: async (bytes) => void pieces.push(new Uint8Array(bytes)) },
      { algorithm: "lz4", blockSize: PAYLOAD_BLOCK_BYTES, compress, overwriteHeader: true },
    );
    const lsmt = new LsmtWriter(zfile, { virtualSize, uuid, ...(parentUuid !== undefined && { parentUuid }) });
    const mappings = new MappingList();
    await appendMetadata(lsmt, passes, mappings);
    mapToTar(passes.scan.entries, passes.blocks.payload, { mappings, hidesBelow, name });
    await lsmt.closeWarp(mappings, contentBytes);
    const { header } = await zfile.close();
    pieces[0].set(header);
    return pieces;
  }
}

/** A tar of these members. */
function* archive(members: readonly Member[]): Generator<Uint8Array> {
  for (const { path, pieces } of members) {
    const size = pieces.reduce((sum, piece) => sum + piece.length, 0);
    yield memberHead({ path, size });
    yield* pieces;
    yield memberPadding(size);
  }
  yield ARCHIVE_END;
}

async function* hashed(pieces: Iterable<Uint8Array>, hash: DigestHash): AsyncGenerator<Uint8Array> {
  for (const piece of pieces) {
    if (piece.length === 0) continue;
    hash.update(piece);
    yield piece;
  }
}
