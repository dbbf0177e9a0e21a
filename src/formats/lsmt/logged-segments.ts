import type { WritableFile } from "../../bytes/writable-file.ts";
import { FlushTurns } from "./flush-turns.ts";
import type { IndexLog } from "./index-log.ts";
import { MAX_MAPPING_SECTORS } from "./layout.ts";
import type { SegmentMap } from "./segment-map.ts";

/** Entries that wait for a flush before a write makes one itself. */
const MAX_WAITING_ENTRIES = 1 << 16;

/** The segments of a layer with an index file: what is mapped now, and the log that says so after a crash. */
export class LoggedSegments {
  readonly map: SegmentMap;
  readonly #data: WritableFile;
  readonly #log: IndexLog;
  readonly #turns: FlushTurns;

  constructor(data: WritableFile, log: IndexLog, map: SegmentMap) {
    this.map = map;
    this.#data = data;
    this.#log = log;
    this.#turns = new FlushTurns(async () => await this.#flushOnce());
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

  /** Bounds what waits: to be called after every change. */
  async settle(): Promise<void> {
    if (this.#log.waitingEntries > MAX_WAITING_ENTRIES) await this.flush();
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
    await this.#data.flush();
    await this.#log.store(entries);
  }

  #put(firstSector: number, sectors: number, mappedSector: number, zeroed: boolean, tag: number): void {
    this.map.insert(firstSector, sectors, mappedSector, zeroed, tag);
    this.#log.add(firstSector, sectors, mappedSector, zeroed, tag);
  }
}
