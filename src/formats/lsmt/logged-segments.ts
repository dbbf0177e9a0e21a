import type { WritableFile } from "../../bytes/writable-file.ts";
import { FlushTurns } from "./flush-turns.ts";
import { IndexLog, type StoredIndex } from "./index-log.ts";
import type { LayerIdentity } from "./layer-identity.ts";
import { MAX_MAPPING_SECTORS } from "./layout.ts";
import { SegmentMap } from "./segment-map.ts";
import type { UnsyncedPlace } from "./unsynced-log.ts";

/** Entries that wait for a flush before a write makes one itself. */
const MAX_WAITING_ENTRIES = 1 << 16;
/** What is kept of them before a write makes a flush: it is emptied only when nothing of it waits any more. */
const MAX_KEPT_BYTES = 1 << 20;

/** The segments of a layer with an index file: what is mapped now, and the log that says so after a crash. */
export class LoggedSegments {
  readonly map: SegmentMap;
  readonly #data: WritableFile;
  readonly #log: IndexLog;
  readonly #firstTag: number;
  readonly #turns: FlushTurns;
  readonly #keeping: FlushTurns;

  private constructor(data: WritableFile, log: IndexLog, map: SegmentMap, firstTag = 0) {
    this.map = map;
    this.#data = data;
    this.#log = log;
    this.#firstTag = firstTag;
    this.#turns = new FlushTurns(async () => await this.#flushOnce());
    this.#keeping = new FlushTurns(async () => await log.keep());
  }

  /** Begins an index file. */
  static async create(data: WritableFile, index: WritableFile, identity: LayerIdentity, place?: UnsyncedPlace): Promise<LoggedSegments> {
    return new LoggedSegments(data, await IndexLog.create(index, identity, place), new SegmentMap());
  }

  /** Goes on with an index file, whose tags are counted from `firstTag` on. */
  static async continue(
    data: WritableFile,
    index: WritableFile,
    stored: StoredIndex & { readonly firstTag?: number },
    place?: UnsyncedPlace,
  ): Promise<LoggedSegments> {
    if (stored.unsynced.entries.length > 0) {
      try {
        await data.flush();
      } catch (error) {
        // What the kernel could not write it forgets: no entry may point to it when the layer is opened again.
        await place?.file.truncate(0);
        throw error;
      }
    }
    return new LoggedSegments(data, await IndexLog.continue(index, stored, place), SegmentMap.replay(stored.log), stored.firstTag);
  }

  /** Maps sectors to data that was written. */
  add(firstSector: number, sectors: number, mappedSector: number, tag: number): void {
    for (let at = 0; at < sectors; at += MAX_MAPPING_SECTORS) {
      this.#put(firstSector + at, Math.min(MAX_MAPPING_SECTORS, sectors - at), mappedSector + at, false, tag);
    }
  }

  addZeros(firstSector: number, sectors: number, mappedSector: number, tag: number): void {
    for (let at = 0; at < sectors; at += MAX_MAPPING_SECTORS) {
      this.#put(firstSector + at, Math.min(MAX_MAPPING_SECTORS, sectors - at), mappedSector, true, tag);
    }
  }

  /** To be called after every change: keeps it, and bounds what waits. */
  async settle(): Promise<void> {
    const { waitingEntries, keptBytes } = this.#log;
    if (waitingEntries > MAX_WAITING_ENTRIES || keptBytes > MAX_KEPT_BYTES) await this.flush();
    else await this.#keeping.take();
  }

  async flush(): Promise<void> {
    await this.#turns.take();
  }

  async resize(virtualSize: number): Promise<void> {
    await this.#log.resize(virtualSize);
  }

  async closeLog(): Promise<void> {
    await this.#log.close();
  }

  /** The data comes first, so that no entry can outlive a crash that its data does not. */
  async #flushOnce(): Promise<void> {
    const entries = this.#log.waitingEntries;
    try {
      await this.#data.flush();
    } catch (error) {
      this.#log.forget();
      await this.#empty();
      throw error;
    }
    await this.#log.store(entries);
    await this.#empty();
  }

  /** Of what is kept, what needs not be. That this fails is no harm: what is in the index file counts once. */
  async #empty(): Promise<void> {
    await this.#keeping.take().catch(() => {});
  }

  #put(firstSector: number, sectors: number, mappedSector: number, zeroed: boolean, tag: number): void {
    this.map.insert(firstSector, sectors, mappedSector, zeroed, tag);
    this.#log.add(firstSector, sectors, mappedSector, zeroed, this.#firstTag + tag);
  }
}
