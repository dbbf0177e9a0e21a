import { corrupt } from "../errors.ts";
import { parseDigest, type Digest } from "./digest.ts";
import { optionalString, optionalStringMap, requireObject, requireString, type JsonObject } from "./json.ts";
import { parsePlatformObject, type Platform } from "./platform.ts";

/**
 * Points at content. Parsed descriptors keep keys that are not listed here (`urls`, `data`, …);
 * they survive `{ ...descriptor }` and serialisation. `urls` are never followed.
 */
export interface Descriptor {
  readonly mediaType: string;
  readonly digest: Digest;
  /** In bytes. */
  readonly size: number;
  readonly platform?: Platform;
  readonly artifactType?: string;
  readonly annotations?: Readonly<Record<string, string>>;
}

/** Throws `CORRUPT` (`UNSUPPORTED` for other digest algorithms) with `where` in front, e.g. `manifest of r/x:1: layer 3`. */
export function parseDescriptor(value: unknown, where: string): Descriptor {
  const raw: JsonObject = requireObject(value, where);
  const size = raw["size"];
  if (typeof size !== "number" || !Number.isSafeInteger(size) || size < 0) {
    throw corrupt(`${where}: size is ${JSON.stringify(size)}, expected a number of bytes`);
  }
  const platform = raw["platform"] === undefined || raw["platform"] === null ? undefined : parsePlatformObject(raw["platform"], where);
  const artifactType = optionalString(raw, "artifactType", where);
  const annotations = optionalStringMap(raw, "annotations", where);
  return {
    ...raw,
    mediaType: requireString(raw, "mediaType", where),
    digest: parseDigest(raw["digest"], where),
    size,
    ...(platform && { platform }),
    ...(artifactType !== undefined && { artifactType }),
    ...(annotations && { annotations }),
  };
}
