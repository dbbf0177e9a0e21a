import type { ByteSource } from "../../bytes/source.ts";
import type { WritableFile } from "../../bytes/writable-file.ts";
import { LazyError, unsupported } from "../../errors.ts";
import { checkVirtualSize, identityOf, type LsmtOptions } from "./layer-identity.ts";
import { decodeRecord, encodeRecord, FLAG_HEADER, METADATA_TAG, SECTOR_BYTES, TARGET_TAG, type LsmtRecord } from "./layout.ts";
import { LoggedSegments } from "./logged-segments.ts";
import type { LsmtLayer } from "./lsmt-reader.ts";
import type { SegmentMap } from "./segment-map.ts";
import { readWarpFiles, targetFiles } from "./unsealed-warp-layer.ts";
import type { UnsyncedPlace } from "./unsynced-log.ts";
import { checkEmpty, checkUnits, type WritableLayer } from "./writable-layer.ts";

/**
 * A warp layer that is being written: a metadata file, which has the device's bytes where they belong and no header, an index file, and
 * the target that file data is mapped to.
 */
export class WarpUpper implements WritableLayer {
  readonly unitBytes = SECTOR_BYTES;
  readonly files: readonly ByteSource[];
  readonly #metadata: WritableFile;
  readonly #index: LoggedSegments;
  #header: LsmtRecord;

  private constructor(metadata: WritableFile, target: ByteSource | undefined, header: LsmtRecord, index: LoggedSegments) {
    this.#metadata = metadata;
    this.files = targetFiles(metadata, target);
    this.#header = header;
    this.#index = index;
  }

  /** Makes a layer of two empty files; without `target` nothing can be read of what is mapped to it. Closing the layer closes all. */
  static async create(metadata: WritableFile, index: WritableFile, options: LsmtOptions, target?: ByteSource): Promise<WarpUpper> {
    for (const file of [metadata, index]) checkEmpty(file);
    const identity = identityOf(options, metadata.name);
    await metadata.truncate(options.virtualSize);
    await metadata.flush();
    const segments = await LoggedSegments.create(metadata, index, identity);
    const header = decodeRecord(encodeRecord({ ...identity, flags: FLAG_HEADER }), index.name);
    return new WarpUpper(metadata, target, header, segments);
  }

  /** Goes on with a layer as it was closed, or as a crash left it. Otherwise like `AppendLayer.open`. */
  static async open(metadata: WritableFile, index: WritableFile, target?: ByteSource, place?: UnsyncedPlace): Promise<WarpUpper> {
    const stored = await readWarpFiles(metadata, index, target, place);
    return new WarpUpper(metadata, target, stored.header, await LoggedSegments.continue(metadata, index, stored, place));
  }

  get name(): string {
    return this.#metadata.name;
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
    await this.#metadata.write(offset, bytes);
    const first = offset / SECTOR_BYTES;
    const end = first + bytes.length / SECTOR_BYTES;
    // What is mapped already stays in place, and the index file does not grow by rewriting.
    for (const [start, sectors] of this.#unmapped(first, end)) this.#index.add(start, sectors, start, METADATA_TAG);
    await this.#index.settle();
  }

  /** Maps whole sectors of the device to the target's bytes from `targetOffset` on, a multiple of 512. */
  async mapTarget(offset: number, length: number, targetOffset: number): Promise<void> {
    checkUnits(this, offset, length);
    const target = this.files.at(TARGET_TAG);
    if (!Number.isSafeInteger(targetOffset) || targetOffset < 0 || targetOffset % SECTOR_BYTES !== 0) {
      throw new LazyError("USAGE", `${this.name}: mapping to offset ${targetOffset} of the target, expected a multiple of ${SECTOR_BYTES}`);
    }
    if (target !== undefined && targetOffset + length > target.size) {
      throw new LazyError(
        "USAGE",
        `${this.name}: mapping to [${targetOffset}, ${targetOffset + length}) of a target of ${target.size} bytes`,
      );
    }
    this.#index.add(offset / SECTOR_BYTES, length / SECTOR_BYTES, targetOffset / SECTOR_BYTES, TARGET_TAG);
    await this.#index.settle();
  }

  async discard(offset: number, length: number): Promise<void> {
    checkUnits(this, offset, length);
    const end = Math.floor(this.#metadata.size / SECTOR_BYTES);
    this.#index.addZeros(offset / SECTOR_BYTES, length / SECTOR_BYTES, end, METADATA_TAG);
    await this.#index.settle();
  }

  async flush(): Promise<void> {
    await this.#index.flush();
  }

  async resize(virtualSize: number): Promise<void> {
    checkVirtualSize(virtualSize, this.name);
    await this.#metadata.truncate(virtualSize);
    await this.#index.resize(virtualSize);
    this.#header = { ...this.#header, virtualSize };
  }

  async seal(): Promise<LsmtLayer> {
    throw unsupported(`${this.name}: a warp layer cannot be sealed in place: commit it`);
  }

  async retire(): Promise<void> {
    await this.#index.closeLog();
  }

  async close(): Promise<void> {
    try {
      await this.flush();
    } finally {
      await this.#index.closeLog();
      for (const file of this.files) await file.close();
    }
  }

  #unmapped(first: number, end: number): [firstSector: number, sectors: number][] {
    const found: [number, number][] = [];
    this.segments.forRange(first, end, (start, sectors, mappedSector, tag) => {
      if (tag === METADATA_TAG && mappedSector === start) return;
      const last = found.at(-1);
      if (last !== undefined && last[0] + last[1] === start) last[1] += sectors;
      else found.push([start, sectors]);
    });
    return found;
  }
}
