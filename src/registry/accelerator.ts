import { messageOf } from "../errors.ts";
import { HttpClient } from "./http.ts";
import { rangeHeader, readRangeAnswer, type ByteRange } from "./ranges.ts";
import { Setbacks } from "./setbacks.ts";
import { withinBudget } from "./time-budget.ts";
import { timeoutsOf } from "./timeouts.ts";

export interface AcceleratorOptions {
  readonly userAgent?: string | undefined;
  /** How long it may take for a range. */
  readonly patienceMs?: number | undefined;
  /** Told of failures. */
  readonly notice?: ((message: string) => void) | undefined;
}

/** It is close, and there is the registry to fall back on. */
const CONNECT_MS = 1000;
const PATIENCE_MS = 10_000;
const CONNECTIONS = 16;

/** A peer-to-peer proxy that is asked for ranges of blobs by its address, a slash, and the whole URL of the blob. */
export class Accelerator {
  readonly #address: string;
  readonly #http: HttpClient;
  readonly #patienceMs: number;
  readonly #notice: (message: string) => void;
  readonly #setbacks = new Setbacks<Accelerator>();

  /** `address` is where requests go, e.g. `http://localhost:9731/accelerator`. */
  constructor(address: URL, { userAgent = "lazylayer", patienceMs = PATIENCE_MS, notice = () => {} }: AcceleratorOptions = {}) {
    this.#address = address.href.replace(/\/$/, "");
    const timeouts = { ...timeoutsOf(patienceMs), connectMs: CONNECT_MS };
    this.#http = new HttpClient({ timeouts, connectionsPerHost: CONNECTIONS, home: address, tls: {}, observer: {}, userAgent });
    this.#patienceMs = patienceMs;
    this.#notice = notice;
  }

  /** Whether the caller may ask it now: nobody for a while after a failure, and then one who tries. */
  admits(): boolean {
    return this.#setbacks.admits(this);
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
      const bytes = await withinBudget(this.#patienceMs, { what: headers.range, signal }, async (limited) => {
        const request = { method: "GET", url: new URL(`${this.#address}/${url.href}`), headers, signal: limited.signal } as const;
        return await readRangeAnswer(await this.#http.send(request), range, size);
      });
      this.#setbacks.succeeded(this);
      return bytes;
    } catch (error) {
      signal?.throwIfAborted();
      if (this.#setbacks.failed(this)) this.#tell(messageOf(error));
      return undefined;
    }
  }

  /** Bytes of `what` were wrong: leaves it alone for longer, unless it is left alone, as they are somebody else's then. */
  distrust(what: string): void {
    if (this.#setbacks.isLeftOut(this)) return;
    this.#setbacks.gaveWrongBytes(this);
    this.#tell(`gave wrong bytes of ${what}`);
  }

  #tell(reason: string): void {
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
