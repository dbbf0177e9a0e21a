/** Reads on a worker thread what can be had there without waiting for anybody. */
export interface SyncReader {
  /** Fills `target` with the content at `offset`; false when that takes the main thread. */
  readCached(offset: number, target: Uint8Array): boolean;
}

/**
 * Where workers find their reader: a module that exports `openSyncReader(data): SyncReader`, and the data to give it.
 * It is loaded by its address because this room knows no formats, and the reader has to decode one.
 */
export interface SyncReaderModule {
  readonly url: string;
  /** Anything that can be posted to a worker. */
  readonly data: unknown;
}

export async function loadSyncReader({ url, data }: SyncReaderModule): Promise<SyncReader> {
  const loaded: unknown = await import(url);
  if (!opensReaders(loaded)) throw new TypeError(`${url} exports no function openSyncReader`);
  const reader = loaded.openSyncReader(data);
  if (!isSyncReader(reader)) throw new TypeError(`${url}: openSyncReader answers no reader`);
  return reader;
}

function opensReaders(value: unknown): value is { openSyncReader(data: unknown): unknown } {
  return typeof value === "object" && value !== null && "openSyncReader" in value && typeof value.openSyncReader === "function";
}

function isSyncReader(value: unknown): value is SyncReader {
  return typeof value === "object" && value !== null && "readCached" in value && typeof value.readCached === "function";
}
