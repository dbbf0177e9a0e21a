import { FileSource } from "../bytes/file.ts";
import { MemorySource, type ByteSource } from "../bytes/source.ts";
import { LazyError } from "../errors.ts";
import { openLayer } from "../formats/lsmt/lsmt-reader.ts";
import { stackLayers } from "../formats/lsmt/stack.ts";
import { openZFile } from "../formats/zfile/zfile-reader.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import { digestOf } from "../oci/digest.ts";
import type { MediaTypeFamily } from "../oci/media-types.ts";
import { payloadTail } from "../tar/payload.ts";
import { overlaybdDescriptor, type FilesystemType } from "./image-format.ts";
import type { OutputLayer } from "./output-image.ts";

/** A layer with an empty filesystem to build on, instead of a new one. */
export interface BaseLayer {
  /** Digest and size of the layer as it is stored in an image: in a tar. */
  readonly descriptor: Pick<Descriptor, "digest" | "size">;
  readonly content: ByteSource;
  /** Its filesystem. */
  readonly device: ByteSource;
}

const MAX_BASE_BYTES = 256 << 20;

/** Opens a base layer file: a bare overlaybd layer, without a tar around it. Closing `device` closes it. */
export async function openBaseLayer(path: string): Promise<BaseLayer> {
  const file = await openExisting(path);
  if (file.size > MAX_BASE_BYTES)
    throw new LazyError("UNSUPPORTED", `${path}: a base layer of ${file.size} bytes, expected at most ${MAX_BASE_BYTES}`);
  const content = await file.read(0, file.size);
  const blob = Buffer.concat([memberHeader(content.length), content, payloadTail(content.length)]);
  const device = stackLayers([await openLayer(await openZFile(file))]);
  return { descriptor: { digest: digestOf(blob), size: blob.length }, content: new MemorySource(blob, path), device };
}

/** The base layer in an image, whatever the form of the layers above it. */
export function baseLayerOf({ descriptor }: BaseLayer, family: MediaTypeFamily, filesystem: FilesystemType): OutputLayer {
  return { descriptor: overlaybdDescriptor(descriptor, family, filesystem), diffId: descriptor.digest };
}

/** The ustar header of a member `overlaybd.commit`, 0444 and owned by root, whose checksum counts its own field as spaces. */
function memberHeader(bytes: number): Uint8Array {
  const header = Buffer.alloc(512);
  const octal = (value: number, width: number): string => `${value.toString(8).padStart(width, "0")}\0`;
  header.write("overlaybd.commit", 0, "latin1");
  header.write(octal(0o444, 7) + octal(0, 7) + octal(0, 7) + octal(bytes, 11) + octal(0, 11), 100, "latin1");
  header.write(`        0`, 148, "latin1");
  header.write("ustar\x0000", 257, "latin1");
  header.write(octal(0, 7) + octal(0, 7), 329, "latin1");
  const sum = header.reduce((total, byte) => total + byte, 0);
  header.write(`${octal(sum, 6)} `, 148, "latin1");
  return header;
}

async function openExisting(path: string): Promise<FileSource> {
  try {
    return await FileSource.open(path);
  } catch (error) {
    throw new LazyError("NOT_FOUND", `base layer ${path} cannot be opened; put it there or let the filesystem be made (--mkfs)`, {
      cause: error,
    });
  }
}
