import type { WritableFile } from "../../bytes/writable-file.ts";
import { FlushTurns } from "./flush-turns.ts";
import { writeVirtualSize } from "./index-log.ts";
import { checkVirtualSize, identityOf, type LsmtOptions } from "./layer-identity.ts";
import {
  decodeRecord,
  encodeRecord,
  FIRST_DATA_SECTOR,
  FLAG_DATA,
  FLAG_HEADER,
  FLAG_SPARSE,
  LSMT_RECORD_BYTES,
  MAX_MAPPING_SECTORS,
  SECTOR_BYTES,
  type LsmtRecord,
} from "./layout.ts";
import type { LsmtLayer } from "./lsmt-reader.ts";
import { sealDataFile } from "./seal-layer.ts";
import { SegmentMap } from "./segment-map.ts";
import { readSparseFile, type FileExtent } from "./unsealed-layer.ts";
import { checkEmpty, checkUnits, type WritableLayer } from "./writable-layer.ts";

/** Zeros that are written at a time. */
const ZERO_BYTES = 1 << 20;

/**
 * A writable layer of one sparse file, which has the device's bytes where they belong. What is mapped is what the file has data for, so a
 * part of a filesystem's block maps all of it: the unit is such a block, of 4096 bytes.
 */
export class SparseLayer implements WritableLayer {
  readonly unitBytes = 4096;
  readonly segments: SegmentMap;
  readonly files: readonly WritableFile[];
  readonly #data: WritableFile;
  readonly #turns: FlushTurns;
  #header: LsmtRecord;

  private constructor(data: WritableFile, header: LsmtRecord, segments: SegmentMap) {
    this.#data = data;
    this.files = [data];
    this.#header = header;
    this.segments = segments;
    this.#turns = new FlushTurns(async () => await data.flush());
  }

  /** Makes a layer of an empty file. Closing it closes the file. */
  static async create(data: WritableFile, options: LsmtOptions): Promise<SparseLayer> {
    checkEmpty(data);
    const header = encodeRecord({ ...identityOf(options, data.name), flags: FLAG_HEADER | FLAG_DATA | FLAG_SPARSE });
    await data.truncate(LSMT_RECORD_BYTES + options.virtualSize);
    await data.write(0, header);
    await data.flush();
    return new SparseLayer(data, decodeRecord(header, data.name), new SegmentMap());
  }

  /**
   * Goes on with a layer whose file has data in `dataExtents`, ascending (SEEK_DATA, SEEK_HOLE). Closing it closes the file; when opening
   * fails it stays open. Throws `CORRUPT` where the file contradicts the format.
   */
  static async open(data: WritableFile, dataExtents: readonly FileExtent[]): Promise<SparseLayer> {
    const { header, mappings } = await readSparseFile(data, dataExtents);
    const end = LSMT_RECORD_BYTES + header.virtualSize;
    if (data.size > end) {
      // It was sealed, and is about to be changed: the index behind the data must not outlive that.
      await data.truncate(end);
      await data.flush();
    }
    return new SparseLayer(data, header, SegmentMap.replay(mappings));
  }

  get name(): string {
    return this.#data.name;
  }
  get virtualSize(): number {
    return this.#header.virtualSize;
  }
  get uuid(): string {
    return this.#header.uuid;
  }
  get parentUuid(): string {
    return this.#header.parentUuid;
  }

  async write(offset: number, bytes: Uint8Array): Promise<void> {
    checkUnits(this, offset, bytes.length);
    await this.#data.write(LSMT_RECORD_BYTES + offset, bytes);
    this.#map(offset / SECTOR_BYTES, bytes.length / SECTOR_BYTES);
  }

  /** A hole would show the layers below once the layer is opened again, so zeros are written. */
  async discard(offset: number, length: number): Promise<void> {
    checkUnits(this, offset, length);
    const zeros = new Uint8Array(Math.min(length, ZERO_BYTES));
    for (let at = 0; at < length; at += zeros.length) {
      await this.write(offset + at, zeros.subarray(0, Math.min(zeros.length, length - at)));
    }
  }

  async flush(): Promise<void> {
    await this.#turns.take();
  }

  async resize(virtualSize: number): Promise<void> {
    checkVirtualSize(virtualSize, this.name);
    await this.#data.truncate(LSMT_RECORD_BYTES + virtualSize);
    await writeVirtualSize(this.#data, virtualSize);
    this.#header = { ...this.#header, virtualSize };
  }

  async seal(): Promise<LsmtLayer> {
    await this.flush();
    return await sealDataFile(this.#data, this.#header, this.segments);
  }

  async retire(): Promise<void> {}

  async close(): Promise<void> {
    try {
      await this.flush();
    } finally {
      await this.#data.close();
    }
  }

  #map(firstSector: number, sectors: number): void {
    for (let at = 0; at < sectors; at += MAX_MAPPING_SECTORS) {
      const first = firstSector + at;
      this.segments.insert(first, Math.min(MAX_MAPPING_SECTORS, sectors - at), FIRST_DATA_SECTOR + first);
    }
  }
}
