import { LazyError } from "../../errors.ts";
import { parseConfigText, type ParsedConfig } from "../../device/image-config-text.ts";
import { serviceConfigSchema, type RawServiceConfig } from "./service-schema.ts";

type CacheConfig = Pick<RawServiceConfig["cacheConfig"], "cacheDir" | "cacheSizeGB" | "refillSize"> & {
  readonly cacheType: "file" | "download";
};

/**
 * What counts of a service's configuration: keys of earlier versions are folded into their successors, and keys without effect left out.
 * As JSON it is a service configuration itself.
 */
export type ServiceConfig = Pick<
  RawServiceConfig,
  | "gzipCacheConfig"
  | "credentialConfig"
  | "certConfig"
  | "userAgent"
  | "p2pConfig"
  | "download"
  | "prefetchConfig"
  | "logConfig"
  | "enableAudit"
  | "auditPath"
  | "serviceConfig"
  | "lazylayer"
> & {
  readonly cacheConfig: CacheConfig;
  readonly exporterConfig: Omit<RawServiceConfig["exporterConfig"], "updateInterval">;
};

type Report = (message: string) => void;

const OCF_BLOCK_SIZES: readonly number[] = [1, 2, 4, 8, 16].map((pages) => pages * 4096);

/**
 * Parses the JSON text of a service's configuration. Notices say which keys mean something else here, or nothing.
 * Throws `USAGE` that names key, value and expectation for what cannot be done. See docs/configuration.md.
 */
export function parseServiceConfig(text: string, name: string): ParsedConfig<ServiceConfig> {
  const { config: raw, notices: unknown } = parseConfigText(serviceConfigSchema, text, name);
  const notices = [...unknown];
  const problems: string[] = [];
  const notice = (message: string): void => void notices.push(message);
  const problem = (message: string): void => void problems.push(message);
  const { updateInterval, ...exporterConfig } = raw.exporterConfig;
  const config: ServiceConfig = {
    cacheConfig: cacheConfigOf(raw, notice, problem),
    gzipCacheConfig: gzipCacheConfigOf(raw, notice),
    credentialConfig: credentialConfigOf(raw, notice, problem),
    certConfig: raw.certConfig,
    userAgent: raw.userAgent,
    p2pConfig: raw.p2pConfig,
    download: raw.download,
    prefetchConfig: raw.prefetchConfig,
    logConfig: logConfigOf(raw, notice),
    enableAudit: raw.enableAudit && raw.auditPath !== "",
    auditPath: raw.auditPath,
    exporterConfig,
    serviceConfig: serviceConfigOf(raw, notice, problem),
    lazylayer: raw.lazylayer,
  };
  checkPairs(raw, problem);
  checkP2pAddress(raw, problem);
  tellMeaningless(raw, updateInterval, notice);
  if (problems.length > 0) throw new LazyError("USAGE", `${name}: ${problems.join("; ")}`);
  return { config, notices };
}

function cacheConfigOf(raw: RawServiceConfig, notice: Report, problem: Report): CacheConfig {
  const { cacheType: own, cacheDir, cacheSizeGB, refillSize, blockSize } = raw.cacheConfig;
  const isLegacy = own === "";
  const key = isLegacy ? "cacheType" : "cacheConfig.cacheType";
  const type = isLegacy ? raw.cacheType : own;
  if (isLegacy && raw.cacheConfig.cacheDir !== serviceDefaults.cacheConfig.cacheDir) {
    notice(
      `cacheConfig.cacheDir has no effect without cacheConfig.cacheType; registryCacheDir ${JSON.stringify(raw.registryCacheDir)} counts`,
    );
  }
  if (!isLegacy && raw.registryCacheDir !== serviceDefaults.registryCacheDir) {
    notice(`registryCacheDir has no effect beside cacheConfig.cacheType; cacheConfig.cacheDir ${JSON.stringify(cacheDir)} counts`);
  }
  if (type === "") problem(`${key} is "", expected file, ocf or download`);
  if (type === "ocf") {
    notice(
      `${key} is "ocf": what is read is kept in a cache of blocks in the cache directory, as with "file"; cacheConfig.blockSize has no effect`,
    );
    if (!OCF_BLOCK_SIZES.includes(blockSize)) {
      problem(`cacheConfig.blockSize is ${blockSize}, expected one of ${OCF_BLOCK_SIZES.join(", ")}`);
    }
  }
  return {
    cacheType: type === "download" ? "download" : "file",
    cacheDir: isLegacy ? raw.registryCacheDir : cacheDir,
    cacheSizeGB: isLegacy ? raw.registryCacheSizeGB : cacheSizeGB,
    refillSize,
  };
}

