import { corrupt, LazyError } from "../errors.ts";
import { parseDescriptor, type Descriptor } from "./descriptor.ts";
import { hexOf, type Digest } from "./digest.ts";
import { detectMediaType, parseDocument } from "./document.ts";
import { parseIndex, type ImageIndex } from "./index.ts";
import { optionalString, optionalStringMap, requireObject } from "./json.ts";
import { documentKind, OCI_INDEX } from "./media-types.ts";

/** A document that says what it belongs to, and how it appears among what belongs there. */
export interface Referrer {
  readonly subject: Descriptor;
  readonly descriptor: Descriptor;
}

/** The tag under which places without a referrers API list what belongs to a document (distribution specification, "Referrers Tag Schema"). */
export function referrersTag(subject: Digest): string {
  return `sha256-${hexOf(subject)}`;
}

const REFERRERS_TAG = /^sha256-[0-9a-f]{64}$/;

/** Whether a tag lists referrers, rather than being somebody's name for an image. */
export function isReferrersTag(tag: string): boolean {
  return REFERRERS_TAG.test(tag);
}

/** What a manifest or an index with a subject is to those who ask for referrers; undefined without a subject. Throws `CORRUPT`. */
export function parseReferrer(bytes: Uint8Array, { mediaType, digest, size }: Descriptor, where: string): Referrer | undefined {
  const kind = documentKind(mediaType);
  // What has no subject is kept as it is, whatever it is; whoever reads it judges it.
  if (kind === undefined || !Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).includes('"subject"')) return undefined;
  const raw = parseDocument(bytes, kind, mediaType, where);
  if (raw["subject"] === undefined || raw["subject"] === null) return undefined;
  const config = kind === "manifest" ? optionalString(requireObject(raw["config"], `${where}: config`), "mediaType", where) : undefined;
  const artifactType = optionalString(raw, "artifactType", where) || config;
  const annotations = optionalStringMap(raw, "annotations", where);
  return {
    subject: parseDescriptor(raw["subject"], `${where}: subject`),
    descriptor: { mediaType, digest, size, ...(artifactType && { artifactType }), ...(annotations && { annotations }) },
  };
}

/** The list with the referrer in it once; the same list if it was there as it is now. Undefined stands for a list that does not exist. */
export function withReferrer(list: ImageIndex | undefined, descriptor: Descriptor): ImageIndex {
  const before = list?.manifests ?? [];
  const at = before.findIndex(({ digest }) => digest === descriptor.digest);
  const same = at >= 0 && before[at].artifactType === descriptor.artifactType;
  if (list && same) return list;
  const manifests = at < 0 ? [...before, descriptor] : before.with(at, descriptor);
  // A list that itself claims to belong to something would have to be listed in turn.
  const { subject: _, ...rest } = list ?? { schemaVersion: 2, mediaType: OCI_INDEX, manifests };
  return { ...rest, manifests };
}

/** A list as it is stored under the tag. Throws `UNSUPPORTED` if the tag names something else, which must not be replaced. */
export function parseReferrersList(bytes: Uint8Array, mediaType: string | undefined, where: string): ImageIndex {
  const found = detectMediaType(bytes, mediaType, where);
  if (documentKind(found) === "index") return parseIndex(bytes, found, where);
  throw new LazyError("UNSUPPORTED", `${where}: is an image, expected a list of referrers; move that tag`);
}

/** Most that a subject may have; whoever can push could otherwise make lists without end. */
export const MAX_REFERRERS = 10_000;

export function filterReferrers(descriptors: readonly Descriptor[], artifactType: string | undefined, where: string): Descriptor[] {
  if (descriptors.length > MAX_REFERRERS) throw corrupt(`${where}: more than ${MAX_REFERRERS} referrers`);
  return descriptors.filter((descriptor) => artifactType === undefined || descriptor.artifactType === artifactType);
}
