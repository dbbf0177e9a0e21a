import { readFile, rename, writeFile, unlink } from "node:fs/promises";
import { randomUUID } from "node:crypto";
import { join } from "node:path";
import { corrupt, LazyError, messageOf, unsupported } from "../errors.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import { MAX_MANIFEST_BYTES } from "../oci/document.ts";
import { parseIndex, type ImageIndex } from "../oci/index.ts";
import { encodeJson, parseJsonObject } from "../oci/json.ts";
import { OCI_INDEX } from "../oci/media-types.ts";

const LAYOUT_VERSION = "1.0.0";
const REF_NAME = "org.opencontainers.image.ref.name";

/** What `replaceFile` calls files that are not complete. */
const TEMPORARY_NAME = /^(?:index\.json|oci-layout)\.tmp-[0-9a-f-]{36}$/;

/** The index of a layout with nothing in it. */
const EMPTY_INDEX: ImageIndex = { schemaVersion: 2, mediaType: OCI_INDEX, manifests: [] };

/** Whether the directory is a layout; throws `UNSUPPORTED` for versions that are not known. */
export async function isLayout(directory: string): Promise<boolean> {
  const bytes = await readIfPresent(join(directory, "oci-layout"));
  if (!bytes) return false;
  const version = parseJsonObject(bytes, join(directory, "oci-layout"))["imageLayoutVersion"];
  if (version === LAYOUT_VERSION) return true;
  throw unsupported(`${directory}: layout version is ${JSON.stringify(version)}, expected "${LAYOUT_VERSION}"`);
}

/**
 * Whether a directory with these names in it holds nothing, or nothing but what `createLayout` leaves when a full disk or the end of
 * the program stops it.
 */
export async function isVacant(directory: string, names: readonly string[]): Promise<boolean> {
  const others = names.filter((name) => !TEMPORARY_NAME.test(name));
  if (others.length === 0) return true;
  if (others.length > 1 || others[0] !== "index.json") return false;
  try {
    return (await readIndex(directory)).manifests.length === 0;
  } catch (error) {
    if (error instanceof LazyError && (error.code === "CORRUPT" || error.code === "UNSUPPORTED")) return false;
    throw error;
  }
}

/** Writes an empty index if there is none, and then the mark that makes a directory a layout. */
export async function createLayout(directory: string): Promise<void> {
  if ((await readIfPresent(join(directory, "index.json"))) === undefined) await writeIndex(directory, EMPTY_INDEX);
  await replaceFile(join(directory, "oci-layout"), encodeJson({ imageLayoutVersion: LAYOUT_VERSION }));
}

export async function readIndex(directory: string): Promise<ImageIndex> {
  const path = join(directory, "index.json");
  const bytes = await readIfPresent(path);
  if (!bytes) throw corrupt(`${path}: is missing`);
  if (bytes.length > MAX_MANIFEST_BYTES) throw corrupt(`${path}: ${bytes.length} bytes, expected at most ${MAX_MANIFEST_BYTES}`);
  return parseIndex(bytes, OCI_INDEX, path);
}

export async function writeIndex(directory: string, index: ImageIndex): Promise<void> {
  await replaceFile(join(directory, "index.json"), encodeJson(index));
}

export function tagOf(entry: Descriptor): string | undefined {
  return entry.annotations?.[REF_NAME];
}

/** The index with the tag on the descriptor and on nothing else; other entries stay as they are. */
export function withTag(index: ImageIndex, tag: string, descriptor: Descriptor): ImageIndex {
  const others = index.manifests.filter((entry) => tagOf(entry) !== tag);
  return { ...index, manifests: [...others, { ...descriptor, annotations: { ...descriptor.annotations, [REF_NAME]: tag } }] };
}

async function readIfPresent(path: string): Promise<Uint8Array | undefined> {
  try {
    return await readFile(path);
  } catch (error) {
    if (error instanceof Error && "code" in error && (error.code === "ENOENT" || error.code === "ENOTDIR")) return undefined;
    throw placeError(path, error);
  }
}

/** Readers see the old content or the new one, never a part. */
async function replaceFile(path: string, bytes: Uint8Array): Promise<void> {
  const temporary = `${path}.tmp-${randomUUID()}`;
  try {
    await writeFile(temporary, bytes, { flag: "wx", flush: true });
    await rename(temporary, path);
  } catch (error) {
    await unlink(temporary).catch(() => undefined);
    throw placeError(path, error);
  }
}

/** A failed call of the file system, as what the caller does next. Errors of this project pass unchanged. */
export function placeError(path: string, error: unknown): LazyError {
  if (error instanceof LazyError) return error;
  const code = error instanceof Error && "code" in error ? error.code : undefined;
  if (code === "ENOENT" || code === "ENOTDIR") return new LazyError("NOT_FOUND", `${path}: does not exist`, { cause: error });
  if (code === "EACCES" || code === "EPERM" || code === "EROFS") {
    return new LazyError("DENIED", `${path}: no permission: ${messageOf(error)}`, { cause: error });
  }
  return new LazyError("UNAVAILABLE", `${path}: ${messageOf(error)}`, { cause: error });
}
