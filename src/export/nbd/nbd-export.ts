import type { BlockDevice } from "../../bytes/block-device.ts";
import type { ByteSource } from "../../bytes/source.ts";
import type { SyncReaderModule } from "../fuse/sync-reader.ts";
import { TRANSMISSION_FLAGS } from "./protocol.ts";

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
  /** The stretches that a range is made of, from its front and without gaps; without it everything counts as data. */
  readonly extentsOf?: ((offset: number, length: number) => readonly Extent[]) | undefined;
}

export function writableOf({ content }: NbdExport): BlockDevice | undefined {
  return "write" in content ? content : undefined;
}

/** All connections reach one device, so what one has flushed is flushed for all. */
export function transmissionFlags(served: NbdExport, structured: boolean): number {
  const { HAS_FLAGS, CAN_MULTI_CONN, SEND_FLUSH, SEND_DF, READ_ONLY, SEND_FUA, SEND_TRIM, SEND_WRITE_ZEROES, SEND_FAST_ZERO } =
    TRANSMISSION_FLAGS;
  const always = HAS_FLAGS | CAN_MULTI_CONN | SEND_FLUSH | (structured ? SEND_DF : 0);
  if (writableOf(served) === undefined) return always | READ_ONLY;
  return always | SEND_FUA | SEND_TRIM | SEND_WRITE_ZEROES | SEND_FAST_ZERO;
}
