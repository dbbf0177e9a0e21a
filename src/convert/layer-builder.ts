import { createHash } from "node:crypto";
import { setImmediate } from "node:timers/promises";
import type { BlockCache } from "../cache/block-cache.ts";
import type { ByteSource } from "../bytes/source.ts";
import { openDevice } from "../device/open-device.ts";
import { LazyError } from "../errors.ts";
import { ErofsWriter } from "../formats/erofs/erofs-writer.ts";
import { Ext4Writer } from "../formats/ext4/ext4-writer.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import type { Digest } from "../oci/digest.ts";
import type { ImageStore } from "../oci/image-store.ts";
import type { MediaTypeFamily } from "../oci/media-types.ts";
import type { FilesystemWriter, LayerBlocks } from "../tree/filesystem-writer.ts";
import { layerChanges } from "../tree/layer-changes.ts";
import { baseLayerOf, type BaseLayer } from "./base-layer.ts";
import type { BlobSpool } from "./blob-spool.ts";
import type { ConvertedLayer } from "./converted-layer.ts";
import type { FilesystemType } from "./image-format.ts";
import type { LayerOptions } from "./layer-options.ts";
import type { WantedLayer } from "./layer-identity.ts";
import type { LayerScan } from "./layer-scan.ts";
import type { LayerWriter } from "./layer-writer.ts";

/** A layer after its data pass, waiting for its turn in the chain. */
export interface ScannedLayer {
  readonly scan: LayerScan;
  /** By target; undefined where the layer is known. */
  readonly writers: readonly (LayerWriter | undefined)[];
  readonly release: () => void;
}

/** One form that the layers are wanted in. */
export interface LayersTarget {
  readonly options: LayerOptions;
  readonly family: MediaTypeFamily;
  readonly wanted: readonly WantedLayer[];
  /** Layers that need not be converted, by their place ... */
  readonly known: readonly (ConvertedLayer | undefined)[];
  /** ... and where they are. */
  readonly destination: ImageStore;
  /** Where the blobs are made, by their place. */
  readonly spools: readonly BlobSpool[];
  /** Where a layer is made that takes the place of one that turboOCI layers cannot refer to; undefined if none is to be made. */
  readonly openDataSpool: ((index: number) => BlobSpool) | undefined;
  /** The layer is complete, and so are all below it. What it throws ends the conversion. */
  readonly layerConverted: (index: number, layer: ConvertedLayer) => void;
}

export interface BuilderOptions {
  /** Where the layers come from. */
  readonly source: ImageStore;
  readonly targets: readonly LayersTarget[];
  /** Keeps what is read of known layers. */
  readonly openCache: () => Promise<BlockCache>;
  /** Continue the filesystem of this layer instead of making one. */
  readonly base: BaseLayer | undefined;
}

/** Changes to the filesystem that are made before anything else gets its turn: a millisecond or so. */
const CHANGES_AT_A_TIME = 256;

/**
 * The metadata pass: applies each layer to the filesystem that the layers below have made. All targets have the same filesystem, so
 * it is done once for all of them.
 */
export class LayerBuilder {
  readonly #name: string;
  readonly #options: BuilderOptions;
  /** By target. */
  readonly #layers: ConvertedLayer[][];
  /** As all layers so far have made it; undefined while the topmost of them was not scanned. */
  #filesystem: FilesystemWriter | undefined;

  /** @param name what to call the image in messages */
  constructor(name: string, options: BuilderOptions) {
    this.#name = name;
    this.#options = options;
    this.#layers = options.targets.map(() => []);
  }

  /**
   * The layers by target. `scans` are in the order of the chain, undefined where all targets have the layer; each is taken out at its
   * turn, as what a scan found takes memory.
   */
  async build(scans: Promise<ScannedLayer | undefined>[]): Promise<ConvertedLayer[][]> {
    for (const scan of scans) scan.catch(() => {}); // each is awaited below, perhaps after it failed
    for (let index = 0, pending = scans.shift(); pending; index++, pending = scans.shift()) {
      const scanned = await pending;
      if (scanned) await this.#build(index, scanned);
      // What a known layer changes is not in memory.
      else this.#filesystem = undefined;
      for (const [target, { known }] of this.#options.targets.entries()) {
        const layer = known[index];
        if (layer) this.#layers[target].push(layer);
      }
    }
    return this.#layers;
  }

