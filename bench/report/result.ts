import { z } from "zod";
import { IMAGE_NAMES } from "../images/bench-images.ts";
import { PEERS } from "../measure/round.ts";

const seconds = z.number();
const bytes = z.int();

const round = z.object({
  floor: z.object({ tarBytes: bytes, wall: seconds, cpu: seconds }),
  conversion: z.object({
    wall: seconds,
    cpu: seconds,
    rss: bytes,
    written: bytes,
    scratch: bytes,
    registryCpu: seconds,
    requests: z.record(z.string(), z.int()),
    layerBytes: z.array(bytes),
  }),
  peers: z.partialRecord(z.enum(PEERS), seconds),
});

const imageResult = z.object({
  name: z.enum(IMAGE_NAMES),
  about: z.string(),
  /** Bytes of each layer as it is in the source, bottom first. */
  storedLayerBytes: z.array(bytes),
  rounds: z.array(round).min(1),
  /** Where the time of one more conversion went. */
  stages: z.array(z.object({ name: z.string(), mainThread: seconds, otherThreads: seconds })).optional(),
});

/** What a run of the benchmark writes down: every figure of every round, nothing derived. Times are seconds, sizes bytes. */
export const benchResult = z.object({
  format: z.literal(1),
  date: z.string(),
  commit: z.string(),
  machine: z.object({
    cpus: z.int(),
    model: z.string(),
    memoryBytes: bytes,
    kernel: z.string(),
    programs: z.record(z.string(), z.string()),
  }),
  /** Load averages (one minute) at the start and the end: other people's work shows here. */
  load: z.array(z.number()),
  /** Peers that did not run, and why. */
  missing: z.partialRecord(z.enum(PEERS), z.string()),
  images: z.array(imageResult),
});

export type ImageResult = z.infer<typeof imageResult>;
export type BenchResult = z.infer<typeof benchResult>;
