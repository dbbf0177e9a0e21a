import type { BlockDevice } from "../../bytes/block-device.ts";
import type { ByteSource } from "../../bytes/source.ts";
import type { SyncReaderModule } from "../fuse/sync-reader.ts";
import { MAX_PAYLOAD_BYTES, TRANSMISSION_FLAGS } from "./protocol.ts";

/** A stretch of a device that is all data, or all zeros that nothing is stored for. */
export interface Extent {
  readonly bytes: number;
  readonly isHole: boolean;
}

/** What a server shows to its clients. */
export interface NbdExport {
  /** Clients ask for it by this name, or by the empty one. */
  readonly name: string;
  /** Can be written if it has a `write`. */
  readonly content: ByteSource | BlockDevice;
  /** Answers reads of what is cached at once; without it every read goes through `content`. */
  readonly reader?: SyncReaderModule | undefined;
  /** The stretch that begins at an offset inside of the device; without it everything counts as data. */
  readonly extentAt?: ((offset: number) => Extent) | undefined;
}

/** Parts of a sector are not written: nobody could do that at once. */
const WRITE_BLOCK_BYTES = 512;
const PREFERRED_BLOCK_BYTES = 4096;

export function writableOf({ content }: NbdExport): BlockDevice | undefined {
  return "write" in content ? content : undefined;
}

export interface BlockSizes {
  readonly minimum: number;
  readonly preferred: number;
  readonly maximum: number;
}

/** Requests have to be multiples of `minimum`. */
export function blockSizesOf(served: NbdExport): BlockSizes {
  const minimum = writableOf(served) === undefined ? 1 : WRITE_BLOCK_BYTES;
  return { minimum, preferred: PREFERRED_BLOCK_BYTES, maximum: MAX_PAYLOAD_BYTES };
}

/** All connections reach one device, so what one has flushed is flushed for all. */
export function transmissionFlags(served: NbdExport, structured: boolean): number {
  const { HAS_FLAGS, CAN_MULTI_CONN, SEND_FLUSH, SEND_DF, READ_ONLY, SEND_FUA, SEND_TRIM, SEND_WRITE_ZEROES, SEND_FAST_ZERO } =
    TRANSMISSION_FLAGS;
  const always = HAS_FLAGS | CAN_MULTI_CONN | SEND_FLUSH | (structured ? SEND_DF : 0);
  if (writableOf(served) === undefined) return always | READ_ONLY;
  return always | SEND_FUA | SEND_TRIM | SEND_WRITE_ZEROES | SEND_FAST_ZERO;
}
