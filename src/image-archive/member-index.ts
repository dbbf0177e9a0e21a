import { SubSource, type ByteSource } from "../bytes/source.ts";
import { corrupt, unsupported } from "../errors.ts";
import type { TarEntry } from "../tar/tar-entry.ts";
import { TarReader } from "../tar/tar-reader.ts";
import type { ByteString } from "../tree/entry.ts";
import { cleanPath, parentPath, quoted } from "../tree/path.ts";

/** What an archive may have before it is refused: the index of its members is held in memory. */
export interface IndexLimits {
  readonly members: number;
  /** Of all names and link targets together. */
  readonly nameBytes: number;
}

const LIMITS: IndexLimits = { members: 100_000, nameBytes: 16 << 20 };
const MAX_LINKS = 16;
/** Headers are read this much at a time; data that is larger is passed over. */
const READ_BYTES = 16 << 10;

type IndexedMember =
  | { readonly kind: "file"; readonly offset: number; readonly size: number }
  | { readonly kind: "link"; readonly target: ByteString }
  | { readonly kind: "unusable"; readonly why: string };

/**
 * Where the members of a tar are. Names are keys of this table and nothing else: no path of an archive ever reaches a file system,
 * so `..` and absolute names lead nowhere; they are those of the tree that the archive stands for.
 */
export class MemberIndex {
  readonly #source: ByteSource;
  readonly #members: ReadonlyMap<ByteString, IndexedMember>;

  constructor(source: ByteSource, members: ReadonlyMap<ByteString, IndexedMember>) {
    this.#source = source;
    this.#members = members;
  }

  /** Members, directories included. */
  get count(): number {
    return this.#members.size;
  }

  /**
   * The data of a file, links followed; undefined if there is no such member. Closing it closes nothing. Throws `CORRUPT` for what is
   * no file, is there more than once, or is a link that leads nowhere, in a circle or out of the archive.
   */
  find(path: string): ByteSource | undefined {
    const name = cleanPath(Buffer.from(path, "utf8").toString("latin1"));
    let at = name;
    for (let links = 0; links <= MAX_LINKS; links++) {
      const member = this.#members.get(at);
      const where = `${this.#source.name}: member ${quoted(name)}${at === name ? "" : `, a link to ${quoted(at)}`}`;
      if (member === undefined && links > 0) throw corrupt(`${where}: there is no such member`);
      if (member === undefined) return undefined;
      if (member.kind === "unusable") throw corrupt(`${where}: ${member.why}`);
      if (member.kind === "file") return windowOf(this.#source, member.offset, member.size, path);
      at = member.target;
    }
    throw corrupt(`${this.#source.name}: member ${quoted(name)}: more than ${MAX_LINKS} links to follow, expected a file`);
  }
}

/** Members come and go while the archive stays open. */
function windowOf(source: ByteSource, offset: number, size: number, path: string): ByteSource {
  const kept: ByteSource = {
    name: source.name,
    size: source.size,
    read: async (at, length) => await source.read(at, length),
    close: async () => {},
  };
  return new SubSource(kept, offset, size, `${source.name}: ${path}`);
}

/**
 * Reads the headers of a tar, passing over its data. Throws `CORRUPT` and `UNSUPPORTED` as the tar reader does, and `UNSUPPORTED`
 * for more members than the limits allow.
 */
export async function indexMembers(source: ByteSource, signal?: AbortSignal, limits: IndexLimits = LIMITS): Promise<MemberIndex> {
  const members = new Map<ByteString, IndexedMember>();
  let [count, nameBytes] = [0, 0];
  const entry = (found: TarEntry): void => {
    count++;
    nameBytes += found.path.length + found.link.length;
    if (count > limits.members) throw unsupported(`${source.name}: has more than ${limits.members} members`);
    if (nameBytes > limits.nameBytes) throw unsupported(`${source.name}: has names of more than ${limits.nameBytes} bytes`);
    const before = members.get(found.path);
    // Readers differ in which of two they take; whoever asks for such a member is told.
    if (before === undefined) members.set(found.path, indexed(found));
    else if (found.type !== "directory") members.set(found.path, { kind: "unusable", why: "is in the archive more than once" });
  };
  const reader = new TarReader({ entry, data: () => {}, entryEnd: () => {} }, source.name);
  while (reader.position < source.size) {
    signal?.throwIfAborted();
    const left = source.size - reader.position;
    if (reader.skip(left) === 0) reader.write(await source.read(reader.position, Math.min(READ_BYTES, left)));
  }
  reader.close();
  return new MemberIndex(source, members);
}

function indexed(entry: TarEntry): IndexedMember {
  const { type, path, link, size, storedBytes, dataOffset } = entry;
  if (type === "file" && size === storedBytes) return { kind: "file", offset: dataOffset, size };
  if (type === "file") return { kind: "unusable", why: "is stored as a sparse file, expected a whole one" };
  if (type === "hardlink") return { kind: "link", target: link };
  if (type !== "symlink") return { kind: "unusable", why: `is a ${type}, expected a file` };
  const target = symlinkTarget(parentPath(path), link);
  return target === undefined ? { kind: "unusable", why: `links to ${quoted(link)}, outside of the archive` } : { kind: "link", target };
}

/** The path that a symlink in a directory leads to; undefined if that is not in the archive. */
function symlinkTarget(directory: ByteString, link: ByteString): ByteString | undefined {
  if (link.startsWith("/")) return undefined;
  const path = directory === "" ? [] : directory.split("/");
  for (const element of link.split("/")) {
    if (element === "" || element === ".") continue;
    if (element !== "..") path.push(element);
    else if (path.pop() === undefined) return undefined;
  }
  return path.join("/");
}
