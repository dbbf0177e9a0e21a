import type { WritableFile } from "../../bytes/writable-file.ts";
import { writeVirtualSize } from "./index-log.ts";
import { checkVirtualSize, identityOf, type LsmtOptions } from "./layer-identity.ts";
import { encodeRecord, FLAG_DATA, FLAG_HEADER, METADATA_TAG, SECTOR_BYTES, type LsmtRecord, decodeRecord } from "./layout.ts";
import { LoggedSegments } from "./logged-segments.ts";
import type { LsmtLayer } from "./lsmt-reader.ts";
import { sealDataFile } from "./seal-layer.ts";
import type { SegmentMap } from "./segment-map.ts";
import { readAppendFiles } from "./unsealed-layer.ts";
import type { UnsyncedPlace } from "./unsynced-log.ts";
import { checkEmpty, checkUnits, type WritableLayer } from "./writable-layer.ts";

/** Data of one entry at most, as existing tools cut their writes. */
const MAX_APPEND_BYTES = 4 << 20;

/** A writable layer of two files: every write is appended to the data file, and its place to the index file. */
export class AppendLayer implements WritableLayer {
  readonly unitBytes = SECTOR_BYTES;
  readonly files: readonly WritableFile[];
  readonly #data: WritableFile;
  readonly #index: LoggedSegments;
  #header: LsmtRecord;
  /** Where the next data goes. */
  #appendOffset: number;
  /** Where data ends that has been written. */
  #dataEnd: number;

  private constructor(data: WritableFile, header: LsmtRecord, index: LoggedSegments) {
    this.#data = data;
    this.files = [data];
    this.#header = header;
    this.#index = index;
    this.#appendOffset = Math.ceil(data.size / SECTOR_BYTES) * SECTOR_BYTES;
    this.#dataEnd = Math.floor(data.size / SECTOR_BYTES) * SECTOR_BYTES;
  }

  /** Makes a layer of two empty files. Closing it closes them. With a `place`, what was written survives the end of the process. */
  static async create(data: WritableFile, index: WritableFile, options: LsmtOptions, place?: UnsyncedPlace): Promise<AppendLayer> {
    for (const file of [data, index]) checkEmpty(file);
    const identity = identityOf(options, data.name);
    const header = encodeRecord({ ...identity, flags: FLAG_HEADER | FLAG_DATA });
    await data.write(0, header);
    await data.flush();
    return new AppendLayer(data, decodeRecord(header, data.name), await LoggedSegments.create(data, index, identity, place));
  }

  /**
   * Goes on with a layer as it was closed, or as a crash left it. Closing it closes the files; when opening fails they stay open.
   * What `place` keeps of a process that was killed is there, too. Throws `CORRUPT` where the files contradict the format or each other.
   */
  static async open(data: WritableFile, index: WritableFile, place?: UnsyncedPlace): Promise<AppendLayer> {
    const { header, stored } = await readAppendFiles(data, index, place);
    const segments = await LoggedSegments.continue(data, index, stored, place);
    return new AppendLayer(data, { ...header, virtualSize: stored.header.virtualSize }, segments);
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
  get segments(): SegmentMap {
    return this.#index.map;
  }

  async write(offset: number, bytes: Uint8Array): Promise<void> {
    checkUnits(this, offset, bytes.length);
    for (let at = 0; at < bytes.length; at += MAX_APPEND_BYTES) {
      const piece = bytes.subarray(at, at + MAX_APPEND_BYTES);
      const place = await this.#append(piece);
      this.#index.add((offset + at) / SECTOR_BYTES, piece.length / SECTOR_BYTES, place / SECTOR_BYTES, METADATA_TAG);
    }
    await this.#index.settle();
  }

  async discard(offset: number, length: number): Promise<void> {
    checkUnits(this, offset, length);
    // Not where the next data goes: what is being written there may never be, and an entry must not point behind the end.
    this.#index.addZeros(offset / SECTOR_BYTES, length / SECTOR_BYTES, this.#dataEnd / SECTOR_BYTES, METADATA_TAG);
    await this.#index.settle();
  }

  async flush(): Promise<void> {
    await this.#index.flush();
  }

  async resize(virtualSize: number): Promise<void> {
    checkVirtualSize(virtualSize, this.name);
    await writeVirtualSize(this.#data, virtualSize);
    await this.#index.resize(virtualSize);
    this.#header = { ...this.#header, virtualSize };
  }

  async seal(): Promise<LsmtLayer> {
    await this.flush();
    try {
      return await sealDataFile(this.#data, this.#header, this.segments);
    } finally {
      this.#appendOffset = Math.ceil(this.#data.size / SECTOR_BYTES) * SECTOR_BYTES;
    }
  }

  async retire(): Promise<void> {
    await this.#index.closeLog();
  }

  async close(): Promise<void> {
    try {
      await this.flush();
    } finally {
      await this.#index.closeLog();
      await this.#data.close();
    }
  }

  /** Appends whole sectors; answers where they begin. */
  async #append(bytes: Uint8Array): Promise<number> {
    const place = this.#appendOffset;
    this.#appendOffset += bytes.length;
    try {
      await this.#data.write(place, bytes);
    } catch (error) {
      // The room is free again, unless others have been given what follows.
      if (this.#appendOffset === place + bytes.length) this.#appendOffset = place;
      throw error;
    }
    this.#dataEnd = Math.max(this.#dataEnd, place + bytes.length);
    return place;
  }
}