function gzipCacheConfigOf({ gzipCacheConfig }: RawServiceConfig, notice: Report): RawServiceConfig["gzipCacheConfig"] {
  const refillSize = 2 ** Math.round(Math.log2(gzipCacheConfig.refillSize));
  if (gzipCacheConfig.enable && refillSize !== gzipCacheConfig.refillSize) {
    notice(`gzipCacheConfig.refillSize is ${gzipCacheConfig.refillSize}; ${refillSize} is used, the nearest power of two`);
  }
  return { ...gzipCacheConfig, refillSize };
}

function credentialConfigOf(raw: RawServiceConfig, notice: Report, problem: Report): RawServiceConfig["credentialConfig"] {
  const { mode, path, client_cert_path, client_key_path, server_ca_path } = raw.credentialConfig;
  if (mode === "") return { ...raw.credentialConfig, mode: "file", path: raw.credentialFilePath };
  if (path === "" && mode !== "docker") notice("credentialConfig.path is empty: registries are asked without credentials");
  if ((mode === "http" || mode === "https") && path !== "" && URL.parse(path)?.protocol !== `${mode}:`) {
    problem(`credentialConfig.path is ${JSON.stringify(path)}, expected a URL that begins with ${mode}://`);
  }
  if (client_key_path !== "" && client_cert_path === "") problem(`credentialConfig.client_cert_path is "", expected the certificate of client_key_path`); // prettier-ignore
  if (mode !== "https" && [client_cert_path, client_key_path, server_ca_path].some((file) => file !== "")) {
    notice(`credentialConfig.client_cert_path, client_key_path and server_ca_path have no effect in mode ${JSON.stringify(mode)}`);
  }
  return raw.credentialConfig;
}

function logConfigOf({ logConfig, logLevel, logPath }: RawServiceConfig, notice: Report): RawServiceConfig["logConfig"] {
  if (logConfig.logPath !== "") return logConfig;
  const { logSizeMB, logRotateNum } = serviceDefaults.logConfig;
  if (JSON.stringify(logConfig) !== JSON.stringify(serviceDefaults.logConfig)) {
    notice("logConfig has no effect without logConfig.logPath; logLevel and logPath count");
  }
  return { logLevel, logPath, logSizeMB, logRotateNum };
}

function checkPairs({ certConfig: { certFile, keyFile } }: RawServiceConfig, problem: Report): void {
  if ((certFile === "") === (keyFile === "")) return;
  const [missing, given] = certFile === "" ? ["certFile", "keyFile"] : ["keyFile", "certFile"];
  problem(`certConfig.${missing} is "", expected a path, as ${given} is given`);
}

/** Clients of the service ask for `/snapshot`, whatever the address says behind its port. */
function serviceConfigOf({ serviceConfig }: RawServiceConfig, notice: Report, problem: Report): RawServiceConfig["serviceConfig"] {
  const { enable, address } = serviceConfig;
  if (!enable) return serviceConfig;
  const url = usableUrl(address);
  if (url === undefined) {
    problem(wrongAddress("serviceConfig", address));
    return serviceConfig;
  }
  if (url.pathname !== "/") {
    notice(
      `serviceConfig.address is ${JSON.stringify(address)}; its path has no effect, and snapshots are asked of ${url.origin}/snapshot`,
    );
  }
  return { enable, address: url.origin };
}

function checkP2pAddress({ p2pConfig: { enable, address } }: RawServiceConfig, problem: Report): void {
  if (enable && usableUrl(address) === undefined) problem(wrongAddress("p2pConfig", address));
}

function usableUrl(address: string): URL | undefined {
  const url = URL.parse(address);
  return url?.protocol === "http:" && url.search === "" && url.username === "" ? url : undefined;
}

function wrongAddress(key: "p2pConfig" | "serviceConfig", address: string): string {
  return `${key}.address is ${JSON.stringify(address)}, expected a URL like ${serviceDefaults[key].address}`;
}

function tellMeaningless(raw: RawServiceConfig, updateInterval: number, notice: Report): void {
  if (raw.ioEngine !== 0) notice(`ioEngine is ${raw.ioEngine}, and has no effect: local files are read in the same way always`);
  if (raw.registryFsVersion !== "v2") {
    notice(`registryFsVersion is ${JSON.stringify(raw.registryFsVersion)}, and has no effect: there is one way to speak to registries`);
  }
  if (raw.enableThread) notice("enableThread is true, and has no effect: each device has a process of its own");
  if (updateInterval !== serviceDefaults.exporterConfig.updateInterval) {
    notice("exporterConfig.updateInterval has no effect: figures are gathered when they are asked for");
  }
}

const serviceDefaults = serviceConfigSchema.parse({});
