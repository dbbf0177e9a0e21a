import type { ByteSource } from "../bytes/source.ts";
import type { BlobPlace } from "../device/blob-place.ts";
import type { ImagePlaces } from "../device/image-config-places.ts";
import type { AuditedRead, AuditLog } from "./log/audit-log.ts";
import { Stopwatch, TimedSource, type ErrorCounts } from "./stopwatch.ts";

/** What a device process counts. */
export interface Meters {
  /** Reads that went through the main thread. */
  readonly reads: Stopwatch;
  /** Requests to registries. */
  readonly downloads: Stopwatch;
  /** What the caches dropped. */
  readonly evictions: { files: number; bytes: number };
  readonly errors: ErrorCounts;
}

export function newMeters(): Meters {
  return { reads: new Stopwatch(), downloads: new Stopwatch(), evictions: { files: 0, bytes: 0 }, errors: {} };
}

/** What is asked of registries is timed, and counted when it fails: others try again, and nobody hears of it otherwise. */
export function meteredPlaces<T extends ImagePlaces>(places: T, { downloads, errors }: Meters, audit: AuditLog | undefined): T {
  const openRemote = async (repoBlobUrl: string): Promise<BlobPlace> => {
    const place = await places.openRemote(repoBlobUrl);
    return {
      name: place.name,
      blobSize: async (...args) => await place.blobSize(...args),
      blobSource: async (descriptor) => {
        const source = await place.blobSource(descriptor);
        const pathname = `/${repoBlobUrl.replace(/\/$/, "")}/${descriptor.digest}`;
        const audited = audit === undefined ? source : new AuditedSource(source, pathname, (read) => audit.read("download", read));
        return new TimedSource(audited, downloads, errors);
      },
    };
  };
  return { ...places, openRemote };
}

/** A source whose reads are told of, be they answered or not. Closing it closes the other. */
class AuditedSource implements ByteSource {
  readonly name: string;
  readonly size: number;
  readonly #source: ByteSource;
  readonly #pathname: string;
  readonly #tell: (read: AuditedRead) => void;

  constructor(source: ByteSource, pathname: string, tell: (read: AuditedRead) => void) {
    this.name = source.name;
    this.size = source.size;
    this.#source = source;
    this.#pathname = pathname;
    this.#tell = tell;
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    const startMs = performance.now();
    let size = -1;
    try {
      const bytes = await this.#source.read(offset, length);
      size = bytes.length;
      return bytes;
    } finally {
      this.#tell({ pathname: this.#pathname, offset, size, milliseconds: performance.now() - startMs });
    }
  }

  distrust(): void {
    this.#source.distrust?.();
  }

  async close(): Promise<void> {
    await this.#source.close();
  }
}
