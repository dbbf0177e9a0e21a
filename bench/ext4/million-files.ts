/**
 * A layer of a million small files: time and memory of the ext4 writer alone.
 *
 *   node bench/ext4/million-files.ts [FILES] [GIB]
 *
 * The entries are made one after the other and not kept, so that the figures are the filesystem's own.
 */
import { Ext4Writer } from "../../src/formats/ext4/ext4-writer.ts";
import type { PayloadEntry } from "../../src/tree/filesystem-writer.ts";

const files = Number(process.argv[2] ?? 1_000_000);
const bytes = Number(process.argv[3] ?? 64) * 2 ** 30;
const FILES_PER_DIRECTORY = 100;
const TIME = { seconds: 1_700_000_000, nanoseconds: 123_456_789 };
const PLAIN = {
  mode: 0o644,
  uid: 0,
  gid: 0,
  mtime: TIME,
  atime: TIME,
  ctime: TIME,
  link: "",
  major: 0,
  minor: 0,
  xattrs: new Map(),
  extents: [],
};

function entry(fields: Pick<PayloadEntry, "path" | "type" | "size" | "payloadBlock" | "runs">): PayloadEntry {
  return { ...PLAIN, ...fields };
}

function report(what: string, since: number): void {
  const { rss, heapUsed, arrayBuffers } = process.memoryUsage();
  const megabytes = [rss, heapUsed, arrayBuffers].map((value) => `${Math.round(value / 2 ** 20)} MB`);
  console.log(
    `${what.padEnd(36)} ${((performance.now() - since) / 1000).toFixed(2).padStart(7)} s   rss ${megabytes[0]}, heap ${megabytes[1]}, buffers ${megabytes[2]}`,
  );
}

let since = performance.now();
const writer = Ext4Writer.format({ bytes, uuid: Buffer.from("0123456789abcdef"), hashSeed: Buffer.from("fedcba9876543210") });
report(`format ${bytes / 2 ** 30} GiB`, since);

since = performance.now();
writer.beginLayer(files);
for (let index = 0; index < files; index++) {
  const directory = Math.floor(index / FILES_PER_DIRECTORY);
  const path = `usr/lib/package-${Math.floor(directory / 100)}/directory-${directory % 100}/a-file-with-a-name-${index}.js`;
  writer.apply({ kind: "put", entry: entry({ path, type: "file", size: 3000, payloadBlock: index, runs: [{ fileBlock: 0, blocks: 1 }] }) });
}
report(`apply ${files} files`, since);

since = performance.now();
const { metadata, payload } = writer.finishLayer();
let metadataBytes = 0;
for (const block of metadata) metadataBytes += writer.metadataBlock(block).length;
report(`finish: ${Math.round(metadataBytes / 2 ** 20)} MB metadata, ${payload.length} runs`, since);

since = performance.now();
writer.beginLayer(1);
writer.apply({ kind: "remove", path: "usr/lib/package-1/directory-1/a-file-with-a-name-10101.js", ownDirectories: new Set() });
const second = writer.finishLayer();
report(`a second layer of ${second.metadata.length} blocks`, since);
console.log(`peak rss ${Math.round(process.resourceUsage().maxRSS / 1024)} MB`);
