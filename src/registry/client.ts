import type { Accelerator } from "./accelerator.ts";
import { Authenticator, type Scope } from "./auth.ts";
import type { ProxyOptions } from "./connections.ts";
import type { CredentialSource } from "./credentials.ts";
import { HttpClient, type HttpMethod, type HttpObserver, type HttpRequest, type HttpResponse } from "./http.ts";
import { isLoopback } from "./origin.ts";
import { explainPlainHttp } from "./plain-http.ts";
import { followRedirects } from "./redirect.ts";
import type { RegistryError } from "./registry-error.ts";
import { Backoff, type Attempted, type RetryPolicy } from "./retry.ts";
import { statusError } from "./status-error.ts";
import { DEFAULT_TIMEOUTS, type HttpTimeouts } from "./timeouts.ts";
import type { TlsOptions } from "./tls.ts";
import type { UploadJournal } from "./upload-journal.ts";

export interface RegistryOptions {
  /** Where the registry's API is, with the path before the repository, when that is not `/v2` at the reference's host. */
  readonly base?: URL | undefined;
  /** The registry that a mirror is asked on behalf of; sent with each request, for mirrors of several. */
  readonly namespace?: string | undefined;
  /** Sent to the registry itself and to nobody that it leads to. Names are lower case. */
  readonly headers?: Readonly<Record<string, string>> | undefined;
  /** Token services that may get credentials although they are not in the registry's domain: `host[:port]`. */
  readonly tokenServices?: readonly string[] | undefined;
  /** Plain HTTP. Undefined: only for loopback hosts. */
  readonly plainHttp?: boolean | undefined;
  readonly tls?: TlsOptions | undefined;
  readonly credentials?: CredentialSource | undefined;
  readonly proxy?: ProxyOptions | undefined;
  readonly observer?: HttpObserver | undefined;
  readonly timeouts?: Partial<HttpTimeouts> | undefined;
  readonly retry?: Partial<RetryPolicy> | undefined;
  /**
   * What a range read of a blob may take in all, with every try and pause, or the question for its size; not a read in the background.
   * Undefined: as long as these take.
   */
  readonly readBudgetMs?: number | undefined;
  /** Connections at once. Streams that are not read on keep theirs. */
  readonly connectionsPerHost?: number | undefined;
  /** Uploads in pieces of this size instead of one body. Undefined: with a journal, or when the registry refuses a body as too large. */
  readonly uploadChunkBytes?: number | undefined;
  /** Where large uploads are remembered, so that another process goes on with what this one leaves half-made. */
  readonly uploads?: UploadJournal | undefined;
  readonly userAgent?: string | undefined;
  /** Asked for ranges of blobs first; whoever made it closes it. */
  readonly accelerator?: Accelerator | undefined;
  /** Ends whatever is under way, with its reason. */
  readonly signal?: AbortSignal | undefined;
}

const DEFAULT_RETRY: RetryPolicy = { tries: 5, firstDelayMs: 200, maxDelayMs: 10_000, maxRetryAfterMs: 120_000 };

export interface RegistryCall extends Attempted {
  readonly method: HttpMethod;
  /** Absolute, or a path behind the `/v2` of the registry. */
  readonly url: URL | string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: HttpRequest["body"];
  readonly scopes: readonly Scope[];
  /** Any other status is an error. */
  readonly expect: readonly number[];
}

/** Talks to one registry about one repository: credentials, redirects and retries around the bare client. */
export class RegistryClient {
  readonly origin: URL;
  readonly backoff: Backoff;
  readonly accelerator: Accelerator | undefined;
  readonly readBudgetMs: number | undefined;
  readonly #base: URL;
  readonly #namespace: string | undefined;
  readonly #headers: Readonly<Record<string, string>>;
  readonly #http: HttpClient;
  readonly #auth: Authenticator;
  readonly #signal: AbortSignal | undefined;
  readonly #isPlainByDefault: boolean;
  readonly #isProxied: boolean;
  #hasAnswered = false;

