import { clampTime } from "../formats/ext4/inode.ts";
import type { ByteString, Timespec } from "../tree/entry.ts";
import type { TreeInode } from "../tree/memory-tree.ts";
import { quoted } from "../tree/path.ts";
import type { ConvertedInode, ConvertedTree } from "./converted-tree.ts";

/** One thing in which a path differs. */
export interface Difference {
  readonly path: ByteString;
  /** What differs: `missing`, `extra`, or the name of a field. */
  readonly what: string;
  readonly source: string;
  readonly converted: string;
}

type SourceInode = TreeInode<string>;

/** All differences between a source's tree and a converted one, by path. */
export function* compareTrees(source: Iterable<[ByteString, SourceInode]>, converted: ConvertedTree): Generator<Difference> {
  const seen = new Set<ByteString>();
  const links = new LinkGroups();
  for (const [path, expected] of source) {
    seen.add(path);
    const found = converted.get(path);
    if (!found) {
      yield { path, what: "missing", source: expected.type, converted: "nothing" };
      continue;
    }
    yield* compareInodes(path, expected, found);
    const other = links.conflict(path, expected, found);
    if (other !== undefined) yield { path, what: "hard links", ...other };
  }
  for (const [path, found] of converted) {
    if (!seen.has(path) && !isLostAndFound(path, found, converted)) yield { path, what: "extra", source: "nothing", converted: found.type };
  }
}

/** The directory that every ext4 filesystem comes with, as long as nothing is in it. */
function isLostAndFound(path: ByteString, inode: ConvertedInode, tree: ConvertedTree): boolean {
  if (path !== "lost+found" || inode.type !== "directory" || inode.mode !== 0o700 || inode.uid !== 0) return false;
  return ![...tree.keys()].some((other) => other.startsWith("lost+found/"));
}

function* compareInodes(path: ByteString, expected: SourceInode, found: ConvertedInode): Generator<Difference> {
  const fields: [what: string, source: string, converted: string][] = [
    ["type", expected.type, found.type],
    ["mode", octal(expected.mode), octal(found.mode)],
    ["owner", `${expected.uid}:${expected.gid}`, `${found.uid}:${found.gid}`],
    ["size", String(expected.size), String(found.size)],
    ["modification time", ...timeTexts(expected.mtime, found.mtime)],
    ["access time", ...timeTexts(expected.atime, found.atime)],
    ["change time", ...timeTexts(expected.ctime, found.ctime)],
    ["link target", quoted(expected.link), quoted(found.link)],
    ["device", `${expected.major}:${expected.minor}`, `${found.major}:${found.minor}`],
    ["extended attributes", xattrText(expected.xattrs), xattrText(found.xattrs)],
    ["content", expected.content ?? "none", found.content ?? "none"],
  ];
  for (const [what, source, converted] of fields) if (source !== converted) yield { path, what, source, converted };
}

function octal(mode: number): string {
  return mode.toString(8).padStart(4, "0");
}

/** Not every filesystem keeps all times; ext4 keeps those far away as its first or last. */
function timeTexts(expected: Timespec, found: Timespec | undefined): [source: string, converted: string] {
  const kept = [expected, clampTime(expected)].find((time) => found && timeText(time) === timeText(found)) ?? clampTime(expected);
  return [timeText(kept), timeText(found ?? kept)];
}

function timeText(time: Timespec): string {
  return `${time.seconds}.${String(time.nanoseconds).padStart(9, "0")}`;
}

function xattrText(xattrs: ReadonlyMap<ByteString, Uint8Array>): string {
  return [...xattrs].map(([name, value]) => `${quoted(name)}=0x${Buffer.from(value).toString("hex")}`).join(" ") || "none";
}

/** Which paths are the same file must be the same on both sides. */
class LinkGroups {
  readonly #bySource = new Map<SourceInode, { path: ByteString; number: number }>();
  readonly #byConverted = new Map<number, { path: ByteString; inode: SourceInode }>();

  conflict(path: ByteString, source: SourceInode, converted: ConvertedInode): { source: string; converted: string } | undefined {
    const first = this.#bySource.get(source);
    const taken = this.#byConverted.get(converted.number);
    if (!first) this.#bySource.set(source, { path, number: converted.number });
    if (!taken) this.#byConverted.set(converted.number, { path, inode: source });
    if (first && first.number !== converted.number)
      return { source: `the same file as ${quoted(first.path)}`, converted: "a file of its own" };
    if (!first && taken) return { source: "a file of its own", converted: `the same file as ${quoted(taken.path)}` };
    return undefined;
  }
}
