import type { ByteSource } from "../bytes/source.ts";
import { corrupt } from "../errors.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import type { Digest } from "../oci/digest.ts";
import { MAX_MANIFEST_BYTES } from "../oci/document.ts";
import type { ResolveTarget } from "../oci/image-store.ts";

/** What differs between the kinds of archives: where images and blobs are in them. Nothing that it gives has been checked. */
export interface ArchiveContent {
  /** The image that is meant. Throws `NOT_FOUND`, and `USAGE` when several are. */
  find(target: ResolveTarget): Promise<Descriptor>;
  /** A blob; undefined if it is not there. Closing it closes nothing. */
  open(digest: Digest): ByteSource | undefined;
  /** The list of what belongs to a document, if there is one. */
  referrersOf(subject: Digest): Descriptor | undefined;
}

/** The whole of a document. Throws `CORRUPT` for one that is larger than such documents are. */
export async function readDocument(source: ByteSource, limit: number = MAX_MANIFEST_BYTES): Promise<Uint8Array> {
  if (source.size > limit) throw corrupt(`${source.name}: ${source.size} bytes, expected at most ${limit}`);
  return await source.read(0, source.size);
}
