import { corrupt, messageOf } from "../errors.ts";
import { MAX_MANIFEST_BYTES } from "../oci/document.ts";
import { requireArray, requireObject, requireString, type JsonObject } from "../oci/json.ts";

/** An entry of the `manifest.json` that `docker save` writes: an image by the members that hold it. */
export interface DockerImage {
  readonly config: string;
  /** Whole names, `app:v1` or `docker.io/library/app:v1`. */
  readonly names: readonly string[];
  /** Lowest first. */
  readonly layers: readonly string[];
}

/** Throws `CORRUPT`. */
export function parseDockerManifest(bytes: Uint8Array, where: string): DockerImage[] {
  if (bytes.length > MAX_MANIFEST_BYTES) throw corrupt(`${where}: ${bytes.length} bytes, expected at most ${MAX_MANIFEST_BYTES}`);
  const entries = parseJson(bytes, where);
  if (!Array.isArray(entries)) throw corrupt(`${where}: is no array, expected one with an entry for each image`);
  return entries.map((entry: unknown, at) => parseImage(requireObject(entry, `${where}: image ${at}`), `${where}: image ${at}`));
}

function parseJson(bytes: Uint8Array, where: string): unknown {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes)) as unknown;
  } catch (error) {
    throw corrupt(`${where}: not valid UTF-8 JSON: ${messageOf(error).slice(0, 200)}`, { cause: error });
  }
}

function parseImage(raw: JsonObject, where: string): DockerImage {
  return { config: requireString(raw, "Config", where), names: strings(raw, "RepoTags", where), layers: strings(raw, "Layers", where) };
}

/** Go writes an empty list as null. */
function strings(raw: JsonObject, key: string, where: string): string[] {
  if (raw[key] === undefined || raw[key] === null) return [];
  return requireArray(raw, key, where).map((value, at) => {
    if (typeof value === "string") return value;
    throw corrupt(`${where}: ${key} ${at} is ${JSON.stringify(value).slice(0, 100)}, expected a string`);
  });
}

export function encodeDockerManifest(images: readonly DockerImage[]): Uint8Array {
  const entries = images.map(({ config, names, layers }) => ({
    Config: config,
    RepoTags: names.length === 0 ? null : names,
    Layers: layers,
  }));
  return Buffer.from(JSON.stringify(entries));
}
