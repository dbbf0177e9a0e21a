import { compressBlocks } from "../compression/block-codec.ts";
import { LazyError, messageOf } from "../errors.ts";
import { openThreadPort } from "../workers/thread-port.ts";
import { scanLayer, type ScanOptions } from "./layer-scan.ts";
import { PAYLOAD_BLOCK_BYTES } from "./payload-packer.ts";
import {
  BATCH_BUFFER_BYTES,
  MAX_WAITING_BATCHES,
  PAYLOAD_ALGORITHM,
  type ScanReply,
  type ScanRequest,
  type ThreadError,
} from "./scan-messages.ts";

/** One thread of `ScanThreads`: the data pass over some layers, and blocks to compress for the other threads. */
const port = openThreadPort<ScanRequest, ScanReply>(receive);
/** Batches that idle threads would take; a scan that finds none compresses its payload itself. */
const offers = new Int32Array(port.data as SharedArrayBuffer);
const scans = new Map<number, RunningScan>();
/** Buffers for payload and for what it is compressed to. */
const spares: ArrayBuffer[] = [];
const MAX_SPARES = 8;

function receive(request: ScanRequest): void {
  const { kind, id } = request;
  if (kind === "scan") void scan(id, request.name, request.options);
  else if (kind === "compress") compress(request);
  else scans.get(id)?.receive(request);
}

async function scan(id: number, name: string, options: ScanOptions): Promise<void> {
  const running = new RunningScan(id);
  scans.set(id, running);
  try {
    const put = async (payload: Buffer<ArrayBuffer>): Promise<void> => await running.put(payload);
    const { entries, payloadBlocks, diffId, index } = await scanLayer(running.stored(), name, put, spareBuffer, options);
    const chunks = entries.chunks();
    port.post(
      { kind: "scanned", id, entries: chunks, payloadBlocks, diffId, index },
      chunks.map((chunk) => chunk.buffer),
    );
  } catch (error) {
    port.post({ kind: "scan failed", id, error: threadError(error) });
  } finally {
    scans.delete(id);
  }
}

function spareBuffer(): ArrayBuffer {
  return spares.pop() ?? new ArrayBuffer(BATCH_BUFFER_BYTES);
}

function keepSpare(buffer: ArrayBuffer | undefined): void {
  if (buffer?.byteLength === BATCH_BUFFER_BYTES && spares.length < MAX_SPARES) spares.push(buffer);
}

function compress({ id, algorithm, blockSize, buffer, bytes, spare }: Extract<ScanRequest, { kind: "compress" }>): void {
  try {
    const result = compressBlocks(algorithm, new Uint8Array(buffer, 0, bytes), blockSize, spare);
    port.post({ kind: "compressed", id, buffer, result }, [buffer, result.bytes.buffer, result.storedBytes.buffer]);
  } catch (error) {
    port.post({ kind: "compressed", id, buffer, result: threadError(error) }, [buffer]);
  }
}

/** What a scan and the thread that asked for it have to say to each other. */
class RunningScan {
  readonly #id: number;
  readonly #stored: { readonly buffer: ArrayBuffer; readonly bytes: number }[] = [];
  #hasEnded = false;
  #isDropped = false;
  #waitingBatches = 0;
  #wake = (): void => {};

  constructor(id: number) {
    this.#id = id;
  }

  receive(request: Extract<ScanRequest, { kind: "stored" | "end" | "drop" | "put" }>): void {
    switch (request.kind) {
      case "stored":
        this.#stored.push(request);
        break;
      case "end":
        this.#hasEnded = true;
        break;
      case "drop":
        this.#isDropped = true;
        break;
      case "put":
        this.#waitingBatches--;
        keepSpare(request.spare);
        break;
    }
    this.#wake();
  }

  /** The layer as it is stored; a piece is used up when the next one is asked for. */
  async *stored(): AsyncGenerator<Uint8Array, void> {
    for (;;) {
      await this.#until(() => this.#stored.length > 0 || this.#hasEnded);
      const piece = this.#stored.shift();
      if (!piece) return;
      yield new Uint8Array(piece.buffer, 0, piece.bytes);
      port.post({ kind: "taken", id: this.#id, buffer: piece.buffer }, [piece.buffer]);
    }
  }

  /** Sends payload on, compressed unless another thread has nothing to do. */
  async put(payload: Buffer<ArrayBuffer>): Promise<void> {
    await this.#until(() => this.#waitingBatches < MAX_WAITING_BATCHES);
    this.#waitingBatches++;
    const id = this.#id;
    if (takeOffer()) {
      port.post({ kind: "payload", id, buffer: payload.buffer, bytes: payload.length }, [payload.buffer]);
      return;
    }
    const payloadBytes = payload.length;
    const batch = compressBlocks(PAYLOAD_ALGORITHM, payload, PAYLOAD_BLOCK_BYTES, spareBuffer());
    port.post({ kind: "batch", id, batch, payloadBytes }, [batch.bytes.buffer, batch.storedBytes.buffer]);
    keepSpare(payload.buffer);
  }

  async #until(isSo: () => boolean): Promise<void> {
    for (;;) {
      if (this.#isDropped) throw new LazyError("UNAVAILABLE", "the scan was dropped");
      if (isSo()) return;
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
  }
}

function takeOffer(): boolean {
  for (;;) {
    const offered = Atomics.load(offers, 0);
    if (offered <= 0) return false;
    if (Atomics.compareExchange(offers, 0, offered, offered - 1) === offered) return true;
  }
}

function threadError(error: unknown): ThreadError {
  return { code: error instanceof LazyError ? error.code : "UNAVAILABLE", message: messageOf(error) };
}
