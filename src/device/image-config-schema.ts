import { z } from "zod";
import { flagKey, MAX_INT, MAX_UINT, parseConfigText, sectionOf, textKey, wholeNumberKey, type ParsedConfig } from "./image-config-text.ts";

/** How whole blobs are downloaded in the background; the same keys in the service's configuration and in an image's. */
export const downloadSection = sectionOf({
  enable: flagKey().default(false),
  /** Seconds before it begins. */
  delay: wholeNumberKey(0, MAX_INT, "seconds").default(300),
  /** Seconds that chance adds at most; 0 and less count as 30. */
  delayExtra: wholeNumberKey(-MAX_INT, MAX_INT, "seconds").default(30),
  /** MiB a second; 0 and less: no limit. */
  maxMBps: wholeNumberKey(-MAX_INT, MAX_INT, "MiB a second").default(100),
  tryCnt: wholeNumberKey(1, MAX_INT, "tries").default(5),
  blockSize: wholeNumberKey(4096, 64 * 2 ** 20, "bytes").default(262_144),
});

const lower = sectionOf({
  file: textKey("a path").default(""),
  dir: textKey("a directory").default(""),
  digest: textKey("a digest").default(""),
  size: wholeNumberKey(0, Number.MAX_SAFE_INTEGER, "bytes").default(0),
  targetFile: textKey("a path").default(""),
  targetDigest: textKey("a digest").default(""),
  gzipIndex: textKey("a path").default(""),
});

const upper = sectionOf({
  data: textKey("a path").default(""),
  index: textKey("a path").default(""),
  target: textKey("a path").default(""),
  gzipIndex: textKey("a path").default(""),
  /** Written by snapshotters; the upper layer itself says how large the device is. */
  vsize: wholeNumberKey(0, MAX_UINT, "GiB").optional(),
});

/** An image configuration, version 1. See docs/configuration.md. */
export const imageConfigSchema = sectionOf({
  repoBlobUrl: textKey("a URL like https://HOST/v2/REPOSITORY/blobs").default(""),
  lowers: z.array(lower, { error: "expected a list of layers" }).default([]),
  upper: upper.prefault({}),
  resultFile: textKey("a path").default(""),
  /** Undefined: as the service's configuration says. Its keys are not merged. */
  download: downloadSection.optional(),
  accelerationLayer: flagKey().default(false),
  recordTracePath: textKey("a path").default(""),
});

export type ImageConfig = z.infer<typeof imageConfigSchema>;
/** A read-only layer of an image; what is not given is empty. */
export type LowerConfig = ImageConfig["lowers"][number];

/** Parses an image configuration. Throws `USAGE` that names key, value and expectation. */
export function parseImageConfig(text: string, name: string): ParsedConfig<ImageConfig> {
  return parseConfigText(imageConfigSchema, text, name);
}

/** Whether a JSON text looks like an image's configuration, and not like a service's. */
export function isImageConfig(text: string): boolean {
  return /"(?:repoBlobUrl|lowers|upper)"\s*:/.test(text);
}
