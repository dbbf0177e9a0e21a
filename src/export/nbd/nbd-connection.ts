import { once } from "node:events";
import type { Socket } from "node:net";
import { corrupt } from "../../errors.ts";
import { isDiskFull } from "../disk-full.ts";
import type { ExportRequests } from "./export-requests.ts";
import { Negotiation } from "./negotiation.ts";
import {
  clientFlags,
  ERRNO,
  greeting,
  HANDSHAKE_FLAGS,
  MAX_OPTION_BYTES,
  MAX_PAYLOAD_BYTES,
  OPTION_MAGIC,
  optionHeader,
  requestHeader,
  SERVER_MAGIC,
} from "./protocol.ts";
import { encodeErrorChunk, encodeSimpleReply } from "./replies.ts";
import { RequestWindow } from "./request-window.ts";
import { parseRequest, type Request } from "./requests.ts";
import { SocketInbox } from "./socket-inbox.ts";

/** Requests of one connection that may be under way; clients have fewer. */
const MAX_REQUESTS = 256;
const OFFERED_FLAGS = HANDSHAKE_FLAGS.FIXED_NEWSTYLE | HANDSHAKE_FLAGS.NO_ZEROES;

export interface NbdConnectionOptions {
  readonly requests: ExportRequests;
  /** A client that has not chosen an export by then is disconnected. */
  readonly handshakeTimeoutMs: number;
  /** Called when a request fails that was not at fault; the client gets an error. */
  readonly onFailure: (error: unknown, request: Request) => void;
}

/** One client, from its first byte to its last. */
export class NbdConnection {
  /** Resolves when all is over; rejects with `CORRUPT` when the client did not keep to the protocol. */
  readonly ended: Promise<void>;
  readonly #socket: Socket;
  readonly #inbox: SocketInbox;
  readonly #window = new RequestWindow(MAX_REQUESTS, MAX_PAYLOAD_BYTES);
  readonly #options: NbdConnectionOptions;
  #structured = false;
  #isStopping = false;

  constructor(socket: Socket, options: NbdConnectionOptions) {
    this.#socket = socket;
    this.#options = options;
    this.#inbox = new SocketInbox(socket);
    socket.setNoDelay(true);
    this.ended = this.#serve();
  }

  /** Finishes what is under way, refuses what comes until then, and says goodbye. */
  async stop(): Promise<void> {
    this.#isStopping = true;
    await this.#window.empty();
    this.#inbox.close();
    await this.ended;
  }

  /** Cuts the client off. What is under way goes on, and nobody hears of it. */
  cut(): void {
    this.#socket.destroy();
  }

