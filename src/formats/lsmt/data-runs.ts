import type { ByteSource } from "../../bytes/source.ts";
import { SECTOR_BYTES } from "./layout.ts";

/** Reads of files that one read of a device has underway at a time. */
const MAX_READS = 16;

interface DataRun {
  /** Offset in the answer. */
  readonly at: number;
  readonly source: ByteSource;
  readonly offset: number;
  bytes: number;
}

/** What a read of a device is made of: stretches that lie in one piece in a file, and zeros between them. */
export class DataRuns {
  readonly #offset: number;
  readonly #length: number;
  readonly #runs: DataRun[] = [];

  /** For a read of `length` bytes at `offset` of the device. */
  constructor(offset: number, length: number) {
    this.#offset = offset;
    this.#length = length;
  }

  get firstSector(): number {
    return Math.floor(this.#offset / SECTOR_BYTES);
  }
  get endSector(): number {
    return Math.ceil((this.#offset + this.#length) / SECTOR_BYTES);
  }

  /** Sectors of the device are found from `mappedSector` of `source` on. Front to back; what goes on in the same file is joined. */
  add(firstSector: number, sectors: number, source: ByteSource, mappedSector: number): void {
    const start = Math.max(firstSector * SECTOR_BYTES, this.#offset);
    const bytes = Math.min((firstSector + sectors) * SECTOR_BYTES, this.#offset + this.#length) - start;
    const offset = mappedSector * SECTOR_BYTES + (start - firstSector * SECTOR_BYTES);
    const at = start - this.#offset;
    const last = this.#runs.at(-1);
    if (last !== undefined && last.source === source && last.offset + last.bytes === offset && last.at + last.bytes === at) {
      last.bytes += bytes;
    } else {
      this.#runs.push({ at, source, offset, bytes });
    }
  }

  async read(): Promise<Uint8Array> {
    const runs = this.#runs;
    if (runs.length === 1 && runs[0].bytes === this.#length) return await runs[0].source.read(runs[0].offset, runs[0].bytes);
    const output = Buffer.alloc(this.#length);
    for (let i = 0; i < runs.length; i += MAX_READS) {
      await Promise.all(
        runs.slice(i, i + MAX_READS).map(async (run) => {
          output.set(await run.source.read(run.offset, run.bytes), run.at);
        }),
      );
    }
    return output;
  }
}
