import { corrupt, unsupported, type LazyError } from "../errors.ts";
import type { ByteString } from "./entry.ts";
import type { HiddenPath } from "./layer-changes.ts";
import { joinPath, MAX_NAME_BYTES, quoted } from "./path.ts";

const MAX_SYMLINKS = 40; // as many as Linux follows in one look-up

export type NodeKind = "directory" | "symlink" | "other";

/** What name resolution needs to see of a tree. */
export interface TreeView<N> {
  readonly root: N;
  lookup(directory: N, name: ByteString): N | undefined;
  kind(node: N): NodeKind;
  /** The target of a symlink, verbatim. */
  linkTarget(node: N): ByteString;
}

/** The directory that a path leads to, as far as it exists. */
export interface ResolvedDirectory<N> {
  /** The deepest directory that exists. */
  readonly directory: N;
  /** Where that is, free of symlinks; `""` is the root. */
  readonly path: ByteString;
  /** The directories still to be created below it, outermost first; empty if the path exists. */
  readonly missing: readonly ByteString[];
}

/** An existing node and where it hangs. */
export interface FoundNode<N> {
  /** The directory that holds the node; the root hangs in itself. */
  readonly parent: N;
  /** The name in `parent`; `""` for the root. */
  readonly name: ByteString;
  readonly node: N;
}

interface Obstacle {
  readonly kind: "loop" | "not a directory" | "long name";
  readonly path: ByteString;
}

/**
 * Follows a cleaned path to a directory, symlinks included, without ever leaving the root: absolute targets start at
 * the root and `..` stops there. A part that does not exist, also behind a dangling symlink, is listed as missing.
 * Throws `CORRUPT` when a component is neither directory nor symlink, or after 40 symlinks; `UNSUPPORTED` when a symlink
 * leads to a name that no directory can hold.
 */
export function resolveDirectory<N>(view: TreeView<N>, path: ByteString): ResolvedDirectory<N> {
  const walk = new Walk(view);
  const obstacle = walk.follow(path);
  if (obstacle !== undefined) throw obstacleError(path, obstacle);
  return walk.resolved();
}

/**
 * The node at a cleaned path: symlinks on the way are followed, one at the end is not.
 * Undefined when there is none; a file or a symlink loop on the way means the same.
 */
export function findNode<N>(view: TreeView<N>, path: ByteString): FoundNode<N> | undefined {
  return findBelow(view, path, undefined);
}

/** The node of the lower layers that a whiteout removes; undefined when they have none there. */
export function findRemoved<N>(view: TreeView<N>, hidden: HiddenPath): FoundNode<N> | undefined {
  return findBelow(view, hidden.path, hidden.ownDirectories);
}

/** The directory of the lower layers that an opaque marker empties; undefined when they have none there. */
export function findCleared<N>(view: TreeView<N>, hidden: HiddenPath): N | undefined {
  return findDirectory(view, hidden.path, hidden.ownDirectories);
}

function findBelow<N>(view: TreeView<N>, path: ByteString, solid: ReadonlySet<ByteString> | undefined): FoundNode<N> | undefined {
  if (path === "") return { parent: view.root, name: "", node: view.root };
  const slash = path.lastIndexOf("/");
  const parent = slash < 0 ? view.root : findDirectory(view, path.slice(0, slash), solid);
  if (parent === undefined) return undefined;
  const name = path.slice(slash + 1);
  const node = view.lookup(parent, name);
  return node === undefined ? undefined : { parent, name, node };
}

function findDirectory<N>(view: TreeView<N>, path: ByteString, solid: ReadonlySet<ByteString> | undefined): N | undefined {
  const walk = new Walk(view, solid);
  if (walk.follow(path) !== undefined) return undefined;
  const { directory, missing } = walk.resolved();
  return missing.length === 0 ? directory : undefined;
}

function obstacleError(path: ByteString, obstacle: Obstacle): LazyError {
  const at = quoted(obstacle.path);
  if (obstacle.kind === "loop") return corrupt(`path ${quoted(path)}: more than ${MAX_SYMLINKS} symlinks to follow, the last one is ${at}`);
  if (obstacle.kind === "long name")
    return unsupported(`path ${quoted(path)}: a symlink leads to ${at}, a name of more than ${MAX_NAME_BYTES} bytes`);
  return corrupt(`path ${quoted(path)}: ${at} on the way is not a directory`);
}

/** One walk down a tree. It keeps the directories it came through, which is what `..` goes back to. */
class Walk<N> {
  readonly #view: TreeView<N>;
  /** Literal paths at which only a directory is passed, not a symlink. */
  readonly #solid: ReadonlySet<ByteString> | undefined;
  readonly #nodes: N[];
  readonly #names: ByteString[] = [];
  readonly #missing: ByteString[] = [];
  #symlinks = 0;

  constructor(view: TreeView<N>, solid?: ReadonlySet<ByteString>) {
    this.#view = view;
    this.#solid = solid;
    this.#nodes = [view.root];
  }

  resolved(): ResolvedDirectory<N> {
    return { directory: this.#nodes.at(-1)!, path: this.#names.join("/"), missing: this.#missing };
  }

  follow(path: ByteString): Obstacle | undefined {
    let at = 0;
    while (at < path.length) {
      const slash = path.indexOf("/", at);
      const end = slash < 0 ? path.length : slash;
      const passesSymlink = this.#solid === undefined || !this.#solid.has(path.slice(0, end));
      const obstacle = this.#enter(path.slice(at, end), passesSymlink);
      if (obstacle !== undefined) return obstacle;
      at = end + 1;
    }
    return undefined;
  }

  #enter(name: ByteString, passesSymlink: boolean): Obstacle | undefined {
    if (name === "" || name === ".") return undefined;
    if (name === "..") return this.#leave();
    if (name.length > MAX_NAME_BYTES) return { kind: "long name", path: name };
    const directory = this.#nodes.at(-1)!;
    const node = this.#missing.length > 0 ? undefined : this.#view.lookup(directory, name);
    if (node === undefined) {
      this.#missing.push(name);
      return undefined;
    }
    const kind = this.#view.kind(node);
    if (kind === "directory") {
      this.#nodes.push(node);
      this.#names.push(name);
      return undefined;
    }
    if (kind === "symlink" && passesSymlink) return this.#followSymlink(node, name);
    return { kind: "not a directory", path: this.#pathOf(name) };
  }

  #leave(): undefined {
    if (this.#missing.pop() !== undefined) return;
    if (this.#names.pop() !== undefined) this.#nodes.pop();
  }

  #followSymlink(node: N, name: ByteString): Obstacle | undefined {
    if (++this.#symlinks > MAX_SYMLINKS) return { kind: "loop", path: this.#pathOf(name) };
    const target = this.#view.linkTarget(node);
    if (target.startsWith("/")) {
      this.#names.length = 0;
      this.#nodes.length = 1;
    }
    for (const element of target.split("/")) {
      const obstacle = this.#enter(element, true);
      if (obstacle !== undefined) return obstacle;
    }
    return undefined;
  }

  #pathOf(name: ByteString): ByteString {
    return joinPath(this.#names.join("/"), name);
  }
}
