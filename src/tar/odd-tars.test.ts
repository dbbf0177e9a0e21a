import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { gunzipSync, zstdDecompressSync } from "node:zlib";
import { messageOf } from "../errors.ts";
import { layerChanges } from "../tree/layer-changes.ts";
import { MemoryTree } from "../tree/memory-tree.ts";
import type { TarEntry } from "./tar-entry.ts";
import { TarReader } from "./tar-reader.ts";

const FOLDER = new URL("../../testdata/tar/", import.meta.url);

/** Archive, what overlaybd-apply makes of it (as recorded with the archive), and our tree or refusal. */
const ROWS: readonly (readonly [archive: string, overlaybdApply: string, ours: string | readonly string[]])[] = [
  ["bad-chksum-2nd.tar.gz", "fails", "refused: layer: tar header at 1024: header checksum is 3145, the header says 35913"],
  ["contiguous-7.tar.gz", "same tree", ["/ directory 0755", "f file 0644 10 bytes 4b476246 @1700000000"]],
  [
    "dotdot.tar.gz",
    "crashes",
    ["/ directory 0755", "b file 0644 1 bytes 2d711642 @1700000000", "escape file 0644 1 bytes 2d711642 @1700000000"],
  ],
  ["duplicate.tar.gz", "same tree", ["/ directory 0755", "f file 0644 11 bytes 27379422 @1700000000"]],
  ["duplicate.tar.zst", "same tree", ["/ directory 0755", "f file 0644 11 bytes 27379422 @1700000000"]],
  ["empty.tar.gz", "same tree", ["/ directory 0755"]],
  ["gnu-base256-mtime-neg.tar.gz", "time 0", ["/ directory 0755", "f file 0644 1 bytes 2d711642 @-5"]],
  ["gnu-base256-uid.tar.gz", "undefined owner", ["/ directory 0755", "f file 0644 1 bytes 2d711642 3000000:3000001 @1700000000"]],
  ["gnu-sparse-S.tar.gz", "fails", ["/ directory 0755", "sp file 0644 3145728 bytes 4b43249c @1795245861"]],
  ["hardlink-missing.tar.gz", "fails", 'refused: hard link "h": its target "missing" does not exist'],
  ["no-eof-blocks.tar.gz", "same tree", ["/ directory 0755", "f file 0644 11 bytes 27379422 @1700000000"]],
  ["opq-missing-dir.tar.gz", "creates nodir", ["/ directory 0755"]],
  ["pax-global.tar.gz", "global header ignored", ["/ directory 0755", "f file 0644 1 bytes 2d711642 @5"]],
  ["pax-negative-mtime.tar.gz", "time 0", ["/ directory 0755", "f file 0644 1 bytes 2d711642 @-5"]],
  [
    "pax-sparse-0.1.tar.gz",
    "stored under its raw name with a raw body",
    ["/ directory 0755", "sp file 0644 3145728 bytes 4b43249c @1795245861.798978250"],
  ],
  [
    "pax-sparse-1.0.tar.gz",
    "stored under its raw name with a raw body",
    ["/ directory 0755", "sp file 0644 3145728 bytes 4b43249c @1795245861.798978250"],
  ],
  ["pax-uid-3000000.tar.gz", "owner 0:0", ["/ directory 0755", "f file 0644 1 bytes 2d711642 3000000:3000001 @1700000000"]],
  ["root-entry.tar.gz", "same tree", ["/ directory 0700 5:0 @1700000000", "f file 0644 1 bytes 2d711642 @1700000000"]],
  ["truncated-data.tar.gz", "fails", "refused: layer: the tar archive stops in the middle, after 700 bytes; fetch or build it again"],
  ["v7.tar.gz", "same tree", ["/ directory 0755", "sp file 0644 3145728 bytes 4b43249c @1795245861"]],
  [
    "write-through-symlink-missing.tar.gz",
    "fails",
    ["/ directory 0755", "d symlink 0777 -> real", "real directory 0755", "real/through file 0644 1 bytes 2d711642 @1700000000"],
  ],
  [
    "write-through-symlink.tar.gz",
    "fails",
    ["/ directory 0755", "d symlink 0777 -> real", "real directory 0755", "real/through file 0644 1 bytes 2d711642 @1700000000"],
  ],
  ["xattr-5000.tar.gz", "fails", ["/ directory 0755", "f file 0644 1 bytes 2d711642 @1700000000 user.huge=5000 bytes"]],
  ["xattr-libarchive.tar.gz", "xattr ignored", ["/ directory 0755", "f file 0644 1 bytes 2d711642 @1700000000 user.a=Yg=="]],
  [
    "xattr-posix-acl.tar.gz",
    "same tree",
    ["/ directory 0755", "f file 0644 1 bytes 2d711642 @1700000000 system.posix_acl_access=44 bytes"],
  ],
  ["xattr-user-on-symlink.tar.gz", "same tree", ["/ directory 0755", "l symlink 0777 -> x"]],
  ["zero-bytes.tar.gz", "same tree", ["/ directory 0755"]],
];

