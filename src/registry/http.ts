import type { ClientRequest, IncomingMessage } from "node:http";
import { pipeline } from "node:stream/promises";
import { corrupt } from "../errors.ts";
import { Connections, type ConnectionOptions } from "./connections.ts";
import { networkError } from "./network-error.ts";
import { http, https } from "./node-http.ts";
import { brokenTransfer, redactUrl, RegistryError } from "./registry-error.ts";
import type { HttpTimeouts } from "./timeouts.ts";

/** Bodies go to the connection in pieces of this size: a connection that takes one now and then has not stalled. */
const PIECE_BYTES = 64 << 10;
/** Of an unwanted body, so much is read for the sake of its connection. */
const DISCARDED_BYTES = 64 << 10;
const STALLED = "stalled: no bytes within the time limit";

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

export interface HttpOptions extends ConnectionOptions {
  readonly timeouts: HttpTimeouts;
  readonly observer: HttpObserver;
  readonly userAgent: string;
}

/** One request, one answer: no retries, no redirects, no credentials. */
export class HttpClient {
  readonly #options: HttpOptions;
  readonly #connections: Connections;
  readonly #underway = new Map<ClientRequest, URL>();
  #isClosed = false;

  constructor(options: HttpOptions) {
    this.#options = options;
    this.#connections = new Connections(options);
  }

  /** Throws `RegistryError` if no answer came, and the signal's reason if it was aborted. */
  async send(what: HttpRequest): Promise<HttpResponse> {
    const { observer, timeouts } = this.#options;
    const answered = (status: number): void => observer.answered?.({ method: what.method, url: redactUrl(what.url), status });
    try {
      const request = await this.#open(what);
      const message = await answerOf(request, what, this.#options);
      answered(message.statusCode ?? 0);
      return new Answer(what, { request, message }, observer, timeouts.stallMs);
    } catch (error) {
      what.signal?.throwIfAborted();
      answered(0);
      throw networkError(what.url, error);
    }
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    for (const [request, url] of this.#underway) request.destroy(closedHere(url));
    await this.#connections.close();
  }

  async #open({ method, url, headers, signal }: HttpRequest): Promise<ClientRequest> {
    const { timeouts, userAgent } = this.#options;
    const agent = await this.#connections.agentFor(url);
    if (this.#isClosed) throw closedHere(url);
    signal?.throwIfAborted();
    const request = (url.protocol === "https:" ? https() : http).request(url, {
      agent,
      method,
      // Content codings would change the bytes whose digest was promised.
      headers: { "user-agent": userAgent, "accept-encoding": "identity", ...headers },
      timeout: timeouts.connectMs,
      ...(signal && { signal }),
    });
    this.#underway.set(request, url);
    request.once("close", () => this.#underway.delete(request));
    return request;
  }
}

/** Sends the body and waits for the head of the answer. */
async function answerOf(request: ClientRequest, what: HttpRequest, { timeouts, observer }: HttpOptions): Promise<IncomingMessage> {
  const { url, method, body } = what;
  const answer = Promise.withResolvers<IncomingMessage>();
  let timer: NodeJS.Timeout | undefined;
  let hasEnded = false;
  const patience = method === "PUT" ? timeouts.commitMs : timeouts.answerMs;
  const awaitAnswer = (): void => {
    // An answer may come before all of the body is sent.
    if (!hasEnded) timer = setTimeout(() => request.destroy(brokenTransfer(url, STALLED)), patience);
  };
  request.once("response", answer.resolve);
  request.on("error", answer.reject); // what comes after the answer is noticed by whoever reads its body
  request.once("timeout", () => {
    if (!isConnected(request)) request.destroy(brokenTransfer(url, `no connection within ${timeouts.connectMs / 1000} s`));
  });
  if (body === undefined || typeof body === "string" || body instanceof Uint8Array) {
    // Requests beyond those that a host gets at once have no socket yet, and wait for each other.
    request.once("socket", awaitAnswer);
    if (body !== undefined) observer.sent?.(body.length);
    request.end(body);
  } else {
    const stalled = (): void => void request.destroy(brokenTransfer(url, "stalled: no bytes were taken within the time limit"));
    const timing = { stallMs: timeouts.stallMs, stalled, sent: awaitAnswer, observer };
    pipeline(timed(body, timing), request).catch((error: unknown) => answer.reject(error));
  }
  try {
    return await answer.promise;
  } finally {
    hasEnded = true;
    clearTimeout(timer);
  }
}

/** Whether bytes can go, and not only a greeting. */
function isConnected({ socket }: ClientRequest): boolean {
  if (socket === null || socket.connecting) return false;
  return !("secureConnecting" in socket && socket.secureConnecting === true);
}

function closedHere(url: URL): RegistryError {
  const shown = redactUrl(url);
  return new RegistryError("UNAVAILABLE", `${shown}: the connection was closed on this side`, { url: shown, retryable: false });
}

/** An exchange whose answer has begun. */
interface Exchange {
  readonly request: ClientRequest;
  readonly message: IncomingMessage;
}

class Answer implements HttpResponse {
  readonly status: number;
  readonly url: URL;
  readonly #what: HttpRequest;
  readonly #exchange: Exchange;
  readonly #observer: HttpObserver;
  readonly #stallMs: number;

  constructor(what: HttpRequest, exchange: Exchange, observer: HttpObserver, stallMs: number) {
    this.status = exchange.message.statusCode ?? 0;
    this.url = what.url;
    this.#what = what;
    this.#exchange = exchange;
    this.#observer = observer;
    this.#stallMs = stallMs;
  }

  header(name: string): string | undefined {
    const value = this.#exchange.message.headers[name];
    return Array.isArray(value) ? value.join(", ") : value;
  }

  get body(): AsyncIterable<Uint8Array> {
    return this.#read();
  }

  async *#read(): AsyncGenerator<Uint8Array> {
    const { request, message } = this.#exchange;
    let isAwaited = true;
    const timer = setTimeout(() => {
      if (isAwaited) message.destroy(brokenTransfer(this.url, STALLED));
    }, this.#stallMs);
    const chunks: AsyncIterable<unknown> = message;
    try {
      for await (const chunk of chunks) {
        if (!(chunk instanceof Uint8Array)) throw brokenTransfer(this.url, "body is not bytes");
        isAwaited = false;
        this.#observer.received?.(chunk.length);
        yield chunk;
        isAwaited = true;
        timer.refresh();
      }
    } catch (error) {
      this.#what.signal?.throwIfAborted();
      throw networkError(this.url, error);
    } finally {
      clearTimeout(timer);
      // Who has answered does not want the rest.
      if (!request.writableFinished) request.destroy();
    }
  }

  async discard(): Promise<void> {
    let bytes = 0;
    try {
      for await (const chunk of this.#read()) if ((bytes += chunk.length) > DISCARDED_BYTES) break;
    } catch {
      // A connection that breaks while an unwanted body is read harms nobody: the answer has been used already.
    }
  }
}

interface Timing {
  readonly stallMs: number;
  readonly stalled: () => void;
  readonly sent: () => void;
  readonly observer: HttpObserver;
}

/** Counts what is sent, and notices when it is not taken. That the body itself takes time is not the connection's fault. */
async function* timed(body: AsyncIterable<Uint8Array>, { stallMs, stalled, sent, observer }: Timing): AsyncGenerator<Uint8Array> {
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
  sent();
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