  async #build(index: number, { scan, writers, release }: ScannedLayer): Promise<void> {
    try {
      const filesystem = (this.#filesystem ??= await this.#openFilesystem());
      const blocks = await applyLayer(filesystem, scan, `${this.#name}: layer ${index}`);
      const metadataBlock = (block: number): Uint8Array => filesystem.metadataBlock(block);
      for (const [target, writer] of writers.entries()) {
        if (writer === undefined) continue;
        const layer = await writer.finish({ scan, blocks, metadataBlock });
        this.#layers[target].push(layer);
      }
    } finally {
      release();
    }
    for (const [target, { layerConverted }] of this.#options.targets.entries()) {
      if (writers[target]) layerConverted(index, this.#layers[target][index]);
    }
  }

  async #openFilesystem(): Promise<FilesystemWriter> {
    const { base, targets } = this.#options;
    const [{ options, wanted }] = targets;
    if (this.#layers[0].length > 0) return await this.#loadFilesystem();
    if (base) return await openFilesystem(options.filesystem, base.device);
    return makeFilesystem(options, wanted[0].chainId);
  }

  /** Reads the filesystem from the layers that are there: range reads of its metadata, no layer as a whole. */
  async #loadFilesystem(): Promise<FilesystemWriter> {
    const { base, targets, openCache, source } = this.#options;
    // Of overlaybd layers less has to be read.
    const target = Math.max(
      0,
      targets.findIndex(({ options }) => options.format === "overlaybd"),
    );
    const { family, destination, options } = targets[target];
    const below = base ? [{ ...baseLayerOf(base, family, options.filesystem), content: base.content }] : [];
    const own = await Promise.all(this.#layers[target].map(async (layer) => ({ ...(await layer.output()), content: layer.content })));
    const layers = [...below, ...own];
    const blobSource = async (descriptor: Descriptor): Promise<ByteSource> => {
      const content = layers.find((layer) => layer.descriptor.digest === descriptor.digest)?.content;
      return content ? lent(content) : await destination.blobSource(descriptor);
    };
    const dataPlace = {
      name: source.name,
      blobSource: async (data: Descriptor): Promise<ByteSource> => await dataSource(data, this.#layers[target], source),
      blobSize: async (digest: Digest): Promise<number | undefined> => dataSize(digest, this.#layers[target]),
    };
    const blobSize = async (digest: Digest): Promise<number | undefined> => await destination.blobSize(digest);
    const image = { layers: layers.map((layer) => layer.descriptor) };
    const device = await openDevice({ name: destination.name, blobSource, blobSize }, image, { cache: await openCache(), dataPlace });
    try {
      return await openFilesystem(options.filesystem, device);
    } finally {
      await device.close();
    }
  }
}

/** What a turboOCI layer refers to; of it nothing more than a look is taken. */
async function dataSource({ digest, ...rest }: Descriptor, layers: readonly ConvertedLayer[], source: ImageStore): Promise<ByteSource> {
  const made = layers.find(({ data }) => data?.digest === digest)?.dataContent;
  return made ? lent(made) : await source.blobSource({ digest, ...rest });
}

function dataSize(digest: Digest, layers: readonly ConvertedLayer[]): number | undefined {
  return layers.find(({ data }) => data?.digest === digest)?.data?.size;
}

/** The same source for somebody who closes it while it is still needed. */
function lent(source: ByteSource): ByteSource {
  const { name, size } = source;
  return { name, size, read: async (offset, length) => await source.read(offset, length), close: async () => {} };
}

async function openFilesystem(type: FilesystemType, device: ByteSource): Promise<FilesystemWriter> {
  return type === "erofs" ? await ErofsWriter.open(device) : await Ext4Writer.open(device);
}

/** A new filesystem. Its identity is derived from the bottom layer's, so that the same layers always give the same bytes. */
function makeFilesystem({ filesystem, virtualSize }: LayerOptions, bottom: Digest): FilesystemWriter {
  const identity = createHash("sha256").update(`lazylayer ${filesystem} ${bottom}`).digest();
  const [uuid, hashSeed] = [asUuid(identity.subarray(0, 16)), asUuid(identity.subarray(16, 32))];
  if (filesystem === "erofs") return ErofsWriter.format({ bytes: virtualSize, uuid });
  return Ext4Writer.format({ bytes: virtualSize, uuid, hashSeed });
}

async function applyLayer(filesystem: FilesystemWriter, scan: LayerScan, name: string): Promise<LayerBlocks> {
  try {
    filesystem.beginLayer(scan.payloadBlocks);
    let applied = 0;
    for (const change of layerChanges(scan.entries)) {
      filesystem.apply(change);
      // The layers above are being read meanwhile, and their threads wait for this one to hand them their bytes.
      if (++applied % CHANGES_AT_A_TIME === 0) await setImmediate();
    }
    return filesystem.finishLayer();
  } catch (error) {
    if (error instanceof LazyError) throw new LazyError(error.code, `${name}: ${error.message}`, { cause: error });
    throw error;
  }
}

/** Marks 16 bytes as a UUID of version 8, whose other bits are free (RFC 9562). */
function asUuid(bytes: Uint8Array): Uint8Array {
  const uuid = new Uint8Array(bytes);
  uuid[6] = (uuid[6] & 0x0f) | 0x80;
  uuid[8] = (uuid[8] & 0x3f) | 0x80;
  return uuid;
}
