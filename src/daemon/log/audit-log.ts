import type { ToldRead } from "../stopwatch.ts";
import type { LineFile } from "./line-file.ts";
import { linePrefix, onOneLine } from "./log-line.ts";

export interface AuditedRead extends ToldRead {
  /** URL of the blob, with a slash in front. */
  readonly pathname: string;
}

export interface AuditedEviction {
  readonly bytes: number;
  /** What the cache holds afterwards. */
  readonly usedBytes: number;
}

/** What was asked of registries, and what the caches dropped, a line each, in the form of overlaybd's audit log. See docs/daemon.md. */
export class AuditLog {
  readonly #file: Pick<LineFile, "append">;

  constructor(file: Pick<LineFile, "append">) {
    this.#file = file;
  }

  /** A read of a registry; `bk_download` by the download of whole layers. */
  read(operation: "download" | "bk_download", { pathname, offset, size, milliseconds }: AuditedRead): void {
    const latency = Math.round(milliseconds * 1000);
    this.#append(`${operation}[pathname=${onOneLine(pathname)}][offset=${offset}][size=${size}][latency=${latency}]`);
  }

  eviction({ bytes, usedBytes }: AuditedEviction): void {
    this.#append(`eviction[actualEvict=${bytes}][evictByCache=${bytes}][evictByDisk=0][totalUsed=${usedBytes}]`);
  }

  #append(text: string): void {
    this.#file.append(`${linePrefix(new Date(), "audit")}${text}\n`);
  }
}
