import { Readable } from "node:stream";
import { Agent, EnvHttpProxyAgent, request, type Dispatcher } from "undici";
import { corrupt } from "../errors.ts";
import { networkError } from "./network-error.ts";
import { brokenTransfer, redactUrl } from "./registry-error.ts";

export type HttpMethod = "GET" | "HEAD" | "POST" | "PUT" | "PATCH";

export interface HttpRequest {
  readonly method: HttpMethod;
  readonly url: URL;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: Uint8Array | string | AsyncIterable<Uint8Array> | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** The body must be read to its end, left early (which closes the connection) or given to `discard`. */
export interface HttpResponse {
  readonly status: number;
  /** Where the answer came from, after redirects. */
  readonly url: URL;
  header(name: string): string | undefined;
  /** Throws `RegistryError`. */
  readonly body: AsyncIterable<Uint8Array>;
  discard(): Promise<void>;
}

export interface HttpTimeouts {
  /** Connecting, with TLS. */
  readonly connectMs: number;
  /** From the end of a request to the head of its answer. */
  readonly answerMs: number;
  /** The same for requests that end an upload: registries hash and move the blob meanwhile. */
  readonly commitMs: number;
  /** Between two pieces of a body. */
  readonly stallMs: number;
}

/** As in `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`. Loopback hosts are never asked through a proxy. */
export interface ProxyOptions {
  readonly http?: string | undefined;
  readonly https?: string | undefined;
  readonly no?: string | undefined;
}

/** Called as it happens; must not throw. */
export interface HttpObserver {
  /** A request was answered; status is 0 if it was not. The URL holds no secrets. */
  answered?(exchange: { readonly method: HttpMethod; readonly url: string; readonly status: number }): void;
  /** Body bytes arrived. */
  received?(bytes: number): void;
  /** Body bytes were handed to the connection. */
  sent?(bytes: number): void;
  /** A failed try is followed by another one. */
  waiting?(pause: { readonly milliseconds: number; readonly reason: string }): void;
}

export interface HttpOptions {
  readonly timeouts: HttpTimeouts;
  /** Connections to one host; requests beyond them queue. */
  readonly connectionsPerHost: number;
  /** Skips TLS verification. */
  readonly insecure: boolean;
  readonly proxy?: ProxyOptions | undefined;
  readonly observer: HttpObserver;
  readonly userAgent: string;
}

/** One request, one answer: no retries, no redirects, no credentials. */
export class HttpClient {
  readonly #options: HttpOptions;
  readonly #dispatcher: Dispatcher;

  constructor(options: HttpOptions) {
    this.#options = options;
    this.#dispatcher = openDispatcher(options);
  }

  /** Throws `RegistryError` if no answer came, and the signal's reason if it was aborted. */
  async send(what: HttpRequest): Promise<HttpResponse> {
    const { timeouts, observer, userAgent } = this.#options;
    try {
      const answer = await request(what.url, {
        dispatcher: this.#dispatcher,
        method: what.method,
        // Content codings would change the bytes whose digest was promised.
        headers: { "user-agent": userAgent, "accept-encoding": "identity", ...what.headers },
        body: requestBody(what.body, observer),
        signal: what.signal ?? null,
        headersTimeout: what.method === "PUT" ? timeouts.commitMs : timeouts.answerMs,
        bodyTimeout: timeouts.stallMs,
      });
      observer.answered?.({ method: what.method, url: redactUrl(what.url), status: answer.statusCode });
      return new Answer(what, answer, observer);
    } catch (error) {
      what.signal?.throwIfAborted();
      observer.answered?.({ method: what.method, url: redactUrl(what.url), status: 0 });
      throw networkError(what.url, error);
    }
  }

  async close(): Promise<void> {
    await this.#dispatcher.destroy();
  }
}

class Answer implements HttpResponse {
  readonly status: number;
  readonly url: URL;
  readonly #request: HttpRequest;
  readonly #answer: Dispatcher.ResponseData;
  readonly #observer: HttpObserver;

  constructor(what: HttpRequest, answer: Dispatcher.ResponseData, observer: HttpObserver) {
    this.status = answer.statusCode;
    this.url = what.url;
    this.#request = what;
    this.#answer = answer;
    this.#observer = observer;
  }

  header(name: string): string | undefined {
    const value = this.#answer.headers[name];
    return Array.isArray(value) ? value.join(", ") : value;
  }

  get body(): AsyncIterable<Uint8Array> {
    return this.#read();
  }

  async *#read(): AsyncGenerator<Uint8Array> {
    const chunks: AsyncIterable<unknown> = this.#answer.body;
    try {
      for await (const chunk of chunks) {
        if (!(chunk instanceof Uint8Array)) throw brokenTransfer(this.url, "body is not bytes");
        this.#observer.received?.(chunk.length);
        yield chunk;
      }
    } catch (error) {
      this.#request.signal?.throwIfAborted();
      throw networkError(this.url, error);
    }
  }

  async discard(): Promise<void> {
    // A connection that breaks while an unwanted body is read harms nobody: the answer has been used already.
    await this.#answer.body.dump({ limit: 64 << 10 }).catch(() => undefined);
  }
}

function openDispatcher(options: HttpOptions): Dispatcher {
  const tls = { rejectUnauthorized: !options.insecure };
  const shared = {
    connections: options.connectionsPerHost,
    allowH2: false,
    connect: { ...tls, timeout: options.timeouts.connectMs },
    requestTls: tls,
  };
  const { http, https, no } = options.proxy ?? {};
  if (!http && !https) return new Agent(shared);
  // Empty strings keep the agent from looking at the environment by itself.
  const noProxy = [no, "localhost", "127.0.0.1", "[::1]"].filter(Boolean).join(",");
  return new EnvHttpProxyAgent({ ...shared, httpProxy: http ?? "", httpsProxy: https ?? "", noProxy });
}

function requestBody(body: HttpRequest["body"], observer: HttpObserver): string | Buffer | Readable | null {
  if (body === undefined) return null;
  if (typeof body === "string" || body instanceof Uint8Array) {
    observer.sent?.(body.length);
    return typeof body === "string" ? body : Buffer.from(body.buffer, body.byteOffset, body.byteLength);
  }
  return Readable.from(counted(body, observer));
}

async function* counted(body: AsyncIterable<Uint8Array>, observer: HttpObserver): AsyncGenerator<Uint8Array> {
  for await (const chunk of body) {
    observer.sent?.(chunk.length);
    yield chunk;
  }
}

/** Reads a whole body; more than `limit` bytes are `CORRUPT`. */
export async function readBody(response: HttpResponse, limit: number): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of response.body) {
    length += chunk.length;
    if (length > limit) throw corrupt(`${redactUrl(response.url)}: body is longer than the ${limit} bytes expected`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks, length);
}
