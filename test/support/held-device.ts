import type { BlockDevice } from "../../src/bytes/block-device.ts";
import { checkRange } from "../../src/bytes/source.ts";

type Operation = "read" | "write" | "discard" | "flush";

/** A device in memory that notes what is asked of it, and waits or fails as it is told to. */
export class HeldDevice implements BlockDevice {
  readonly name = "device";
  readonly bytes: Buffer;
  readonly calls: string[] = [];
  /** How many operations wait now, and how many did at most. */
  waiting = 0;
  mostWaiting = 0;
  /** Every operation waits for it. */
  gate: (operation: Operation, offset: number) => Promise<void> | undefined = () => undefined;
  readonly #changed: (() => void)[] = [];

  constructor(bytes: Buffer) {
    this.bytes = bytes;
  }

  get size(): number {
    return this.bytes.length;
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    checkRange(this, offset, length);
    await this.#begin("read", offset, length);
    return new Uint8Array(this.bytes.subarray(offset, offset + length));
  }

  async write(offset: number, bytes: Uint8Array): Promise<void> {
    checkRange(this, offset, bytes.length);
    await this.#begin("write", offset, bytes.length);
    this.bytes.set(bytes, offset);
  }

  async discard(offset: number, length: number): Promise<void> {
    checkRange(this, offset, length);
    await this.#begin("discard", offset, length);
    this.bytes.fill(0, offset, offset + length);
  }

  async flush(): Promise<void> {
    await this.#begin("flush", 0, 0);
  }

  async close(): Promise<void> {}

  /** Resolves once so many operations have been asked for. */
  async called(count: number): Promise<void> {
    while (this.calls.length < count) await new Promise<void>((resolve) => this.#changed.push(resolve));
  }

  async #begin(operation: Operation, offset: number, length: number): Promise<void> {
    this.calls.push(`${operation} ${offset}+${length}`);
    for (const resolve of this.#changed.splice(0)) resolve();
    this.waiting++;
    this.mostWaiting = Math.max(this.mostWaiting, this.waiting);
    try {
      await this.gate(operation, offset);
    } finally {
      this.waiting--;
    }
  }
}

/** Bytes that differ everywhere, the same every time. */
export function patternBytes(count: number): Buffer {
  const bytes = Buffer.alloc(count);
  for (let i = 0; i + 4 <= count; i += 4) bytes.writeUInt32LE(Math.imul(i + 1, 2654435761) >>> 0, i);
  return bytes;
}
