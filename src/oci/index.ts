import { parseDescriptor, type Descriptor } from "./descriptor.ts";
import { parseDocument } from "./document.ts";
import { optionalString, optionalStringMap, requireArray } from "./json.ts";

/** Images for several platforms, or whatever else belongs together. Keys that are not listed are kept by the parser. */
export interface ImageIndex {
  readonly schemaVersion: 2;
  readonly mediaType?: string;
  readonly artifactType?: string;
  readonly manifests: readonly Descriptor[];
  readonly subject?: Descriptor;
  readonly annotations?: Readonly<Record<string, string>>;
}

/** `mediaType` is what the document is stored as; its own, if it has one, must agree. Throws `CORRUPT` or `UNSUPPORTED`. */
export function parseIndex(bytes: Uint8Array, mediaType: string, where: string): ImageIndex {
  const raw = parseDocument(bytes, "index", mediaType, where);
  const artifactType = optionalString(raw, "artifactType", where);
  const annotations = optionalStringMap(raw, "annotations", where);
  const own = optionalString(raw, "mediaType", where);
  return {
    ...raw,
    schemaVersion: 2,
    ...(own !== undefined && { mediaType: own }),
    ...(artifactType !== undefined && { artifactType }),
    manifests: requireArray(raw, "manifests", where).map((entry, at) => parseDescriptor(entry, `${where}: entry ${at}`)),
    ...(raw["subject"] !== undefined && raw["subject"] !== null && { subject: parseDescriptor(raw["subject"], `${where}: subject`) }),
    ...(annotations && { annotations }),
  };
}
