import { corrupt, unsupported } from "../errors.ts";
import type { ByteString, Entry } from "./entry.ts";
import { baseName, joinPath, parentPath, quoted } from "./path.ts";

const WHITEOUT_PREFIX = ".wh.";
const AUFS_PREFIX = ".wh..wh.";
const OPAQUE_MARKER = ".wh..wh..opq";

/** A path that a layer hides in the layers below it. */
export interface HiddenPath {
  readonly path: ByteString;
  /**
   * Paths that the layer itself fills with a directory. Where the lower layers have a symlink in such a place, the
   * directory replaces it, so nothing behind the symlink is meant.
   */
  readonly ownDirectories: ReadonlySet<ByteString>;
}

/** One step from the tree of the lower layers to the tree with a layer on top. */
export type Change<E extends Entry = Entry> =
  /** Removes a path and all below it, if it exists. Located with `findRemoved`. */
  | (HiddenPath & { readonly kind: "remove" })
  /** Removes everything inside of a directory, if it exists. Located with `findCleared`. */
  | (HiddenPath & { readonly kind: "clear" })
  /** Creates or replaces a path. */
  | { readonly kind: "put"; readonly entry: E };

/**
 * The changes that a layer stands for, in the order in which to apply them. Whiteouts and opaque markers hide only the
 * lower layers, wherever they are in the archive; so they come first, parents before children, then the puts in archive
 * order. See the "Whiteouts" section of the OCI image layer specification.
 * Throws `CORRUPT` for a whiteout that names nothing or that has entries below it, before the first change. The entries are
 * gone through more than once; no copy of them is made.
 */
export function layerChanges<E extends Entry>(entries: LayerEntries<E>): Iterable<Change<E>> {
  if (entries.mayHide === false) return putsOf(entries);
  const marks: Mark[] = [];
  for (const entry of entries) {
    const mark = markOf(entry.path);
    if (mark === undefined) checkLinkTarget(entry);
    else if (mark !== "ignored") marks.push(mark);
  }
  const hides = marks.length === 0 ? [] : hidesOf(marks, entries);
  return changes(hides, entries);
}

/** A layer's entries in archive order; they can be gone through several times. */
export interface LayerEntries<E extends Entry> extends Iterable<E> {
  /** False where neither a path nor a link passes `mentionsWhiteout`. */
  readonly mayHide?: boolean;
}

/** Whether a path may have to do with whiteouts, so that it needs a closer look. */
export function mentionsWhiteout(path: ByteString): boolean {
  return path.includes(WHITEOUT_PREFIX);
}

function* putsOf<E extends Entry>(entries: Iterable<E>): Generator<Change<E>, void> {
  for (const entry of entries) yield { kind: "put", entry };
}

function* changes<E extends Entry>(hides: readonly Hide[], entries: Iterable<E>): Generator<Change<E>, void> {
  yield* hides;
  for (const entry of entries) if (markOf(entry.path) === undefined) yield { kind: "put", entry };
}

type Hide = HiddenPath & { readonly kind: "remove" | "clear" };
/** A whiteout or an opaque marker, and the path it is about. */
type Mark = Pick<Hide, "kind" | "path">;

function hidesOf(marks: readonly Mark[], entries: Iterable<Entry>): Hide[] {
  const ownDirectories = new Set<ByteString>();
  for (const { type, path } of entries) if (type === "directory") ownDirectories.add(path);
  return marks.map((mark) => ({ ...mark, ownDirectories })).toSorted((a, b) => (a.path < b.path ? -1 : a.path > b.path ? 1 : 0));
}

/** What a path says about the lower layers; undefined when it is an ordinary path. */
function markOf(path: ByteString): Mark | "ignored" | undefined {
  if (!mentionsWhiteout(path)) return undefined;
  const parent = parentPath(path);
  const name = baseName(path);
  if (isAufsInternal(parent)) return "ignored";
  if (hasWhiteoutElement(parent)) {
    throw corrupt(`layer entry ${quoted(path)} lies below a whiteout; names that start with ${WHITEOUT_PREFIX} are reserved`);
  }
  if (name === OPAQUE_MARKER) return { kind: "clear", path: parent };
  if (name.startsWith(AUFS_PREFIX)) return "ignored";
  if (!name.startsWith(WHITEOUT_PREFIX)) return undefined;
  const hidden = name.slice(WHITEOUT_PREFIX.length);
  if (hidden === "" || hidden === "." || hidden === "..") throw corrupt(`layer entry ${quoted(path)} is a whiteout of no name`);
  return { kind: "remove", path: joinPath(parent, hidden) };
}

function isAufsInternal(path: ByteString): boolean {
  return path.includes(AUFS_PREFIX) && path.split("/").some((element) => element.startsWith(AUFS_PREFIX));
}

function hasWhiteoutElement(path: ByteString): boolean {
  return path.includes(WHITEOUT_PREFIX) && path.split("/").some((element) => element.startsWith(WHITEOUT_PREFIX));
}

function checkLinkTarget(entry: Entry): void {
  if (entry.type === "hardlink" && isAufsInternal(entry.link)) {
    throw unsupported(
      `layer entry ${quoted(entry.path)} is a hard link into the AUFS directory ${quoted(entry.link)}; save the image again without AUFS`,
    );
  }
}
