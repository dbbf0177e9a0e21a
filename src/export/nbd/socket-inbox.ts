import type { Socket } from "node:net";

/** So much may lie here before the socket is left alone. */
const MAX_WAITING_BYTES = 256 * 1024;

/** What has arrived on a socket and nobody has taken yet. One reader at a time. */
export class SocketInbox {
  readonly #socket: Socket;
  readonly #chunks: Buffer[] = [];
  #bytes = 0;
  #isClosed = false;
  #wake: (() => void) | undefined;

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.on("data", (chunk: Buffer) => this.#put(chunk));
    for (const event of ["end", "close", "error"]) socket.on(event, () => this.close());
  }

  /** Nothing more is expected: whoever waits, or takes more than is here, gets none. */
  close(): void {
    this.#isClosed = true;
    this.#wake?.();
  }

  /** Fills `target`, unless that takes waiting. */
  fillNow(target: Uint8Array): boolean {
    if (this.#bytes < target.length) return false;
    this.#move(target);
    return true;
  }

  /** Waits until `target` is full; false if the end comes before. */
  async fill(target: Uint8Array): Promise<boolean> {
    let filled = this.#move(target);
    while (filled < target.length) {
      if (!(await this.#more())) return false;
      filled += this.#move(target.subarray(filled));
    }
    return true;
  }

  /** Throws so many bytes away; false if the end comes before. */
  async skip(bytes: number): Promise<boolean> {
    let left = bytes - this.#drop(bytes);
    while (left > 0) {
      if (!(await this.#more())) return false;
      left -= this.#drop(left);
    }
    return true;
  }

  #put(chunk: Buffer): void {
    this.#chunks.push(chunk);
    this.#bytes += chunk.length;
    if (this.#bytes >= MAX_WAITING_BYTES) this.#socket.pause();
    this.#wake?.();
  }

  async #more(): Promise<boolean> {
    if (this.#isClosed) return false;
    this.#socket.resume();
    await new Promise<void>((resolve) => (this.#wake = resolve));
    this.#wake = undefined;
    return this.#bytes > 0;
  }

  #move(target: Uint8Array): number {
    let at = 0;
    while (at < target.length && this.#chunks.length > 0) {
      const [chunk] = this.#chunks;
      const count = Math.min(chunk.length, target.length - at);
      target.set(chunk.subarray(0, count), at);
      at += this.#drop(count);
    }
    return at;
  }

  /** Takes away as many bytes as are there, and answers how many. */
  #drop(bytes: number): number {
    let left = bytes;
    while (left > 0 && this.#chunks.length > 0) {
      const [chunk] = this.#chunks;
      if (chunk.length <= left) this.#chunks.shift();
      else this.#chunks[0] = chunk.subarray(left);
      left -= Math.min(left, chunk.length);
    }
    this.#bytes -= bytes - left;
    return bytes - left;
  }
}
