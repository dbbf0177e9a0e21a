import { messageOf } from "../errors.ts";
import { HttpClient } from "./http.ts";
import { rangeHeader, readRangeAnswer, type ByteRange } from "./ranges.ts";

export interface AcceleratorOptions {
  readonly userAgent?: string | undefined;
  /** How long it is left alone after a failure. */
  readonly pauseMs?: number | undefined;
  /** Told of failures. */
  readonly notice?: ((message: string) => void) | undefined;
}

/** It is close, and there is the registry to fall back on. */
const TIMEOUTS = { connectMs: 1000, answerMs: 10_000, commitMs: 10_000, stallMs: 10_000 };
const PAUSE_MS = 10_000;
const CONNECTIONS = 16;

/** A peer-to-peer proxy that is asked for ranges of blobs by its address, a slash, and the whole URL of the blob. */
export class Accelerator {
  readonly #address: string;
  readonly #http: HttpClient;
  readonly #pauseMs: number;
  readonly #notice: (message: string) => void;
  #usableAtMs = 0;

  /** `address` is where requests go, e.g. `http://localhost:9731/accelerator`. */
  constructor(address: URL, { userAgent = "lazylayer", pauseMs = PAUSE_MS, notice = () => {} }: AcceleratorOptions = {}) {
    this.#address = address.href.replace(/\/$/, "");
    this.#http = new HttpClient({ timeouts: TIMEOUTS, connectionsPerHost: CONNECTIONS, home: address, tls: {}, observer: {}, userAgent });
    this.#pauseMs = pauseMs;
    this.#notice = notice;
  }

  /** False for a while after a failure. */
  get isUsable(): boolean {
    return performance.now() >= this.#usableAtMs;
  }

  /** A range of the blob of `size` bytes at `url`; undefined if the proxy fails at it in whatever way, and so has to be gone around. */
  async read(
    url: URL,
    range: ByteRange,
    size: number,
    { authorization, signal }: { readonly authorization: string | undefined; readonly signal: AbortSignal | undefined },
  ): Promise<Uint8Array | undefined> {
    const headers = { range: rangeHeader(range), ...(authorization !== undefined && { authorization }) };
    try {
      const response = await this.#http.send({ method: "GET", url: new URL(`${this.#address}/${url.href}`), headers, signal });
      return await readRangeAnswer(response, range, size);
    } catch (error) {
      signal?.throwIfAborted();
      this.distrust(messageOf(error));
      return undefined;
    }
  }

  /** Leaves it alone for a while, for that reason. Does nothing while it is left alone. */
  distrust(reason: string): void {
    if (!this.isUsable) return;
    this.#usableAtMs = performance.now() + this.#pauseMs;
    this.#notice(`${this.#address}: ${withoutQueries(reason)}; the registry is asked directly`);
  }

  async close(): Promise<void> {
    await this.#http.close();
  }
}

/** Queries of storages hold signatures. */
function withoutQueries(text: string): string {
  return text.replace(/\?\S*/g, "");
}
