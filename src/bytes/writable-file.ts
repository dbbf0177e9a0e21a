import { LazyError } from "../errors.ts";
import type { ByteSource } from "./source.ts";

/**
 * A file as formats write it, wherever it is: `size` is what it is now, and a write behind the end fills the gap with zeros.
 * Nothing survives a crash for sure before `flush` has resolved, and writes may reach the disk in any order until then.
 * Calls may overlap. Places throw `UNAVAILABLE` or `DENIED`.
 */
export interface WritableFile extends ByteSource {
  /** Writes all of the bytes at `offset`; they may be reused when the promise resolves. */
  write(offset: number, bytes: Uint8Array): Promise<void>;
  /** Cuts the file off, or lengthens it with zeros that take no room. */
  truncate(size: number): Promise<void>;
  /** Resolves once all that was written and truncated before the call survives a crash. */
  flush(): Promise<void>;
}

/** Throws `USAGE` unless `[offset, offset + length)` lies inside of what is written to. */
export function checkWriteRange(device: { readonly name: string; readonly size: number }, offset: number, length: number): void {
  const inside = Number.isSafeInteger(offset) && Number.isSafeInteger(length) && offset >= 0 && length >= 0;
  if (!inside || offset + length > device.size) {
    throw new LazyError("USAGE", `${device.name}: write of [${offset}, ${offset + length}) is outside of [0, ${device.size})`);
  }
}
