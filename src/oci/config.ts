import { corrupt } from "../errors.ts";
import { parseDigest, type Digest } from "./digest.ts";
import { optionalString, parseJsonObject, requireArray, requireObject, type JsonObject } from "./json.ts";

/** Configs larger than this are refused before they are read. */
export const MAX_CONFIG_BYTES = 8 << 20;

/** An image config. Only what conversion and lookup need is typed; every other key is kept by the parser, at its place. */
export interface ImageConfig {
  readonly os?: string;
  readonly architecture?: string;
  readonly variant?: string;
  /** What to run and how (`Env`, `Entrypoint`, `Healthcheck`, …), untouched. */
  readonly config?: JsonObject;
  readonly rootfs: RootFilesystem;
  readonly history?: readonly JsonObject[];
}

export interface RootFilesystem {
  readonly type: "layers";
  /** Digests of the uncompressed layers, lowest first. */
  readonly diff_ids: readonly Digest[];
}

/** Throws `CORRUPT`. */
export function parseConfig(bytes: Uint8Array, where: string): ImageConfig {
  if (bytes.length > MAX_CONFIG_BYTES) throw corrupt(`${where}: ${bytes.length} bytes, expected at most ${MAX_CONFIG_BYTES}`);
  const raw = parseJsonObject(bytes, where);
  const os = optionalString(raw, "os", where);
  const architecture = optionalString(raw, "architecture", where);
  const variant = optionalString(raw, "variant", where);
  const { config, history } = raw;
  return {
    ...raw,
    ...(os !== undefined && { os }),
    ...(architecture !== undefined && { architecture }),
    ...(variant !== undefined && { variant }),
    ...(config !== undefined && config !== null && { config: requireObject(config, `${where}: config`) }),
    rootfs: parseRootFilesystem(raw, where),
    ...(history !== undefined &&
      history !== null && {
        history: requireArray(raw, "history", where).map((step, at) => requireObject(step, `${where}: history ${at}`)),
      }),
  };
}

function parseRootFilesystem(raw: JsonObject, where: string): RootFilesystem {
  const rootfs = requireObject(raw["rootfs"], `${where}: rootfs`);
  if (rootfs["type"] !== "layers") throw corrupt(`${where}: rootfs.type is ${JSON.stringify(rootfs["type"])}, expected "layers"`);
  // Go writes an image without layers as null.
  const diffIds = rootfs["diff_ids"] === null ? [] : requireArray(rootfs, "diff_ids", `${where}: rootfs`);
  return { ...rootfs, type: "layers", diff_ids: diffIds.map((text, at) => parseDigest(text, `${where}: diff_id ${at}`)) };
}