  async #serve(): Promise<void> {
    const closed = once(this.#socket, "close").catch(() => {}); // of no importance here: whatever went wrong, it is over
    try {
      const negotiation = await this.#negotiate();
      if (negotiation !== undefined) await this.#serveRequests(negotiation);
      this.#socket.destroySoon();
    } finally {
      if (!this.#socket.writableEnded) this.#socket.destroy();
      await this.#window.empty();
      await closed;
    }
  }

  /** What was agreed on; undefined if the client is gone. */
  async #negotiate(): Promise<Negotiation | undefined> {
    const timeout = setTimeout(() => this.cut(), this.#options.handshakeTimeoutMs);
    try {
      this.#socket.write(greeting.encode({ magic: SERVER_MAGIC, optionMagic: OPTION_MAGIC, flags: OFFERED_FLAGS }));
      const bytes = new Uint8Array(clientFlags.size);
      if (!(await this.#inbox.fill(bytes))) return undefined;
      const { flags } = clientFlags.decode(bytes);
      if (flags & ~OFFERED_FLAGS) throw corrupt(`client flags are 0x${flags.toString(16)}, offered were 0x${OFFERED_FLAGS.toString(16)}`);
      return await this.#serveOptions(new Negotiation(this.#options.requests.served, (flags & HANDSHAKE_FLAGS.NO_ZEROES) !== 0));
    } finally {
      clearTimeout(timeout);
    }
  }

  async #serveOptions(negotiation: Negotiation): Promise<Negotiation | undefined> {
    const bytes = new Uint8Array(optionHeader.size);
    while (await this.#inbox.fill(bytes)) {
      const { magic, option, length } = optionHeader.decode(bytes);
      if (magic !== OPTION_MAGIC) throw corrupt(`option begins with 0x${magic.toString(16)}, expected 0x${OPTION_MAGIC.toString(16)}`);
      if (length > MAX_OPTION_BYTES) throw corrupt(`option ${option} of ${length} bytes, expected at most ${MAX_OPTION_BYTES}`);
      const data = new Uint8Array(length);
      if (!(await this.#inbox.fill(data))) return undefined;
      const { replies, next } = negotiation.answer(option, data);
      await this.#sent(Buffer.concat(replies));
      if (next === "requests") return negotiation;
      if (next === "end") return undefined;
    }
    return undefined;
  }

  /** A client that asks and asks, and does not listen, is waited for. */
  async #sent(bytes: Uint8Array): Promise<void> {
    await new Promise<void>((resolve) => this.#socket.write(bytes, () => resolve()));
  }

  async #serveRequests(negotiation: Negotiation): Promise<void> {
    this.#structured = negotiation.structured;
    const { served } = this.#options.requests;
    const header = new Uint8Array(requestHeader.size);
    this.#socket.cork();
    while (this.#inbox.fillNow(header) || (await this.#wait(this.#inbox.fill(header)))) {
      const parsed = parseRequest(header, served, negotiation);
      if (parsed.kind === "broken") throw corrupt(parsed.why);
      if (parsed.kind === "disconnect") break;
      const goesOn =
        parsed.kind === "request"
          ? await this.#accept(parsed.request)
          : await this.#refuse(parsed.cookie, parsed.errno, parsed.payloadBytes);
      if (!goesOn) break;
    }
    await this.#wait(this.#window.empty());
    this.#socket.uncork();
  }

  /** Waits, and meanwhile lets go what has been answered: replies to requests that came together leave together. */
  async #wait<T>(event: Promise<T>): Promise<T> {
    this.#socket.uncork();
    try {
      return await event;
    } finally {
      this.#socket.cork();
    }
  }

  /** Begins a request; false if the client is gone. */
  #accept(request: Request): Promise<boolean> | boolean {
    const bytes = memoryFor(request);
    if (!this.#window.tryEnter(bytes)) return this.#acceptLater(request, bytes);
    return request.kind === "write" ? this.#acceptWrite(request, bytes) : this.#begin(request, bytes);
  }

  async #acceptLater(request: Request, bytes: number): Promise<boolean> {
    await this.#wait(this.#window.enter(bytes));
    return request.kind === "write" ? await this.#acceptWrite(request, bytes) : this.#begin(request, bytes);
  }

  async #acceptWrite(request: Extract<Request, { kind: "write" }>, bytes: number): Promise<boolean> {
    const data = this.#options.requests.pool.take(request.length);
    if (this.#inbox.fillNow(data) || (await this.#wait(this.#inbox.fill(data)))) return this.#begin(request, bytes, data);
    this.#window.leave(bytes);
    return false;
  }

  async #refuse(cookie: bigint, errno: number, payloadBytes: number): Promise<boolean> {
    if (!this.#window.tryEnter(0)) await this.#wait(this.#window.enter(0));
    this.#send(this.#failure(cookie, errno), 0);
    return payloadBytes === 0 || (await this.#wait(this.#inbox.skip(payloadBytes)));
  }

  #begin(request: Request, bytes: number, data?: Uint8Array): true {
    if (this.#isStopping) {
      this.#send(this.#failure(request.cookie, ERRNO.SHUTDOWN), bytes);
      return true;
    }
    const reply = request.kind === "read" ? this.#options.requests.readNow(request, this.#structured) : undefined;
    if (reply !== undefined) this.#send(reply, bytes);
    else void this.#carryOut(request, bytes, data);
    return true;
  }

  /** Never rejects: what fails is told to the client and to `onFailure`. */
  async #carryOut(request: Request, bytes: number, data: Uint8Array | undefined): Promise<void> {
    const { requests, onFailure } = this.#options;
    let reply: Uint8Array;
    try {
      reply = await requests.carryOut(request, this.#structured, data);
      if (data !== undefined) requests.pool.give(data);
    } catch (error) {
      requests.counts.failed++;
      reply = this.#failure(request.cookie, this.#isStopping ? ERRNO.SHUTDOWN : errnoOf(error));
      onFailure(error, request);
    }
    this.#send(reply, bytes);
  }

  #failure(cookie: bigint, errno: number): Uint8Array {
    return this.#structured ? encodeErrorChunk(cookie, errno) : encodeSimpleReply(cookie, errno);
  }

  /** The request's place becomes free when the reply has left, or when nobody wants it any more. */
  #send(reply: Uint8Array, bytes: number): void {
    this.#socket.write(reply, () => {
      this.#options.requests.pool.give(reply);
      this.#window.leave(bytes);
    });
  }
}

function memoryFor(request: Request): number {
  return request.kind === "read" || request.kind === "write" ? request.length : 0;
}

function errnoOf(error: unknown): number {
  return isDiskFull(error) ? ERRNO.NOSPC : ERRNO.IO;
}
