import { LazyError } from "../errors.ts";
import { optionalString, requireObject } from "./json.ts";

/** As in an index; keys that are not listed are kept by the parser. */
export interface Platform {
  readonly os: string;
  readonly architecture: string;
  readonly variant?: string;
}

/** The machine, in Node's words: `process.platform` and `process.arch`. */
export interface HostPlatform {
  readonly os: string;
  readonly architecture: string;
}

const ARCHITECTURES: Readonly<Record<string, readonly [architecture: string, variant?: string]>> = {
  x86_64: ["amd64"],
  "x86-64": ["amd64"],
  x64: ["amd64"],
  aarch64: ["arm64"],
  armhf: ["arm", "v7"],
  armel: ["arm", "v6"],
  i386: ["386"],
  ia32: ["386"],
  mipsel: ["mipsle"],
  mips64el: ["mips64le"],
};
const SYSTEMS: Readonly<Record<string, string>> = { macos: "darwin", win32: "windows" };
/** A platform's variants from the most to the least capable; each runs what those behind it run. */
const VARIANTS: Readonly<Record<string, readonly string[]>> = {
  arm: ["v8", "v7", "v6", "v5"],
  amd64: ["v4", "v3", "v2", "v1"],
};
const DEFAULT_VARIANT: Readonly<Record<string, string>> = { arm: "v7", arm64: "v8", amd64: "v1" };
const PART = /^[A-Za-z0-9][A-Za-z0-9_.-]*$/;

/** `os/arch[/variant]`, or `local` for the given host. Throws `USAGE`. */
export function parsePlatform(text: string, host: HostPlatform): Platform {
  if (text === "local") return normalizePlatform(host.os, host.architecture === "ppc64" ? "ppc64le" : host.architecture);
  const [os, architecture, variant, ...rest] = text.split("/");
  if (architecture === undefined || rest.length > 0 || ![os, architecture, variant ?? "x"].every((part) => PART.test(part))) {
    throw new LazyError("USAGE", `platform ${JSON.stringify(text)}: expected os/arch or os/arch/variant, such as linux/amd64, or local`);
  }
  return normalizePlatform(os, architecture, variant);
}

/** The `platform` of an index entry, with unknown keys kept. Throws `CORRUPT`. */
export function parsePlatformObject(value: unknown, where: string): Platform {
  const raw = requireObject(value, `${where}: platform`);
  const os = optionalString(raw, "os", `${where}: platform`) ?? "";
  const architecture = optionalString(raw, "architecture", `${where}: platform`) ?? "";
  const variant = optionalString(raw, "variant", `${where}: platform`);
  return { ...raw, os, architecture, ...(variant !== undefined && { variant }) };
}

export function formatPlatform(platform: Platform): string {
  return [platform.os, platform.architecture, ...(platform.variant ? [platform.variant] : [])].join("/");
}

/** Whether both name the same platform: `arm64/v8` is `arm64`, `x86_64` is `amd64`, `arm` is `arm/v7`. */
export function samePlatform(one: Platform, other: Platform): boolean {
  const [a, b] = [normalized(one), normalized(other)];
  return a.os === b.os && a.architecture === b.architecture && variantOf(a) === variantOf(b);
}

/** The entry for the platform: an exact match first, then the most capable variant that the platform also runs. */
export function selectPlatform<E extends { readonly digest: string; readonly platform?: Platform }>(
  entries: readonly E[],
  wanted: Platform,
): E | undefined {
  for (const candidate of runnableVariants(normalized(wanted))) {
    const found = entries.find((entry) => entry.platform && samePlatform(entry.platform, candidate));
    if (found) return found;
  }
  return undefined;
}

function runnableVariants(wanted: Platform): Platform[] {
  const order = VARIANTS[wanted.architecture] ?? [];
  const at = order.indexOf(variantOf(wanted));
  return [wanted, ...(at < 0 ? [] : order.slice(at + 1).map((variant) => ({ ...wanted, variant })))];
}

function normalized(platform: Platform): Platform {
  return normalizePlatform(platform.os, platform.architecture, platform.variant);
}

function variantOf(platform: Platform): string {
  return platform.variant ?? DEFAULT_VARIANT[platform.architecture] ?? "";
}

function normalizePlatform(os: string, architecture: string, variant?: string): Platform {
  const system = os.toLowerCase();
  const [arch, impliedVariant] = ARCHITECTURES[architecture.toLowerCase()] ?? [architecture.toLowerCase()];
  const level = variant ? variant.toLowerCase().replace(/^(?=\d)/, "v") : impliedVariant;
  const isDefault = level === undefined || level === DEFAULT_VARIANT[arch];
  return {
    os: SYSTEMS[system] ?? system,
    architecture: arch,
    ...(isDefault && arch !== "arm" ? {} : { variant: level ?? DEFAULT_VARIANT[arch] }),
  };
}
