import { readFileSync } from "node:fs";
import { zstdDecompressSync } from "node:zlib";
import * as z from "zod";
import { checkRange, MemorySource, type ByteSource } from "../../src/bytes/source.ts";

const testdata = new URL("../../testdata/lsmt/", import.meta.url);

/** A file of testdata/lsmt, decompressed. */
export function lsmtBytes(name: string): Buffer {
  const bytes = readFileSync(new URL(name, testdata));
  return name.endsWith(".zst") ? zstdDecompressSync(bytes) : bytes;
}

export function lsmtSource(name: string): MemorySource {
  return new MemorySource(lsmtBytes(name), name);
}

const packed = z
  .record(z.string(), z.object({ size: z.number(), extents: z.array(z.object({ offset: z.number(), length: z.number() })) }))
  .parse(JSON.parse(lsmtBytes("sparse/extents.json").toString()));

/** A sparse file of testdata/lsmt/sparse, kept as the bytes of its data extents one after the other. */
export class SparseSource implements ByteSource {
  readonly name: string;
  readonly size: number;
  readonly extents: readonly { readonly offset: number; readonly length: number }[];
  readonly #bytes: Buffer;

  constructor(name: string) {
    this.name = name;
    this.size = packed[name].size;
    this.extents = packed[name].extents;
    this.#bytes = lsmtBytes(`sparse/${name}.extents.zst`);
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    checkRange(this, offset, length);
    const output = Buffer.alloc(length);
    let at = 0;
    for (const extent of this.extents) {
      const start = Math.max(extent.offset, offset);
      const end = Math.min(extent.offset + extent.length, offset + length);
      if (start < end) this.#bytes.copy(output, start - offset, at + start - extent.offset, at + end - extent.offset);
      at += extent.length;
    }
    return output;
  }

  async close(): Promise<void> {}
}
