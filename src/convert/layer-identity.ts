import type { ByteSource } from "../bytes/source.ts";
import { openOverlaybdLayer } from "../device/layer.ts";
import { LazyError } from "../errors.ts";
import { BLOCK_BYTES, MAGIC, SUPERBLOCK_OFFSET, superblockStruct } from "../formats/ext4/layout.ts";
import type { LsmtRecord } from "../formats/lsmt/layout.ts";
import { stackLayers } from "../formats/lsmt/stack.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import { chainIds } from "../oci/chain-id.ts";
import { digestOf, hexOf, type Digest } from "../oci/digest.ts";
import type { ImageFormat } from "./image-format.ts";
import type { ImageNode } from "./image-graph.ts";

/** What a layer blob says of itself: which layer it is, on top of which, and of how large a device. */
export interface LayerIdentity {
  readonly uuid: string;
  readonly parentUuid: string | undefined;
  /** In bytes. */
  readonly virtualSize: number;
}

const NO_UUID = "00000000-0000-0000-0000-000000000000";

/** A layer that a result is to have. */
export interface WantedLayer {
  /** Names the source's layer and all below it. */
  readonly chainId: Digest;
  /** Stands for all that decides what is in it, besides options. */
  readonly key: Digest;
  /** The layer that it is made from. */
  readonly source: Descriptor;
}

/**
 * The layers of a result. A layer's key is its chain ID, which names it and all below; that of a turboOCI layer also names how the
 * source stores it, since it says where in that blob what is.
 */
export function wantedLayers(format: ImageFormat, { manifest, config }: Pick<ImageNode, "manifest" | "config">): WantedLayer[] {
  return chainIds(config.rootfs.diff_ids).map((chainId, index) => {
    const source = manifest.layers[index];
    return { source, chainId, key: format === "overlaybd" ? chainId : digestOf(Buffer.from(`${format} ${chainId} ${source.digest}`)) };
  });
}

/** A layer's UUID is the front of its key; its parent's is that of the layer below. */
export function identityOf(wanted: readonly WantedLayer[], index: number, virtualSize: number): LayerIdentity {
  return { uuid: uuidOf(wanted[index].key), parentUuid: index === 0 ? undefined : uuidOf(wanted[index - 1].key), virtualSize };
}

function uuidOf(key: Digest): string {
  const hex = hexOf(key);
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20, 32)].join("-");
}

/** Whether a layer says of itself that it is the one that is expected. */
export function saysItIs(lsmt: Pick<LsmtRecord, "uuid" | "parentUuid" | "virtualSize">, expected: LayerIdentity): boolean {
  return (
    lsmt.uuid.toLowerCase() === expected.uuid &&
    lsmt.parentUuid.toLowerCase() === (expected.parentUuid ?? NO_UUID) &&
    lsmt.virtualSize === expected.virtualSize
  );
}

/**
 * Whether a blob, which may have been made by anybody, is the layer that it is said to be; reads its front and its end. With
 * `filesystemUuid`, it must also have a superblock of its own with that UUID. False for what is no layer at all, or damaged.
 */
export async function isLayer(blob: ByteSource, expected: LayerIdentity, filesystemUuid?: string): Promise<boolean> {
  try {
    const { lsmt } = await openOverlaybdLayer(blob, { declared: true, keepPinned: true });
    const isSame = saysItIs(lsmt, expected);
    if (!isSame || filesystemUuid === undefined) return isSame;
    return (await filesystemUuidOf(stackLayers([lsmt]))) === filesystemUuid;
  } catch (error) {
    if (error instanceof LazyError && (error.code === "CORRUPT" || error.code === "UNSUPPORTED")) return false;
    throw error;
  }
}

/** The UUID, in hex, of the ext4 filesystem that fills a device; undefined if there is none. */
export async function filesystemUuidOf(device: ByteSource): Promise<string | undefined> {
  if (device.size < SUPERBLOCK_OFFSET + superblockStruct.size) return undefined;
  const { magic, uuid, blocksCountLow } = superblockStruct.decode(await device.read(SUPERBLOCK_OFFSET, superblockStruct.size));
  if (magic !== MAGIC || blocksCountLow !== (device.size / BLOCK_BYTES) % 2 ** 32) return undefined;
  return Buffer.from(uuid).toString("hex");
}
