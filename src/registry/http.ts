import { Readable } from "node:stream";
import { request, type Dispatcher } from "undici";
import { corrupt } from "../errors.ts";
import { Connections, type ConnectionOptions } from "./connections.ts";
import { networkError } from "./network-error.ts";
import { brokenTransfer, redactUrl } from "./registry-error.ts";
import type { HttpTimeouts } from "./timeouts.ts";

/** Bodies go to the connection in pieces of this size: a connection that takes one now and then has not stalled. */
const PIECE_BYTES = 64 << 10;

export type HttpMethod = "GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE";

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

export interface HttpOptions extends Omit<ConnectionOptions, "connectMs"> {
  readonly timeouts: HttpTimeouts;
  readonly observer: HttpObserver;
  readonly userAgent: string;
}

/** One request, one answer: no retries, no redirects, no credentials. */
export class HttpClient {
  readonly #options: HttpOptions;
  readonly #connections: Connections;

  constructor(options: HttpOptions) {
    this.#options = options;
    this.#connections = new Connections({ ...options, connectMs: options.timeouts.connectMs });
  }

  /** Throws `RegistryError` if no answer came, and the signal's reason if it was aborted. */
  async send(what: HttpRequest): Promise<HttpResponse> {
    const { timeouts, observer, userAgent } = this.#options;
    try {
      const answer = await request(what.url, {
        dispatcher: await this.#connections.poolFor(what.url),
        method: what.method,
        // Content codings would change the bytes whose digest was promised.
        headers: { "user-agent": userAgent, "accept-encoding": "identity", ...what.headers },
        body: requestBody(what, timeouts.stallMs, observer),
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
    await this.#connections.close();
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

function requestBody({ body, url }: HttpRequest, stallMs: number, observer: HttpObserver): string | Buffer | Readable | null {
  if (body === undefined) return null;
  if (typeof body === "string" || body instanceof Uint8Array) {
    observer.sent?.(body.length);
    return typeof body === "string" ? body : Buffer.from(body.buffer, body.byteOffset, body.byteLength);
  }
  const stalled = (): void => void stream.destroy(brokenTransfer(url, "stalled: no bytes were taken within the time limit"));
  const stream = Readable.from(timed(body, { stallMs, stalled, observer }));
  return stream;
}

interface Timing {
  readonly stallMs: number;
  readonly stalled: () => void;
  readonly observer: HttpObserver;
}

/** Counts what is sent, and notices when it is not taken. That the body itself takes time is not the connection's fault. */
async function* timed(body: AsyncIterable<Uint8Array>, { stallMs, stalled, observer }: Timing): AsyncGenerator<Uint8Array> {
  for await (const chunk of body) {
    for (let at = 0; at < chunk.length; at += PIECE_BYTES) {
      const piece = chunk.subarray(at, at + PIECE_BYTES);
      observer.sent?.(piece.length);
      const timer = setTimeout(stalled, stallMs);
      try {
        yield piece;
      } finally {
        clearTimeout(timer);
      }
    }
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
