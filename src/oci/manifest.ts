import { corrupt } from "../errors.ts";
import { parseDescriptor, type Descriptor } from "./descriptor.ts";
import { parseDocument } from "./document.ts";
import { documentKind, isImageConfig } from "./media-types.ts";
import { optionalString, optionalStringMap, requireArray } from "./json.ts";

/** One image for one platform. Keys that are not listed are kept by the parser. */
export interface Manifest {
  readonly schemaVersion: 2;
  readonly mediaType?: string;
  readonly artifactType?: string;
  readonly config: Descriptor;
  readonly layers: readonly Descriptor[];
  readonly subject?: Descriptor;
  readonly annotations?: Readonly<Record<string, string>>;
}

/** `mediaType` is what the document is stored as; its own, if it has one, must agree. Throws `CORRUPT` or `UNSUPPORTED`. */
export function parseManifest(bytes: Uint8Array, mediaType: string, where: string): Manifest {
  const raw = parseDocument(bytes, "manifest", mediaType, where);
  if (raw["config"] === undefined) throw corrupt(`${where}: config is missing`);
  const artifactType = optionalString(raw, "artifactType", where);
  const annotations = optionalStringMap(raw, "annotations", where);
  const own = optionalString(raw, "mediaType", where);
  return {
    ...raw,
    schemaVersion: 2,
    ...(own !== undefined && { mediaType: own }),
    ...(artifactType !== undefined && { artifactType }),
    config: parseDescriptor(raw["config"], `${where}: config`),
    layers: requireArray(raw, "layers", where).map((layer, at) => parseDescriptor(layer, `${where}: layer ${at}`)),
    ...(raw["subject"] !== undefined && raw["subject"] !== null && { subject: parseDescriptor(raw["subject"], `${where}: subject`) }),
    ...(annotations && { annotations }),
  };
}

/** What an artifact is, if the document says that it holds no image but something else in the same form. */
export function artifactTypeOf(bytes: Uint8Array, mediaType: string, where: string): string | undefined {
  // Any artifact has a type, as it has no config of an image. What has none is kept as it is; whoever reads it judges it.
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (documentKind(mediaType) !== "manifest" || !text.includes('"artifactType"')) return undefined;
  const { artifactType, config } = parseManifest(bytes, mediaType, where);
  return isImageConfig(config.mediaType) ? undefined : artifactType;
}
