import { checkRange, type ByteSource } from "../bytes/source.ts";
import type { BlobSourceOptions } from "../oci/image-store.ts";
import type { RegistryCall, RegistryClient } from "./client.ts";
import { rangeHeader, readRangeAnswer, type ByteRange } from "./ranges.ts";
import { RegistryError } from "./registry-error.ts";
import type { Attempted } from "./retry.ts";
import { withinBudget } from "./time-budget.ts";

/** A storage that nobody has read from for so long may have moved, or its address may have expired. */
const STORAGE_IDLE_MS = 300_000;

/** Where a registry has redirected to. */
interface Storage {
  readonly url: URL;
  /** On the monotonic clock. */
  readonly usedAtMs: number;
}

/**
 * Range reads of one blob. When the registry redirects to a storage, further reads go there directly, until the storage fails in
 * whatever way or has not been read from for five minutes: signed addresses expire and storages move, and the registry knows where to.
 */
export class RegistryBlobSource implements ByteSource {
  readonly name: string;
  readonly size: number;
  readonly #client: RegistryClient;
  readonly #call: Omit<RegistryCall, "signal">;
  readonly #closed = new AbortController();
  readonly #signal: AbortSignal | undefined;
  readonly #budgetMs: number | undefined;
  #storage: Storage | undefined;
  /** Where the registry's answers come from, for the accelerator. */
  #place: Promise<URL> | undefined;

  constructor(client: RegistryClient, call: Omit<RegistryCall, "expect" | "signal">, size: number, options: BlobSourceOptions = {}) {
    this.#client = client;
    this.#signal = client.joinSignal(this.#closed.signal);
    this.#budgetMs = options.inBackground === true ? undefined : client.readBudgetMs;
    this.#call = { ...call, expect: [200, 206] };
    this.name = call.what;
    this.size = size;
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    checkRange(this, offset, length);
    if (length === 0) return new Uint8Array(0);
    const range = { first: offset, last: offset + length - 1 };
    const read = { what: this.name, signal: this.#signal };
    return await withinBudget(this.#budgetMs, read, async (attempted) => await this.#read(range, attempted));
  }

  async #read(range: ByteRange, attempted: Attempted): Promise<Uint8Array> {
    const { signal } = attempted;
    return await this.#client.backoff.run(
      async () =>
        (await this.#accelerated(range, signal)) ??
        (await this.#fromStorage(range, signal)) ??
        (await this.#fetch(range, undefined, signal)),
      attempted,
    );
  }

  distrust(): void {
    this.#storage = undefined;
    this.#client.accelerator?.distrust(this.name);
  }

  async close(): Promise<void> {
    this.#closed.abort(new RegistryError("UNAVAILABLE", `${this.name}: was closed`, { url: this.name, retryable: false }));
  }

  /** Through the accelerator, which is told where the bytes really are; undefined if there is none that works. */
  async #accelerated(range: ByteRange, signal: AbortSignal | undefined): Promise<Uint8Array | undefined> {
    const { accelerator, origin } = this.#client;
    if (accelerator?.admits() !== true) return undefined;
    const url = await (this.#place ??= this.#findPlace());
    const authorization = url.origin === origin.origin ? await this.#client.authorizationFor(this.#call.scopes) : undefined;
    const bytes = await accelerator.read(url, range, this.size, { authorization, signal });
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

  /** From where the registry redirected before; undefined if that is not known or fails. */
  async #fromStorage(range: ByteRange, signal: AbortSignal | undefined): Promise<Uint8Array | undefined> {
    const storage = this.#storage;
    if (storage === undefined || performance.now() - storage.usedAtMs >= STORAGE_IDLE_MS) return undefined;
    try {
      return await this.#fetch(range, storage.url, signal);
    } catch {
      // Only what the registry says now is worth an error, or a wait.
      return undefined;
    }
  }

  /** From `storage`, or from where the registry leads, which is kept as long as it gives what was asked for. */
  async #fetch(range: ByteRange, storage: URL | undefined, signal: AbortSignal | undefined): Promise<Uint8Array> {
    const headers = { ...this.#call.headers, range: rangeHeader(range) };
    let url = storage;
    try {
      const response = await this.#client.open({ ...this.#call, ...(storage && { url: storage }), headers, signal });
      url = response.url;
      this.#keep(url);
      return await readRangeAnswer(response, range, this.size);
    } catch (error) {
      // Reads run side by side: another one may have been led elsewhere meanwhile.
      if (this.#storage?.url.href === url?.href) this.#storage = undefined;
      throw error;
    }
  }

  #keep(url: URL): void {
    this.#storage = url.origin === this.#client.origin.origin ? undefined : { url, usedAtMs: performance.now() };
  }
}
