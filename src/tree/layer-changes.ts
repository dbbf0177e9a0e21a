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
 * Throws `CORRUPT` for a whiteout that names nothing or that has entries below it.
 */
export function layerChanges<E extends Entry>(entries: readonly E[]): Change<E>[] {
  const hides: Change<E>[] = [];
  const puts: Change<E>[] = [];
  const ownDirectories = new Set<ByteString>();
  for (const entry of entries) {
    const hide = entry.path.includes(WHITEOUT_PREFIX) ? hiddenBy(entry.path, ownDirectories) : undefined;
    if (hide === "ignored") continue;
    if (hide !== undefined) {
      hides.push(hide);
      continue;
    }
    checkLinkTarget(entry);
    if (entry.type === "directory") ownDirectories.add(entry.path);
    puts.push({ kind: "put", entry });
  }
  hides.sort(byPath);
  return hides.length === 0 ? puts : hides.concat(puts);
}

type Hide = HiddenPath & { readonly kind: "remove" | "clear" };

function byPath<E extends Entry>(a: Change<E>, b: Change<E>): number {
  if (a.kind === "put" || b.kind === "put") return 0;
  return a.path < b.path ? -1 : a.path > b.path ? 1 : 0;
}

/** What a path says about the lower layers; undefined when it is an ordinary path. */
function hiddenBy(path: ByteString, ownDirectories: ReadonlySet<ByteString>): Hide | "ignored" | undefined {
  const parent = parentPath(path);
  const name = baseName(path);
  if (isAufsInternal(parent)) return "ignored";
  if (hasWhiteoutElement(parent)) {
    throw corrupt(`layer entry ${quoted(path)} lies below a whiteout; names that start with ${WHITEOUT_PREFIX} are reserved`);
  }
  if (name === OPAQUE_MARKER) return { kind: "clear", path: parent, ownDirectories };
  if (name.startsWith(AUFS_PREFIX)) return "ignored";
  if (!name.startsWith(WHITEOUT_PREFIX)) return undefined;
  const hidden = name.slice(WHITEOUT_PREFIX.length);
  if (hidden === "" || hidden === "." || hidden === "..") throw corrupt(`layer entry ${quoted(path)} is a whiteout of no name`);
  return { kind: "remove", path: joinPath(parent, hidden), ownDirectories };
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
