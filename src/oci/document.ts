import { corrupt, unsupported } from "../errors.ts";
import { parseJsonObject, requireArray, type JsonObject } from "./json.ts";
import { DOCKER_INDEX, DOCKER_MANIFEST, documentKind, OCI_INDEX, OCI_MANIFEST, type DocumentKind } from "./media-types.ts";

/** Manifests and indexes larger than this are refused before they are read. */
export const MAX_MANIFEST_BYTES = 4 << 20;

const KNOWN_KEYS = ["schemaVersion", "mediaType", "artifactType", "config", "layers", "manifests", "subject", "annotations"];

/**
 * The checks that manifests and indexes share. One document must never be both: a reader that looks at `layers` and one that
 * looks at `manifests` would see different images under one digest (CVE-2021-41190).
 */
export function parseDocument(bytes: Uint8Array, expected: DocumentKind, mediaType: string, where: string): JsonObject {
  if (bytes.length > MAX_MANIFEST_BYTES) throw corrupt(`${where}: ${bytes.length} bytes, expected at most ${MAX_MANIFEST_BYTES}`);
  const raw = parseJsonObject(bytes, where);
  refuseSchema1(raw, where);
  refuseLookalikes(raw, where);
  if ("layers" in raw && "manifests" in raw) throw corrupt(`${where}: has both layers and manifests, expected one of them`);
  if (raw["schemaVersion"] !== 2) throw corrupt(`${where}: schemaVersion is ${JSON.stringify(raw["schemaVersion"])}, expected 2`);
  checkMediaType(raw, expected, mediaType, where);
  requireArray(raw, expected === "manifest" ? "layers" : "manifests", where);
  return raw;
}

function refuseSchema1(raw: JsonObject, where: string): void {
  if (raw["schemaVersion"] === 1 || "fsLayers" in raw) {
    throw unsupported(`${where}: is a Docker schema 1 manifest; push the image again with a current tool`);
  }
}

/** Some readers match keys without regard to case; a `Layers` beside `layers` would show them another image. */
function refuseLookalikes(raw: JsonObject, where: string): void {
  for (const key of Object.keys(raw)) {
    const meant = KNOWN_KEYS.find((known) => known !== key && known.toLowerCase() === key.toLowerCase());
    if (meant) throw corrupt(`${where}: has a key ${JSON.stringify(key)}, expected ${meant}`);
  }
}

function checkMediaType(raw: JsonObject, expected: DocumentKind, mediaType: string, where: string): void {
  if (documentKind(mediaType) !== expected)
    throw unsupported(`${where}: media type is ${mediaType}, expected that of an image ${expected}`);
  const own = raw["mediaType"];
  if (own === undefined || own === null || own === "") return;
  if (own !== mediaType) throw corrupt(`${where}: says mediaType ${JSON.stringify(own)}, but is stored as ${mediaType}`);
}

/** `declared` if it names a manifest or an index, otherwise what the document itself says or looks like. */
export function detectMediaType(bytes: Uint8Array, declared: string | undefined, where: string): string {
  const stated = declared?.split(";")[0].trim() ?? "";
  if (documentKind(stated)) return stated;
  if (bytes.length > MAX_MANIFEST_BYTES) throw corrupt(`${where}: ${bytes.length} bytes, expected at most ${MAX_MANIFEST_BYTES}`);
  const raw = parseJsonObject(bytes, where);
  refuseSchema1(raw, where);
  const own = raw["mediaType"];
  if (own !== undefined && own !== "" && own !== null) {
    if (typeof own === "string" && documentKind(own)) return own;
    throw unsupported(
      `${where}: media type is ${JSON.stringify(own)}, expected ${[OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_INDEX].join(", ")}`,
    );
  }
  if (Array.isArray(raw["manifests"])) return OCI_INDEX;
  if (Array.isArray(raw["layers"])) return OCI_MANIFEST;
  throw corrupt(`${where}: is neither an image manifest nor an index`);
}
