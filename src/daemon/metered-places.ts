import type { BlobPlace } from "../device/blob-place.ts";
import type { ImagePlaces } from "../device/image-config-places.ts";
import type { AuditLog } from "./log/audit-log.ts";
import { Stopwatch, TimedSource, type ErrorCounts, type ToldRead } from "./stopwatch.ts";

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
      blobSource: async (descriptor, options) => {
        const source = await place.blobSource(descriptor, options);
        const operation = options?.inBackground === true ? "bk_download" : "download";
        const pathname = `/${repoBlobUrl.replace(/\/$/, "")}/${descriptor.digest}`;
        const told = (read: ToldRead): void => audit?.read(operation, { pathname, ...read });
        return new TimedSource(source, downloads, { errors, told });
      },
    };
  };
  return { ...places, openRemote };
}