function read(archive: string): string[] {
  const stored = readFileSync(new URL(archive, FOLDER));
  const bytes = archive.endsWith(".zst") ? zstdDecompressSync(stored) : gunzipSync(stored);
  const entries: (TarEntry & { sha256: string })[] = [];
  let content: Buffer[] = [];
  let current: TarEntry | undefined;
  const reader = new TarReader(
    {
      entry: (entry) => (current = entry),
      data: (piece) => content.push(Buffer.from(piece)),
      entryEnd: () => {
        entries.push({
          ...current!,
          sha256: createHash("sha256")
            .update(expanded(current!, Buffer.concat(content)))
            .digest("hex")
            .slice(0, 8),
        });
        content = [];
      },
    },
    "layer",
  );
  reader.write(bytes);
  reader.close();
  const tree = new MemoryTree((entry: TarEntry & { sha256: string }) => entry.sha256);
  tree.apply(layerChanges(entries));
  return [...tree.list()].map(([path, { type, mode, uid, gid, mtime, size, link, xattrs, content: sha256 }]) => {
    const parts = [path || "/", type, `0${mode.toString(8)}`];
    if (type === "file") parts.push(`${size} bytes ${sha256}`);
    if (link !== "") parts.push(`-> ${link}`);
    if (uid !== 0 || gid !== 0) parts.push(`${uid}:${gid}`);
    if (mtime.seconds !== 0 || mtime.nanoseconds !== 0) parts.push(`@${mtime.seconds}${mtime.nanoseconds ? `.${mtime.nanoseconds}` : ""}`);
    for (const [name, value] of xattrs)
      parts.push(`${name}=${value.length > 40 ? `${value.length} bytes` : Buffer.from(value).toString("base64")}`);
    return parts.join(" ");
  });
}

function expanded(entry: TarEntry, stored: Buffer): Buffer {
  const content = Buffer.alloc(entry.size);
  let at = 0;
  for (const { offset, length } of entry.extents) {
    stored.copy(content, offset, at, at + length);
    at += length;
  }
  return content;
}

function outcome(archive: string): string | string[] {
  try {
    return read(archive);
  } catch (error) {
    return `refused: ${messageOf(error)}`;
  }
}

for (const [archive, overlaybdApply, ours] of ROWS) {
  test(`${archive}: overlaybd-apply: ${overlaybdApply}; ours: ${typeof ours === "string" ? ours : ours.join("; ")}`, () => {
    assert.deepEqual(outcome(archive), ours);
  });
}

test("every archive has its row, here and in the README", () => {
  const archives = readdirSync(FOLDER).filter((name) => /\.(gz|zst)$/.test(name));
  assert.deepEqual(
    archives.toSorted(),
    ROWS.map(([archive]) => archive),
  );
  const rows = ROWS.map(
    ([archive, overlaybdApply, ours]) => `| ${archive} | ${overlaybdApply} | ${typeof ours === "string" ? ours : ours.join("<br>")} |`,
  );
  const table = readFileSync(new URL("README.md", FOLDER), "utf8")
    .split("\n")
    .filter((line) => /^\| \S+\.(gz|zst) /.test(line));
  assert.deepEqual(table, rows);
});
