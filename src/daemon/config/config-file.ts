import { readFile } from "node:fs/promises";
import type { ParsedConfig } from "../../device/image-config-text.ts";
import { LazyError, messageOf } from "../../errors.ts";
import { parseServiceConfig, type ServiceConfig } from "./service-config.ts";

/** Reads the service's configuration; without a path, the defaults count. Throws as `readConfigText` and `parseServiceConfig` do. */
export async function readServiceConfig(path: string | undefined): Promise<ParsedConfig<ServiceConfig>> {
  return path === undefined ? parseServiceConfig("{}", "defaults") : parseServiceConfig(await readConfigText(path), path);
}

/** Reads a configuration file. Throws `NOT_FOUND` when it is not there, and `UNAVAILABLE` when it cannot be read. */
export async function readConfigText(path: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (cause) {
    const code = cause instanceof Error && "code" in cause && cause.code === "ENOENT" ? "NOT_FOUND" : "UNAVAILABLE";
    throw new LazyError(code, `${path}: cannot be read: ${messageOf(cause)}`, { cause });
  }
}