  constructor(host: string, repository: string, options: RegistryOptions) {
    const plain = options.plainHttp ?? isLoopback(host);
    const observer = options.observer ?? {};
    this.#signal = options.signal;
    this.#isPlainByDefault = options.plainHttp === undefined && options.base === undefined;
    this.#isProxied = options.proxy?.http !== undefined;
    this.#base = options.base ?? new URL(`${plain ? "http" : "https"}://${host}/v2`);
    this.origin = new URL(this.#base.origin);
    this.#namespace = options.namespace;
    this.#headers = options.headers ?? {};
    this.accelerator = options.accelerator;
    this.readBudgetMs = options.readBudgetMs;
    this.backoff = new Backoff({ ...DEFAULT_RETRY, ...options.retry }, (pause) => observer.waiting?.(pause));
    this.#http = new HttpClient({
      timeouts: { ...DEFAULT_TIMEOUTS, ...options.timeouts },
      connectionsPerHost: options.connectionsPerHost ?? 16,
      home: this.origin,
      tls: options.tls ?? {},
      proxy: options.proxy,
      observer,
      userAgent: options.userAgent ?? "lazylayer",
    });
    this.#auth = new Authenticator(this.origin, repository, this.#http, options);
  }

  /** One exchange, repeated until `read` has what it wants from the answer or the failure is final. */
  async call<T>(call: RegistryCall, read: (response: HttpResponse) => Promise<T>): Promise<T> {
    return await this.backoff.run(async () => await read(await this.open(call)), { ...call, signal: call.signal ?? this.#signal });
  }

  /** One exchange, not repeated; the answer's body is the caller's. */
  async open(call: RegistryCall): Promise<HttpResponse> {
    const url = typeof call.url === "string" ? this.#resolve(call.url) : call.url;
    try {
      const response = url.origin === this.origin.origin ? await this.#sendAuthorized(call, url) : await this.#send(call, url, undefined);
      if (call.expect.includes(response.status)) return response;
      throw await statusError(response, call.what);
    } catch (error) {
      throw (await this.#explain(error)) ?? error;
    }
  }

  /** What the registry itself wants to see in requests that somebody else makes for us; undefined if it wants nothing. */
  async authorizationFor(scopes: readonly Scope[]): Promise<string | undefined> {
    return this.#auth.current(scopes) ?? (await this.#auth.renew(scopes));
  }

  /** Before a registry has answered over plain HTTP, its silence may mean that it wants TLS. Behind a proxy there is no telling. */
  async #explain(error: unknown): Promise<RegistryError | undefined> {
    if (this.#hasAnswered || this.origin.protocol !== "http:" || (this.#isProxied && !isLoopback(this.origin.host))) return undefined;
    return await explainPlainHttp(error, this.origin, this.#isPlainByDefault);
  }

  #resolve(path: string): URL {
    const url = new URL(`${this.#base.origin}${this.#base.pathname.replace(/\/$/, "")}${path}`);
    if (this.#namespace !== undefined) url.searchParams.set("ns", this.#namespace);
    return url;
  }

  /** Aborted when either the given signal or that of the options is; make one for each stream or source, not for each request. */
  joinSignal(signal: AbortSignal | undefined): AbortSignal | undefined {
    return signal && this.#signal ? AbortSignal.any([signal, this.#signal]) : (signal ?? this.#signal);
  }

  async close(): Promise<void> {
    await this.#http.close();
  }

  async #sendAuthorized(call: RegistryCall, url: URL): Promise<HttpResponse> {
    // A body that is read once is not offered to a registry that is known to refuse it.
    const used = this.#auth.current(call.scopes) ?? (isStream(call.body) ? await this.#auth.renew(call.scopes) : undefined);
    const response = await this.#send(call, url, used);
    const refused = response.status === 401 || response.status === 403;
    // Storage that a redirect led to must not be able to ask for credentials.
    if (!refused || response.url.origin !== this.origin.origin || isStream(call.body)) return response;
    const header = await this.#auth.answer(response, call.scopes, used);
    if (header === undefined) return response;
    await response.discard();
    return await this.#send(call, url, header);
  }

  async #send(call: RegistryCall, url: URL, authorization: string | undefined): Promise<HttpResponse> {
    const { method, body, signal = this.#signal } = call;
    const own = url.origin === this.origin.origin ? this.#headers : {};
    const headers = { ...own, ...call.headers, ...(authorization !== undefined && { authorization }) };
    const response = await followRedirects({ method, url, headers, body, signal }, (request) => this.#http.send(request));
    this.#hasAnswered ||= response.status !== 400;
    return response;
  }
}

/** A body that is read once cannot be sent again with other credentials; uploads start over instead. */
function isStream(body: HttpRequest["body"]): boolean {
  return body !== undefined && typeof body !== "string" && !(body instanceof Uint8Array);
}
