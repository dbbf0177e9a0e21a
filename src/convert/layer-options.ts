import { fingerprintOf } from "../dedup/fingerprint.ts";
import type { Digest } from "../oci/digest.ts";
import type { BaseLayer } from "./base-layer.ts";
import type { ConvertOptions, ConvertTarget } from "./convert-options.ts";
import type { FilesystemType, ImageFormat } from "./image-format.ts";
import { filesystemUuidOf } from "./layer-identity.ts";
import { PAYLOAD_BLOCK_BYTES } from "./payload-packer.ts";

/** Whatever changes the bytes of layers, besides the layers themselves. */
export interface LayerOptions {
  readonly format: ImageFormat;
  readonly filesystem: FilesystemType;
  /** Size of the device in bytes. */
  readonly virtualSize: number;
  /** Equal for runs that make the same bytes of the same layers. */
  readonly fingerprint: string;
  /** The same for layers on top of others that are not ours; `below` names those. */
  readonly fingerprintOn: (below: Digest) => string;
  /** UUID of the filesystem, in hex, that the standalone convertor gives images with these options; undefined if it makes none of these. */
  readonly foreignFilesystem: string | undefined;
}

/** To be raised with every change after which the same input gives other bytes; a test holds it against known digests. */
const FORMAT_VERSIONS: Readonly<Record<ImageFormat, number>> = { overlaybd: 2, turbo: 1 };

/** The standalone convertor makes filesystems without a UUID. */
const NO_UUID = "00".repeat(16);

type Options = Pick<ConvertOptions, "filesystem" | "virtualSize" | "base">;

/** For each target. */
export async function layerOptionsOf(targets: readonly Pick<ConvertTarget, "format">[], options: Options): Promise<LayerOptions[]> {
  const all = await Promise.all(targets.map(async ({ format }) => await layerOptions(format, options)));
  // On another tool's layers stands another filesystem, but all targets of a run share one.
  return all.length === 1 ? all : all.map((each) => ({ ...each, foreignFilesystem: undefined }));
}

async function layerOptions(format: ImageFormat, { filesystem, virtualSize, base }: Options): Promise<LayerOptions> {
  const fingerprintOn = (below: "mkfs" | Digest): string =>
    fingerprintOf({
      format,
      formatVersion: FORMAT_VERSIONS[format],
      filesystem,
      virtualSize,
      base: below,
      algorithm: "lz4",
      blockSize: PAYLOAD_BLOCK_BYTES,
    });
  return {
    format,
    filesystem,
    virtualSize,
    fingerprint: fingerprintOn(base ? base.descriptor.digest : "mkfs"),
    fingerprintOn,
    foreignFilesystem: format === "overlaybd" && filesystem === "ext4" ? await foreignFilesystem(base) : undefined,
  };
}

async function foreignFilesystem(base: BaseLayer | undefined): Promise<string | undefined> {
  return base ? await filesystemUuidOf(base.device) : NO_UUID;
}
