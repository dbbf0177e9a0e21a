import type { DecompressOptions } from "../compression/decompress.ts";
/** STUB until merged */
export interface LayerIndex {
  readonly compression: "gzip" | "zstd" | "none";
  readonly file: { readonly name: "gzip.meta" | "zstd.meta"; readonly bytes: Uint8Array } | undefined;
  readonly spans: Uint8Array;
  readonly storedBytes: number;
  readonly contentBytes: number;
  readonly unindexable?: string;
}
export class LayerIndexer {
  readonly decompressing = undefined;
  constructor(_name: string) {}
  async content(_chunk: Uint8Array): Promise<void> {}
  async finish(): Promise<LayerIndex> {
    throw new Error("stub");
  }
}
