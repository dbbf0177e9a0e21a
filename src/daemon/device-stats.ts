import { z } from "zod";

const count = z.number().nonnegative();

/** How long something took, as it adds up. */
const latency = z.object({
  seconds: count,
  /** The longest of the last ten seconds. */
  maxSeconds: count,
  /** How many took at most so long; ascending bounds in seconds, each with all that were shorter. */
  buckets: z.array(z.object({ seconds: count, count })),
});

const trace = z.discriminatedUnion("mode", [
  z.object({ mode: z.literal("record"), path: z.string(), active: z.boolean(), records: count, bytes: count }),
  z.object({ mode: z.literal("replay"), path: z.string(), active: z.boolean(), pieces: count, bytes: count, failed: count }),
]);

/** What a device has done since its process began; a process of another version may say more. */
export const deviceStatsSchema = z.object({
  id: z.string(),
  pid: z.int(),
  upSeconds: count,
  rssBytes: count,
  sizeBytes: count,
  blobBytes: count,
  layers: count,
  readOnly: z.boolean(),
  /** Reads by whoever uses the device; `cached` ones were answered without waiting. */
  reads: z.object({ cached: count, cachedBytes: count, waited: count, waitedBytes: count, latency }),
  writes: z.object({ requests: count, bytes: count, discards: count, flushes: count }),
  /** Reads of the places where layers are, local files among them. */
  fetches: z.object({ requests: count, bytes: count }),
  /** Requests to registries. */
  downloads: z.object({ requests: count, bytes: count, latency }),
  /** Layers that are downloaded whole: how many are to be, are by now, and were given up; bytes that this process has fetched of them. */
  layerDownloads: z.object({ total: count, done: count, failed: count, bytes: count }),
  /** What the cache of the device's process has dropped to stay under its size. */
  evictions: z.object({ files: count, bytes: count }),
  /** What is recorded of the device's reads, or replayed: the pieces and bytes of layers that are at hand by that. */
  trace: trace.optional(),
  /** Failed requests, by code of the error. */
  errors: z.record(z.string(), count),
});

export type DeviceStats = z.infer<typeof deviceStatsSchema>;
export type Latency = z.infer<typeof latency>;
export type TraceStats = z.infer<typeof trace>;
