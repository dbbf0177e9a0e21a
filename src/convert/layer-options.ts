import { fingerprintOf } from "../dedup/fingerprint.ts";
import type { Digest } from "../oci/digest.ts";
import type { BaseLayer } from "./base-layer.ts";
import { filesystemUuidOf } from "./layer-identity.ts";
import { PAYLOAD_BLOCK_BYTES } from "./payload-packer.ts";

/** Whatever changes the bytes of layers, besides the layers themselves. */
export interface LayerOptions {
  /** Size of the device in bytes. */
  readonly virtualSize: number;
  /** Equal for runs that make the same bytes of the same layers. */
  readonly fingerprint: string;
  /** The same for layers on top of others that are not ours; `below` names those. */
  readonly fingerprintOn: (below: Digest) => string;
  /** UUID of the filesystem, in hex, that the standalone convertor gives images with these options. */
  readonly foreignFilesystem: string | undefined;
}

/** To be raised with every change after which the same input gives other bytes; a test holds it against known digests. */
const FORMAT_VERSION = 2;

/** The standalone convertor makes filesystems without a UUID. */
const NO_UUID = "00".repeat(16);

export async function layerOptions(virtualSize: number, base: BaseLayer | undefined): Promise<LayerOptions> {
  const fingerprintOn = (below: "mkfs" | Digest): string =>
    fingerprintOf({
      format: "overlaybd",
      formatVersion: FORMAT_VERSION,
      filesystem: "ext4",
      virtualSize,
      base: below,
      algorithm: "lz4",
      blockSize: PAYLOAD_BLOCK_BYTES,
    });
  return {
    virtualSize,
    fingerprint: fingerprintOn(base ? base.blob.digest : "mkfs"),
    fingerprintOn,
    foreignFilesystem: base ? await filesystemUuidOf(base.device) : NO_UUID,
  };
}
