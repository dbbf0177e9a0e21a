import { z } from "zod";
import { downloadSection } from "../../device/image-config-schema.ts";
import { flagKey, MAX_INT, MAX_UINT, sectionOf, textKey, wholeNumberKey } from "../../device/image-config-text.ts";

const MIN_REFILL_BYTES = 4096;
const MAX_REFILL_BYTES = 16 * 2 ** 20;
const MAX_ROTATED = 30;
/** The longest time, in whole seconds, that a timer can wait: its milliseconds are 32 bits with a sign. */
const MAX_TIMEOUT_SECONDS = Math.floor(MAX_INT / 1000);
const LEVEL = "a level: 0 debug, 1 info, 2 warning, 3 error, 4 fatal,";

const POWER_OF_TWO = `expected a power of two from ${MIN_REFILL_BYTES} to ${MAX_REFILL_BYTES}`;
const refillSize = z
  .int({ error: POWER_OF_TWO })
  .refine((bytes) => bytes >= MIN_REFILL_BYTES && bytes <= MAX_REFILL_BYTES && Number.isInteger(Math.log2(bytes)), { error: POWER_OF_TWO });

const CACHE_TYPES = ["", "file", "ocf", "download"] as const;
const cacheType = z.enum(CACHE_TYPES, { error: "expected file, ocf or download" });

const userAgent = z
  .string({ error: "expected a text" })
  .regex(/^[\x20-\x7e]{1,1024}$/, { error: "expected 1 to 1024 printable ASCII characters" });

const tokenService = z.string({ error: "expected HOST or HOST:PORT" }).regex(/^[^\s/@]+$/, { error: "expected HOST or HOST:PORT" });

const directory = () => textKey("a directory");
const path = () => textKey("a path");
const gigabytes = () => wholeNumberKey(1, MAX_UINT, "GiB");

/** The service's configuration, with the keys of earlier versions. See docs/configuration.md. */
export const serviceConfigSchema = sectionOf({
  registryCacheDir: directory().default("/opt/overlaybd/registry_cache"),
  registryCacheSizeGB: gigabytes().default(4),
  cacheType: cacheType.default("file"),
  cacheConfig: sectionOf({
    cacheType: cacheType.default(""),
    cacheDir: directory().default("/opt/overlaybd/registry_cache"),
    cacheSizeGB: gigabytes().default(4),
    refillSize: refillSize.default(262_144),
    blockSize: wholeNumberKey(0, MAX_UINT, "bytes").default(65_536),
  }).prefault({}),
  gzipCacheConfig: sectionOf({
    enable: flagKey().default(false),
    cacheDir: directory().default("/opt/overlaybd/gzip_cache"),
    cacheSizeGB: gigabytes().default(4),
    refillSize: wholeNumberKey(MIN_REFILL_BYTES, MAX_REFILL_BYTES, "bytes").default(1_048_576),
  }).prefault({}),
  credentialFilePath: path().default("/opt/overlaybd/cred.json"),
  credentialConfig: sectionOf({
    mode: z.enum(["", "file", "http", "https", "uds", "docker"], { error: "expected file, http, https, uds or docker" }).default(""),
    path: textKey("a path or a URL").default(""),
    timeout: wholeNumberKey(1, MAX_TIMEOUT_SECONDS, "seconds").default(1),
    client_cert_path: path().default(""),
    client_key_path: path().default(""),
    server_ca_path: path().default(""),
  }).prefault({}),
  certConfig: sectionOf({ certFile: path().default(""), keyFile: path().default("") }).prefault({}),
  userAgent: userAgent.default("lazylayer"),
  p2pConfig: sectionOf({
    enable: flagKey().default(false),
    address: textKey("an http:// URL").default("http://localhost:9731/accelerator"),
  }).prefault({}),
  download: downloadSection.prefault({}),
  prefetchConfig: sectionOf({ concurrency: wholeNumberKey(1, 1024, "reads at once").default(16) }).prefault({}),
  logLevel: wholeNumberKey(0, 4, LEVEL).default(1),
  logPath: path().min(1, { error: "expected a path" }).default("/var/log/overlaybd.log"),
  logConfig: sectionOf({
    logLevel: wholeNumberKey(0, 4, LEVEL).default(1),
    logPath: path().default(""),
    logSizeMB: wholeNumberKey(1, 2 ** 20, "MiB").default(10),
    logRotateNum: wholeNumberKey(1, MAX_ROTATED, "files").default(3),
  }).prefault({}),
  enableAudit: flagKey().default(true),
  auditPath: path().default("/var/log/overlaybd-audit.log"),
  exporterConfig: sectionOf({
    enable: flagKey().default(false),
    uriPrefix: z.string({ error: "expected a path" }).regex(/^\//, { error: "expected a path that begins with /" }).default("/metrics"),
    port: wholeNumberKey(0, 65_535, "a port").default(9863),
    updateInterval: wholeNumberKey(0, Number.MAX_SAFE_INTEGER, "microseconds").default(60_000_000),
  }).prefault({}),
  serviceConfig: sectionOf({
    enable: flagKey().default(false),
    address: textKey("an http:// URL").default("http://127.0.0.1:9862"),
  }).prefault({}),
  ioEngine: wholeNumberKey(0, 2).default(0),
  registryFsVersion: textKey("v1 or v2").default("v2"),
  enableThread: flagKey().default(false),
  /** Keys that overlaybd's service does not have. */
  lazylayer: sectionOf({ tokenServices: z.array(tokenService, { error: "expected a list of hosts" }).default([]) }).prefault({}),
});

export type RawServiceConfig = z.infer<typeof serviceConfigSchema>;
