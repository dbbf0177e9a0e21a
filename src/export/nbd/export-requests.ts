import { setImmediate as otherWork } from "node:timers/promises";
import type { BlockDevice } from "../../bytes/block-device.ts";
import { LazyError } from "../../errors.ts";
import { loadSyncReader, type SyncReader } from "../fuse/sync-reader.ts";
import { BufferPool } from "./buffer-pool.ts";
import { writableOf, type NbdExport } from "./nbd-export.ts";
import { encodeExtents, encodeSimpleReply, startReadReply } from "./replies.ts";
import type { Request } from "./requests.ts";

/** Reads of the cache hold up everything else in the process, so no more is read in one go. */
const READ_NOW_BYTES = 2 ** 20;
/** As much as one connection may use. */
const POOL_BYTES = 32 * 2 ** 20;
const ZEROS = Buffer.alloc(2 ** 20);

/** What clients have read and written. */
export interface NbdCounts {
  /** Reads that were answered at once, from the cache. */
  cachedReads: number;
  cachedBytes: number;
  /** Reads that waited for something. */
  fetchedReads: number;
  fetchedBytes: number;
  writes: number;
  writtenBytes: number;
  /** Requests that failed although there was nothing wrong with them. */
  failed: number;
}

type ReadRequest = Extract<Request, { kind: "read" }>;

/** Carries out the requests of all clients of an export. */
export class ExportRequests {
  readonly served: NbdExport;
  readonly counts: NbdCounts = { cachedReads: 0, cachedBytes: 0, fetchedReads: 0, fetchedBytes: 0, writes: 0, writtenBytes: 0, failed: 0 };
  /** Holds what is read and what is to be written. */
  readonly pool = new BufferPool(POOL_BYTES);
  readonly #reader: SyncReader | undefined;

  private constructor(served: NbdExport, reader: SyncReader | undefined) {
    this.served = served;
    this.#reader = reader;
  }

  static async open(served: NbdExport): Promise<ExportRequests> {
    return new ExportRequests(served, served.reader && (await loadSyncReader(served.reader)));
  }

  /** The reply to a read of what is cached; undefined if there is waiting to do. */
  readNow(request: ReadRequest, structured: boolean): Uint8Array | undefined {
    const { offset, length } = request;
    if (this.#reader === undefined || length > READ_NOW_BYTES) return undefined;
    const { reply, data } = startReadReply(request, structured, this.pool);
    if (!this.#reader.readCached(offset, data)) {
      this.pool.give(reply);
      return undefined;
    }
    this.counts.cachedReads++;
    this.counts.cachedBytes += length;
    return reply;
  }

  /** The reply to any request; `data` is what is to be written. Throws what the device throws. */
  async carryOut(request: Request, structured: boolean, data: Uint8Array | undefined): Promise<Uint8Array> {
    const { cookie } = request;
    switch (request.kind) {
      case "read":
        return await this.#read(request, structured);
      case "extents":
        return this.#extents(request);
      case "flush":
        await writableOf(this.served)?.flush();
        return encodeSimpleReply(cookie);
      default:
        await this.#modify(request, data);
        return encodeSimpleReply(cookie);
    }
  }

  async #read(request: ReadRequest, structured: boolean): Promise<Uint8Array> {
    const { offset, length } = request;
    const { reply, data } = startReadReply(request, structured, this.pool);
    const cached = length > READ_NOW_BYTES ? await this.#readCachedPieces(offset, data) : 0;
    const { content } = this.served;
    const missing = data.subarray(cached);
    if (missing.length > 0) {
      if (content.readInto) await content.readInto(offset + cached, missing);
      else missing.set(await content.read(offset + cached, missing.length));
    }
    this.counts.fetchedReads++;
    this.counts.fetchedBytes += length;
    return reply;
  }

  /** Fills `target` from its front as far as everything is cached, and answers how far that is. */
  async #readCachedPieces(offset: number, target: Uint8Array): Promise<number> {
    let filled = 0;
    while (filled < target.length && this.#reader?.readCached(offset + filled, target.subarray(filled, filled + READ_NOW_BYTES))) {
      filled = Math.min(filled + READ_NOW_BYTES, target.length);
      await otherWork();
    }
    return filled;
  }

  #extents({ cookie, offset, length, onlyOne }: Extract<Request, { kind: "extents" }>): Uint8Array {
    const { extentsOf, content } = this.served;
    if (extentsOf === undefined) throw new LazyError("UNSUPPORTED", `${content.name}: what of it is stored is not known`);
    return encodeExtents(cookie, offset, length, onlyOne, extentsOf);
  }

  async #modify(request: Extract<Request, { kind: "write" | "trim" | "zero" }>, data: Uint8Array | undefined): Promise<void> {
    const device = writableOf(this.served);
    if (device === undefined) throw new LazyError("UNSUPPORTED", `${this.served.content.name}: is read-only`);
    const { offset, length, flush } = request;
    if (request.kind === "write" && data !== undefined) await device.write(offset, data);
    else if (request.kind === "zero" && !request.mayDiscard) await writeZeros(device, offset, length);
    else if (length > 0) await device.discard(offset, length);
    if (flush) await device.flush();
    this.counts.writes++;
    this.counts.writtenBytes += data?.length ?? 0;
  }
}

async function writeZeros(device: BlockDevice, offset: number, length: number): Promise<void> {
  for (let done = 0; done < length; done += ZEROS.length) {
    await device.write(offset + done, ZEROS.subarray(0, Math.min(ZEROS.length, length - done)));
  }
}
