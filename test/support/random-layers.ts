import fc from "fast-check";
import { LazyError } from "../../src/errors.ts";
import type { FileRun } from "../../src/tree/filesystem-writer.ts";
import { layerChanges } from "../../src/tree/layer-changes.ts";
import type { MemoryTree } from "../../src/tree/memory-tree.ts";
import { joinPath } from "../../src/tree/path.ts";
import { layerEntry, placePayload, type LayerEntry } from "./ext4-image.ts";

const ACL = Buffer.from("0200000001000600ffffffff02000700e803000004000400ffffffff10000700ffffffff20000400ffffffff", "hex");

/** What layers are made of; filesystems differ in what they can hold. */
export interface LayerAlphabet {
  readonly seconds: readonly number[];
  /** Access and change times are kept, and differ from that of modification. */
  readonly otherTimes: boolean;
  readonly xattrs: readonly [string, Uint8Array][];
  /** Paths that mean something to the filesystem. */
  readonly paths: readonly string[];
  /** Symlink targets of lengths that matter to it. */
  readonly targets: readonly string[];
  /** How far the end of a file may be behind its data, in bytes. */
  readonly hole: number;
}

/** Random layers: everything that archives have, with paths from so few names that they meet all the time. */
export function randomLayers({ seconds, otherTimes, xattrs, paths, targets, hole }: LayerAlphabet): fc.Arbitrary<LayerEntry[][]> {
  const anyPath = fc
    .array(fc.constantFrom("a", "b", "c", "d", "!", "\xff\x80 \n", "n".repeat(255)), { minLength: 1, maxLength: 4 })
    .map((names) => names.join("/"));
  const path =
    paths.length === 0 ? anyPath : fc.oneof({ weight: 20, arbitrary: anyPath }, { weight: 1, arbitrary: fc.constantFrom(...paths) });
  const time = fc.record({ seconds: fc.constantFrom(...seconds), nanoseconds: fc.constantFrom(0, 0, 1, 999_999_999) });
  const owner = fc.constantFrom(0, 1000, 65535, 65536, 2 ** 32 - 2);
  const stored = fc.subarray<[string, Uint8Array]>([
    ["security.capability", Buffer.from("0100000200200000000000000000000000000000", "hex")],
    ["system.posix_acl_access", ACL],
    ["system.posix_acl_default", ACL],
    ["trusted.empty", Buffer.alloc(0)],
    ["user.\xe4", Buffer.from("umlaut")],
    ...xattrs,
  ]);
  const someXattrs = fc.oneof({ weight: 3, arbitrary: fc.constant<[string, Uint8Array][]>([]) }, { weight: 1, arbitrary: stored });
  const metadata = fc
    .record({ mode: fc.nat(0o7777), uid: owner, gid: owner, mtime: time, atime: time, ctime: time, xattrs: someXattrs })
    .map(({ atime, ctime, ...fields }) => {
      const times = otherTimes ? { atime, ctime } : { atime: fields.mtime, ctime: fields.mtime };
      return { ...fields, ...times, xattrs: new Map(fields.xattrs) };
    });
  const runs = fc.oneof(
    fc.constant<FileRun[]>([]),
    fc.constant<FileRun[]>([{ fileBlock: 0, blocks: 1 }]),
    fc
      .tuple(fc.constantFrom(1, 4, 64), fc.array(fc.tuple(fc.nat(3), fc.integer({ min: 1, max: 5 })), { maxLength: 12 }))
      .map(([unit, gaps]) => runsOf(gaps.map(([hole, blocks]) => [hole * unit, blocks * unit] as const))),
    fc.integer({ min: 5, max: 1500 }).map((count) => runsOf(Array.from({ length: count }, () => [1, 1] as const))),
  );
  const file = fc
    .tuple(path, metadata, runs, fc.constantFrom(0, 1, 100, 4095, hole), fc.nat(4095))
    .map(([at, fields, own, beyond, short]) => {
      const last = own.at(-1);
      const size = last ? (last.fileBlock + last.blocks) * 4096 + (beyond > 4095 ? beyond : -short) : beyond;
      return [layerEntry(at, { ...fields, type: "file", runs: own, size })];
    });
  const directory = fc.tuple(fc.oneof(path, fc.constant("")), metadata).map(([at, fields]) => [layerEntry(`${at}/`, fields)]);
  const target = fc.oneof(path, fc.constantFrom("/a", "..", "../../b", "y/".repeat(500), "z".repeat(4095), ...targets));
  const symlink = fc.tuple(path, metadata, target).map(([at, fields, link]) => [layerEntry(at, { ...fields, type: "symlink", link })]);
  const hardlink = fc.tuple(path, path).map(([at, link]) => [layerEntry(at, { type: "hardlink", link })]);
  const number = fc.tuple(fc.constantFrom(0, 1, 5, 255, 256, 4095), fc.constantFrom(0, 3, 255, 256, 2 ** 20 - 1));
  const device = fc
    .tuple(path, metadata, fc.constantFrom("character" as const, "block" as const, "fifo" as const), number)
    .map(([at, fields, type, [major, minor]]) => [layerEntry(at, { ...fields, type, ...(type !== "fifo" && { major, minor }) })]);
  const whiteout = path
    .map((at) => [layerEntry(at.replace(/[^/]+$/, ".wh.$&").slice(-4000))])
    .filter(([{ path: at }]) => !/[^/]{256}/.test(at));
  const opaque = fc
    .oneof({ weight: 4, arbitrary: path }, { weight: 1, arbitrary: fc.constant("") })
    .map((at) => [layerEntry(joinPath(at, ".wh..wh..opq"))]);
  const crowd = fc
    .tuple(path, fc.constantFrom("f", "crowded-".repeat(20)), fc.integer({ min: 1, max: 400 }), fc.nat(400))
    .map(([at, prefix, count, from]) => Array.from({ length: count }, (_, index) => layerEntry(`${at}/${prefix}${from + index}`)));
  const thinned = fc
    .tuple(path, fc.constantFrom("f", "crowded-".repeat(20)), fc.integer({ min: 1, max: 400 }), fc.integer({ min: 1, max: 5 }))
    .map(([at, prefix, count, step]) => Array.from({ length: count }, (_, index) => layerEntry(`${at}/.wh.${prefix}${index * step}`)));
  const item = fc.oneof(
    { weight: 6, arbitrary: file },
    { weight: 5, arbitrary: directory },
    { weight: 4, arbitrary: symlink },
    { weight: 4, arbitrary: hardlink },
    { weight: 3, arbitrary: device },
    { weight: 4, arbitrary: whiteout },
    { weight: 2, arbitrary: opaque },
    { weight: 3, arbitrary: crowd },
    { weight: 1, arbitrary: thinned },
  );
  return fc.array(
    fc.array(item, { maxLength: 25 }).map((items) => items.flat()),
    { minLength: 1, maxLength: 5 },
  );
}

