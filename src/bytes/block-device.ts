import type { ByteSource } from "./source.ts";

/** What can be read and written at an offset, as a disk can. `size` changes only by a call that says so. */
export interface BlockDevice extends ByteSource {
  /**
   * Writes the bytes at `offset`; they may be reused when the promise resolves. Reads that begin then see them; a crash may still lose
   * them until `flush`. Calls may overlap; of writes to the same place the one that ends last stays.
   * Throws `USAGE` when the range is outside of the device, `UNAVAILABLE` when what holds the bytes fails.
   */
  write(offset: number, bytes: Uint8Array): Promise<void>;
  /** Makes the range read as zeros, keeping as little for it as the device can. Otherwise like `write`. */
  discard(offset: number, length: number): Promise<void>;
  /** Resolves once everything that was written before the call survives a crash. */
  flush(): Promise<void>;
}
