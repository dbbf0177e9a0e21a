import { checkRange, type ByteSource } from "../bytes/source.ts";
import type { RegistryCall, RegistryClient } from "./client.ts";
import type { HttpResponse } from "./http.ts";
import { rangeHeader, readRangeAnswer, type ByteRange } from "./ranges.ts";
import { RegistryError } from "./registry-error.ts";

/**
 * Range reads of one blob. When the registry redirects to a storage, further reads go there directly, until the storage refuses:
 * signed addresses expire, and then the registry is asked for a new one.
 */
export class RegistryBlobSource implements ByteSource {
  readonly name: string;
  readonly size: number;
  readonly #client: RegistryClient;
  readonly #call: Omit<RegistryCall, "signal">;
  readonly #closed = new AbortController();
  readonly #signal: AbortSignal | undefined;
  #storage: URL | undefined;
  /** Where the registry's answers come from, for the accelerator. */
  #place: Promise<URL> | undefined;

  constructor(client: RegistryClient, call: Omit<RegistryCall, "expect" | "signal">, size: number) {
    this.#client = client;
    this.#signal = client.joinSignal(this.#closed.signal);
    this.#call = { ...call, expect: [200, 206] };
    this.name = call.what;
    this.size = size;
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    checkRange(this, offset, length);
    if (length === 0) return new Uint8Array(0);
    const range = { first: offset, last: offset + length - 1 };
    const attempt = async (): Promise<Uint8Array> =>
      (await this.#accelerated(range)) ?? (await readRangeAnswer(await this.#open(range), range, this.size));
    return await this.#client.backoff.run(attempt, { what: this.name, signal: this.#signal });
  }

  distrust(): void {
    this.#client.accelerator?.distrust(`gave wrong bytes of ${this.name}`);
  }

  async close(): Promise<void> {
    this.#closed.abort(new RegistryError("UNAVAILABLE", `${this.name}: was closed`, { url: this.name, retryable: false }));
  }

  /** Through the accelerator, which is told where the bytes really are; undefined if there is none that works. */
  async #accelerated(range: ByteRange): Promise<Uint8Array | undefined> {
    const { accelerator, origin } = this.#client;
    if (accelerator?.isUsable !== true) return undefined;
    const url = await (this.#place ??= this.#findPlace());
    const authorization = url.origin === origin.origin ? await this.#client.authorizationFor(this.#call.scopes) : undefined;
    const bytes = await accelerator.read(url, range, this.size, { authorization, signal: this.#signal });
    if (bytes === undefined) this.#place = undefined; // its address may have expired
    return bytes;
  }

  async #findPlace(): Promise<URL> {
    try {
      const response = await this.#client.open({ ...this.#call, headers: { range: "bytes=0-0" }, signal: this.#signal });
      await response.discard();
      return response.url;
    } catch (error) {
      this.#place = undefined;
      throw error;
    }
  }

  async #open(range: ByteRange): Promise<HttpResponse> {
    const call = { ...this.#call, headers: { ...this.#call.headers, range: rangeHeader(range) }, signal: this.#signal };
    const storage = this.#storage;
    if (storage) {
      try {
        return await this.#client.open({ ...call, url: storage });
      } catch (error) {
        const expired = error instanceof RegistryError && error.status !== undefined && error.status >= 400 && error.status < 500;
        if (!expired) throw error;
      }
    }
    const response = await this.#client.open(call);
    this.#storage = response.url.origin === this.#client.origin.origin ? undefined : response.url;
    return response;
  }
}