function runsOf(gaps: readonly (readonly [hole: number, blocks: number])[]): FileRun[] {
  const made: FileRun[] = [];
  let end = 0;
  for (const [hole, blocks] of gaps) {
    const last = made.at(-1);
    if (hole === 0 && last) made[made.length - 1] = { ...last, blocks: last.blocks + blocks };
    else made.push({ fileBlock: end + hole, blocks });
    end += hole + blocks;
  }
  return made;
}

/** Applies what a tree can hold of a layer to the tree, and returns that. */
export function acceptableLayer(
  tree: MemoryTree<LayerEntry, string>,
  entries: readonly LayerEntry[],
  number: number,
): ReturnType<typeof placePayload> {
  const accepted = new Set<LayerEntry>();
  const placed = placePayload(entries, number);
  for (const change of layerChanges(placed.entries)) {
    try {
      tree.apply([change]);
      if (change.kind === "put") accepted.add(change.entry);
    } catch (error) {
      if (!(error instanceof LazyError)) throw error;
    }
  }
  const isWhiteout = (entry: LayerEntry): boolean => /(^|\/)\.wh\.[^/]*$/.test(entry.path);
  return { entries: placed.entries.filter((entry) => accepted.has(entry) || isWhiteout(entry)), payloadBlocks: placed.payloadBlocks };
}
