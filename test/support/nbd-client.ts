import { once } from "node:events";
import { connect, type Socket } from "node:net";
import type { NbdAddress } from "../../src/export/nbd/nbd-address.ts";
import {
  CHUNK_DONE,
  CHUNK_MAGIC,
  chunkHeader,
  clientFlags,
  COMMANDS,
  greeting,
  HANDSHAKE_FLAGS,
  number16,
  number32,
  OPTION_MAGIC,
  OPTION_REPLIES,
  optionHeader,
  optionReply,
  OPTIONS,
  REQUEST_MAGIC,
  requestHeader,
  simpleReply,
} from "../../src/export/nbd/protocol.ts";

const FLAGS = HANDSHAKE_FLAGS.FIXED_NEWSTYLE | HANDSHAKE_FLAGS.NO_ZEROES;

export interface OptionReply {
  readonly type: number;
  readonly data: Buffer;
}

/** The first or only part of a reply; of structured ones with the type of the chunk. */
export interface Reply {
  readonly cookie: bigint;
  /** 0 for success. */
  readonly error: number;
  readonly type?: number;
  readonly isLast: boolean;
  /** Everything behind the headers; for simple replies it has to be asked for. */
  readonly payload: Buffer;
}

/** An NBD client that says exactly what it is told to, right or wrong. */
export class NbdClient implements AsyncDisposable {
  readonly socket: Socket;
  #received = Buffer.alloc(0);
  /** What came since, which is joined when it is enough. */
  readonly #chunks: Buffer[] = [];
  #chunkBytes = 0;
  #isClosed = false;
  #wake = (): void => {};

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.on("data", (chunk: Buffer) => {
      this.#chunks.push(chunk);
      this.#chunkBytes += chunk.length;
      this.#wake();
    });
    socket.on("error", () => {});
    socket.on("close", () => {
      this.#isClosed = true;
      this.#wake();
    });
  }

  static async connect(address: NbdAddress): Promise<NbdClient> {
    const socket = address.kind === "unix" ? connect(address.path) : connect(address.port, address.host);
    await once(socket, "connect");
    return new NbdClient(socket);
  }

  /** With the greeting behind it. */
  static async greeted(address: NbdAddress, flags: number = FLAGS): Promise<NbdClient> {
    const client = await NbdClient.connect(address);
    await client.take(greeting.size);
    client.socket.write(clientFlags.encode({ flags }));
    return client;
  }

  /** Ready for requests. */
  static async ready(address: NbdAddress, { structured = false, name = "" } = {}): Promise<NbdClient> {
    const client = await NbdClient.greeted(address);
    if (structured) await client.option(OPTIONS.STRUCTURED_REPLY);
    const replies = await client.option(OPTIONS.GO, goData(name));
    if (replies.at(-1)?.type !== OPTION_REPLIES.ACK) throw new Error(`GO was refused: ${replies.at(-1)?.data.toString()}`);
    return client;
  }

  /** Throws if the server closes before. */
  async take(bytes: number): Promise<Buffer> {
    while (this.#received.length + this.#chunkBytes < bytes) {
      if (this.#isClosed) throw new Error(`closed after ${this.#received.length + this.#chunkBytes} of ${bytes} bytes`);
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
    if (this.#received.length < bytes) this.#join();
    const taken = this.#received.subarray(0, bytes);
    this.#received = this.#received.subarray(bytes);
    return taken;
  }

  /** What has arrived and not been taken when the server has closed. */
  async closed(): Promise<Buffer> {
    while (!this.#isClosed) await new Promise<void>((resolve) => (this.#wake = resolve));
    this.#join();
    return this.#received;
  }

  #join(): void {
    this.#received = Buffer.concat([this.#received, ...this.#chunks.splice(0)]);
    this.#chunkBytes = 0;
  }

  /** Sends an option and answers all replies up to the last. */
  async option(option: number, data: Uint8Array = new Uint8Array(0)): Promise<OptionReply[]> {
    this.socket.write(Buffer.concat([optionHeader.encode({ magic: OPTION_MAGIC, option, length: data.length }), data]));
    const replies: OptionReply[] = [];
    for (;;) {
      const { type, length } = optionReply.decode(await this.take(optionReply.size));
      replies.push({ type, data: await this.take(length) });
      if (type === OPTION_REPLIES.ACK || type >= 0x8000_0000) return replies;
    }
  }

  send(command: number, cookie: bigint, offset: number, length: number, flags = 0, data: Uint8Array = new Uint8Array(0)): void {
    const header = requestHeader.encode({ magic: REQUEST_MAGIC, flags, command, cookie, offset, length });
    this.socket.write(Buffer.concat([header, data]));
  }

  /** A simple reply's header, or a chunk with its payload. */
  async reply(): Promise<Reply> {
    const magic = number32.decode(await this.#peek(number32.size)).value;
    if (magic !== CHUNK_MAGIC) {
      const { cookie, error } = simpleReply.decode(await this.take(simpleReply.size));
      return { cookie, error, isLast: true, payload: Buffer.alloc(0) };
    }
    const { flags, type, cookie, length } = chunkHeader.decode(await this.take(chunkHeader.size));
    const payload = await this.take(length);
    const error = type >= 0x8000 ? number32.decode(payload).value : 0;
    return { cookie, error, type, isLast: (flags & CHUNK_DONE) !== 0, payload };
  }

  /** Reads without structured replies; throws the error's number. */
  async read(offset: number, length: number): Promise<Buffer> {
    this.send(COMMANDS.READ, 1n, offset, length);
    const { error } = await this.reply();
    if (error !== 0) throw new Error(`error ${error}`);
    return await this.take(length);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.socket.destroy();
    await this.closed();
  }

  async #peek(bytes: number): Promise<Buffer> {
    if (this.#received.length < bytes) this.#received = Buffer.concat([await this.take(bytes), this.#received]);
    return this.#received.subarray(0, bytes);
  }
}

/** The data of INFO and GO. */
export function goData(name: string, infos: readonly number[] = []): Uint8Array {
  return Buffer.concat([text32(name), number16.encode({ value: infos.length }), ...infos.map((value) => number16.encode({ value }))]);
}

/** The data of LIST_META_CONTEXT and SET_META_CONTEXT. */
export function contextData(name: string, queries: readonly string[]): Uint8Array {
  return Buffer.concat([text32(name), number32.encode({ value: queries.length }), ...queries.map(text32)]);
}

function text32(text: string): Uint8Array {
  return Buffer.concat([number32.encode({ value: Buffer.byteLength(text) }), Buffer.from(text)]);
}
