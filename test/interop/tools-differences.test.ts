import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { readdir, readFile, rm, stat, symlink, truncate, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { gunzipSync, gzipSync, zstdCompressSync } from "node:zlib";
import { FileSource } from "../../src/bytes/file.ts";
import { createApplyTool } from "../../src/cli/tools/overlaybd-apply.ts";
import { createCommitTool } from "../../src/cli/tools/overlaybd-commit.ts";
import { createCreateTool } from "../../src/cli/tools/overlaybd-create.ts";
import { createMergeTool } from "../../src/cli/tools/overlaybd-merge.ts";
import { createZFileTool } from "../../src/cli/tools/overlaybd-zfile.ts";
import type { CreateTool } from "../../src/cli/tools/tool.ts";
import { createTurboApplyTool } from "../../src/cli/tools/turbo-oci-apply.ts";
import { lockUpper } from "../../src/daemon/upper-lock.ts";
import { Ext4Reader } from "../../src/formats/ext4/ext4-reader.ts";
import { Ext4Tree } from "../../src/formats/ext4/ext4-tree.ts";
import { openLayer } from "../../src/formats/lsmt/lsmt-reader.ts";
import { stackLayers } from "../../src/formats/lsmt/stack.ts";
import { lookupPath, type FilesystemReader } from "../../src/tree/filesystem-reader.ts";
import { runTool } from "../journeys/tools-support.ts";
import { run } from "../support/command.ts";
import { lsmtBytes } from "../support/lsmt-files.ts";
import { load } from "../support/recorded-tree.ts";
import { tarArchive } from "../support/tar-builder.ts";
import { TemporaryDirectory } from "../support/temporary-directory.ts";
import { recordedTarget } from "../support/turbo-image.ts";
import { toolSections } from "./tools-page.ts";

const PAGE = join(import.meta.dirname, "../../docs/tools.md");

let scratch: TemporaryDirectory;
let page: string;
/** Rows of the page's table that have a test. */
const rows: string[] = [];

before(async () => {
  scratch = await TemporaryDirectory.create();
  page = await readFile(PAGE, "utf8");
  await writeFile(scratch.join("data"), lsmtBytes("append/writable_data.zst"));
  await writeFile(scratch.join("index"), lsmtBytes("append/writable_index"));
});

after(async () => await scratch[Symbol.asyncDispose]());

/** A row of the page's table, by its first two cells, and what holds it. */
function differs(tool: string, situation: string, check: () => Promise<void>): void {
  rows.push(`| ${tool} | ${situation} |`);
  test(`${tool}: ${situation}`, check);
}

async function fails(create: CreateTool, args: readonly string[], status: number, message: RegExp): Promise<void> {
  const result = await runTool(create, args);
  assert.equal(result.status, status, result.stderr);
  assert.match(result.stderr, message);
  assert.equal(result.stdout, "");
}

async function works(create: CreateTool, args: readonly string[]): Promise<{ stdout: string; stderr: string }> {
  const { status, stdout, stderr } = await runTool(create, args);
  assert.equal(status, 0, `${args.join(" ")}: ${stderr}`);
  return { stdout, stderr };
}

function commitArgs(...more: string[]): string[] {
  return [scratch.join("data"), scratch.join("index"), scratch.join("commit"), ...more];
}

async function rawFile(name: string): Promise<string> {
  const path = scratch.join(name);
  await writeFile(path, "");
  await truncate(path, 64 << 20);
  return path;
}

/** Applies an archive to a new filesystem, and opens that. */
async function applied(archive: Uint8Array): Promise<FilesystemReader & AsyncDisposable> {
  const raw = await rawFile("raw");
  await writeFile(scratch.join("tar"), archive);
  await works(createApplyTool, ["--raw", "--mkfs", scratch.join("tar"), raw]);
  await run("e2fsck", ["-fn", raw]);
  const file = await FileSource.open(raw);
  const tree = new Ext4Tree(await Ext4Reader.open(file));
  return Object.assign(tree, { [Symbol.asyncDispose]: async () => await file.close() });
}

async function textAt(tree: FilesystemReader, path: string): Promise<string> {
  const file = await tree.file(await lookupPath(tree, path));
  return Buffer.from(await file.read(0, file.size)).toString();
}

function odd(name: string): Uint8Array {
  return gunzipSync(load(`tar/${name}.tar.gz`));
}

differs("all", "`/etc/overlaybd/overlaybd.json` is missing, and not needed", async () => {
  await works(createCreateTool, [scratch.join("ld"), scratch.join("li"), "1", "--mkfs"]);
  await writeFile(scratch.join("json"), JSON.stringify({ upper: { data: scratch.join("ld"), index: scratch.join("li") } }));
  await writeFile(scratch.join("tar"), tarArchive([{ name: "f", data: "x" }]));
  await works(createApplyTool, [scratch.join("tar"), scratch.join("json")]);
});

differs("all", "a file that was begun, and cannot be ended", async () => {
  await writeFile(scratch.join("noise"), createNoise());
  const { status, stdout } = await runTool(createZFileTool, ["--bs", "64", scratch.join("noise"), scratch.join("begun")]);
  assert.equal(status, 255);
  assert.doesNotMatch(stdout, /done/);
  await assert.rejects(stat(scratch.join("begun")), { code: "ENOENT" });
});

differs("apply, turboOCI-apply, resize, commit", "a writable layer that another process here writes to", async () => {
  const lock = await lockUpper(scratch.join("data"));
  await fails(createCommitTool, ["--seal", scratch.join("data"), scratch.join("index")], 255, /another process writes to/);
  await works(createCommitTool, commitArgs());
  await rm(scratch.join("commit"));
  lock.close();
});

differs("create", "a failure after the first file was made", async () => {
  await fails(createCreateTool, [scratch.join("d"), scratch.join("i"), "0", "--mkfs"], 255, /mkfs failed/);
  assert.deepEqual(
    (await readdir(scratch.path)).filter((name) => name === "d" || name === "i"),
    [],
  );
});

differs("create, apply", "`--mkfs`", async () => {
  await using tree = await applied(tarArchive([{ name: "f", data: "x" }]));
  assert.equal(await textAt(tree, "f"), "x");
});

differs("commit", "a source that cannot be opened", async () => {
  await fails(createCommitTool, [scratch.join("data"), scratch.join("none"), scratch.join("commit")], 255, /failed to open file/);
  await writeFile(scratch.join("text"), "no layer");
  await fails(createCommitTool, [scratch.join("text"), scratch.join("index"), scratch.join("commit")], 255, /lsmt data file of 8 bytes/);
});

differs("commit", "committing fails", async () => {
  await fails(createCommitTool, commitArgs("-m", "x".repeat(257)), 255, /user tag of 257 bytes/);
  await assert.rejects(stat(scratch.join("commit")), { code: "ENOENT" });
});

differs("commit", "`--turboOCI` of a sparse layer", async () => {
  await works(createCreateTool, [scratch.join("sd"), scratch.join("si"), "1", "-s"]);
  await fails(
    createCommitTool,
    [scratch.join("sd"), scratch.join("si"), scratch.join("commit"), "--turboOCI"],
    255,
    /lsmt index file of 0 bytes/,
  );
});

differs("commit, zfile", "`--bs 64`, and data that does not shrink", async () => {
  await fails(createCommitTool, commitArgs("-z", "--bs", "64"), 255, /use blocks of 32768 bytes or less/);
});

differs("commit", "the warning about `--bs` and `--algorithm` without `-z`", async () => {
  const warning = "WARNING option '--bs' and '--algorithm' will be ignored without '-z'\n";
  assert.equal((await works(createCommitTool, commitArgs("-f"))).stderr, "\n");
  assert.equal((await works(createCommitTool, commitArgs("-f", "--bs", "8"))).stderr, `${warning}\n`);
});

differs("commit", "the space between the index of a sealed layer and its trailer", async () => {
  const sealed = [];
  for (const name of ["s1", "s2"]) {
    await writeFile(scratch.join(`${name}d`), lsmtBytes("append/writable_data.zst"));
    await writeFile(scratch.join(`${name}i`), lsmtBytes("append/writable_index"));
    await works(createCommitTool, ["--seal", scratch.join(`${name}d`), scratch.join(`${name}i`)]);
    sealed.push(await readFile(scratch.join(`${name}d`)));
  }
  assert.ok(sealed[0].equals(sealed[1]));
});

differs("zfile", "`-x` and `--verify` of a ZFile in a tar, without `-t`", async () => {
  await writeFile(scratch.join("wrapped"), load("zfile/src.lz4.tar.zfile"));
  await works(createZFileTool, ["--verify", scratch.join("wrapped")]);
  await works(createZFileTool, ["-x", scratch.join("wrapped"), scratch.join("unwrapped")]);
  assert.ok((await readFile(scratch.join("unwrapped"))).equals(load("zfile/src.bin.zst")));
});

differs("zfile", "`--verify`, and a damaged trailer of a ZFile whose header says everything", async () => {
  const bytes = lsmtBytes("append/lz4-4k.commit");
  bytes[bytes.length - 400] ^= 1;
  await writeFile(scratch.join("trailer"), bytes);
  await fails(createZFileTool, ["--verify", scratch.join("trailer")], 255, /trailer at \d+: digest/);
});

differs("zfile", "`--bs` with a size that is none", async () => {
  await fails(createZFileTool, ["--bs", "5", scratch.join("data"), scratch.join("z")], 255, /invalid '--bs' parameters\./);
});

differs("apply", "`--checksum`, and another archive", async () => {
  const raw = await rawFile("unchanged");
  await writeFile(scratch.join("tar"), tarArchive([{ name: "f", data: "x" }]));
  const wrong = `sha256:${createHash("sha256").digest("hex")}`;
  await fails(
    createApplyTool,
    ["--raw", "--mkfs", "--checksum", wrong, scratch.join("tar"), raw],
    255,
    /sha256 checksum mismatch, expect: .*, got: /,
  );
  assert.equal((await stat(raw)).blocks, 0);
});

differs("apply", "an archive that is broken behind its first members", async () => {
  const raw = await rawFile("unbroken");
  await writeFile(scratch.join("tar"), odd("bad-chksum-2nd"));
  await fails(createApplyTool, ["--raw", "--mkfs", scratch.join("tar"), raw], 255, /failed to extract: .*header checksum/);
  assert.equal((await stat(raw)).blocks, 0);
});

differs("apply", "a FIFO that ends without the end of an archive", async () => {
  await run("mkfifo", [scratch.join("fifo")]);
  const raw = await rawFile("fed");
  const feeding = writeFile(scratch.join("fifo"), odd("no-eof-blocks"));
  await works(createApplyTool, ["--raw", "--mkfs", scratch.join("fifo"), raw]);
  await feeding;
});

differs("apply", "a member whose path leads out of the root with `..`", async () => {
  await using tree = await applied(odd("dotdot"));
  assert.ok(await lookupPath(tree, "escape"));
});

differs("apply", "a directory on the way that is a symlink", async () => {
  await using tree = await applied(odd("write-through-symlink"));
  assert.equal((await tree.inode(await lookupPath(tree, "real"))).type, "directory");
  assert.equal((await tree.list(await lookupPath(tree, "real"))).length, 1);
});

differs("apply", "owners and sizes in base-256, owners and times in PAX records", async () => {
  for (const name of ["gnu-base256-uid", "pax-uid-3000000"]) {
    await using tree = await applied(odd(name));
    assert.equal((await tree.inode(await lookupPath(tree, "f"))).uid, 3_000_000, name);
  }
  await using negative = await applied(odd("pax-negative-mtime"));
  assert.ok((await negative.inode(await lookupPath(negative, "f"))).mtime.seconds < 0);
});

differs("apply", "times with fractions of a second, or behind 2038", async () => {
  await using tree = await applied(tarArchive([{ name: "f", data: "x", mtime: { seconds: 2 ** 32, nanoseconds: 5 } }]));
  assert.deepEqual((await tree.inode(await lookupPath(tree, "f"))).mtime, { seconds: 2 ** 32, nanoseconds: 5 });
});

differs("apply", "sparse files of GNU tar", async () => {
  for (const name of ["gnu-sparse-S", "pax-sparse-0.1", "pax-sparse-1.0"]) {
    await using tree = await applied(odd(name));
    assert.equal((await tree.inode(await lookupPath(tree, "sp"))).type, "file", name);
  }
});

differs("apply", "a symlink's target with `.`, `..` or `//` in it", async () => {
  await using tree = await applied(tarArchive([{ name: "l", type: "symlink", link: "./a//b/../c/" }]));
  const [entry] = (await tree.list(tree.root)).filter(({ name }) => name === "l");
  assert.equal(await tree.linkTarget(entry.inode), "./a//b/../c/");
});

differs("apply", "`.wh..wh..opq` in the root", async () => {
  const raw = await rawFile("opaque");
  await writeFile(scratch.join("tar"), tarArchive([{ name: "old", data: "x" }]));
  await works(createApplyTool, ["--raw", "--mkfs", scratch.join("tar"), raw]);
  await writeFile(scratch.join("tar"), tarArchive([{ name: ".wh..wh..opq" }, { name: "new", data: "y" }]));
  await works(createApplyTool, ["--raw", scratch.join("tar"), raw]);
  const file = await FileSource.open(raw);
  const tree = new Ext4Tree(await Ext4Reader.open(file));
  assert.deepEqual(
    (await tree.list(tree.root)).map(({ name }) => name),
    ["new"],
  );
  await file.close();
});

differs("apply", "an extended attribute of more than a block", async () => {
  const raw = await rawFile("attribute");
  await writeFile(scratch.join("tar"), odd("xattr-5000"));
  await works(createApplyTool, ["--raw", "--mkfs", scratch.join("tar"), raw]);
});

differs("apply", "blocks around what is written", async () => {
  await works(createCreateTool, [scratch.join("bd"), scratch.join("bi"), "1", "--mkfs"]);
  await writeFile(scratch.join("json"), JSON.stringify({ upper: { data: scratch.join("bd"), index: scratch.join("bi") } }));
  const before = (await stat(scratch.join("bd"))).size;
  await writeFile(scratch.join("tar"), tarArchive([{ name: "f", data: "x" }]));
  await works(createApplyTool, [scratch.join("tar"), scratch.join("json")]);
  assert.ok((await stat(scratch.join("bd"))).size - before < 128 * 1024);
});

differs("turboOCI-apply", "a tar that is compressed with zstd", async () => {
  await works(createCreateTool, [scratch.join("td"), scratch.join("ti"), "1", "--turboOCI", "--mkfs"]);
  await writeFile(scratch.join("zst"), zstdCompressSync(tarArchive([{ name: "f", data: "x" }])));
  const upper = { data: scratch.join("td"), index: scratch.join("ti"), target: scratch.join("zst") };
  await writeFile(scratch.join("json"), JSON.stringify({ upper }));
  await fails(createTurboApplyTool, [scratch.join("zst"), scratch.join("json")], 255, /failed to extract: .*compressed with zstd/);
});

differs("turboOCI-apply", "the bytes of the gzip index", async () => {
  const [target, index] = recordedTarget(1);
  await writeFile(scratch.join("gz"), target);
  const args = [scratch.join("gz"), scratch.join("dump"), "--export", "--gz_index_path", scratch.join("gz_idx")];
  await works(createTurboApplyTool, args);
  const found = await readFile(scratch.join("gz_idx"));
  assert.deepEqual(found.subarray(0, 25), index.subarray(0, 25));
});

differs("merge", "an output that is there, and a merge that fails", async () => {
  const lower = lsmtBytes("append/lz4-4k.commit");
  lower[5000] ^= 1;
  await writeFile(scratch.join("damaged"), lower);
  await writeFile(scratch.join("json"), JSON.stringify({ lowers: [{ file: scratch.join("damaged") }] }));
  await writeFile(scratch.join("there"), "mine");
  await fails(createMergeTool, [scratch.join("json"), scratch.join("there")], 255, /zfile block/);
  assert.equal(await readFile(scratch.join("there"), "utf8"), "mine");
  assert.deepEqual(
    (await readdir(scratch.path)).filter((name) => name.startsWith(".lazylayer")),
    [],
  );
});

differs("merge", "an output that is a pipe or a device", async () => {
  await writeFile(scratch.join("json"), JSON.stringify({ upper: { data: scratch.join("data"), index: scratch.join("index") } }));
  await run("mkfifo", [scratch.join("pipe")]);
  await symlink("/dev/null", scratch.join("null"));
  for (const output of [scratch.join("pipe"), scratch.join("null"), scratch.path, "/dev/null"]) {
    await fails(
      createMergeTool,
      [scratch.join("json"), output],
      255,
      /failed to create output file: .* is a directory, a pipe or a device/,
    );
  }
  assert.ok((await stat(scratch.join("pipe"))).isFIFO());
});

differs("merge", "an image without layers", async () => {
  await writeFile(scratch.join("json"), "{}");
  await fails(createMergeTool, [scratch.join("json"), scratch.join("merged")], 255, /neither lowers nor an upper/);
});

differs("apply", "`--from_qcow2` with `--mkfs`, `--checksum` or `--gz_index_path`", async () => {
  const raw = await rawFile("disk");
  await writeFile(scratch.join("tar"), tarArchive([{ name: "f", data: "x" }]));
  await works(createApplyTool, ["--raw", "--mkfs", scratch.join("tar"), raw]);
  await run("qemu-img", ["convert", "-f", "raw", "-O", "qcow2", raw, scratch.join("qcow2")]);
  const copy = await rawFile("copy");
  const ignored = ["--mkfs", "--checksum", "none", "--gz_index_path", scratch.join("unused")];
  const { stdout, stderr } = await works(createApplyTool, ["--raw", "--from_qcow2", ...ignored, scratch.join("qcow2"), copy]);
  assert.equal(stdout, "qcow2 to overlaybd conversion done\n");
  assert.equal(stderr, "WARNING --from_qcow2 copies a disk; --mkfs, --checksum, --gz_index_path will be ignored\n");
  assert.ok((await readFile(copy)).equals(await readFile(raw)));
  await assert.rejects(stat(scratch.join("unused")), { code: "ENOENT" });
});

differs("turboOCI-apply", "`--import` of a gzipped dump", async () => {
  await writeFile(scratch.join("tar"), tarArchive([{ name: "f", data: "x" }]));
  await works(createTurboApplyTool, ["--export", scratch.join("tar"), scratch.join("plain-dump")]);
  await writeFile(scratch.join("gzipped-dump"), gzipSync(await readFile(scratch.join("plain-dump"))));
  const made: Buffer[] = [];
  for (const dump of ["plain-dump", "gzipped-dump"]) {
    const upper = { data: scratch.join(`${dump}-d`), index: scratch.join(`${dump}-i`), target: scratch.join("tar") };
    await works(createCreateTool, [upper.data, upper.index, "1", "--turboOCI", "--mkfs"]);
    await writeFile(scratch.join("json"), JSON.stringify({ upper }));
    const index = ["--gz_index_path", scratch.join("dump-index")];
    await works(createTurboApplyTool, ["--import", ...index, scratch.join(dump), scratch.join("json")]);
    made.push((await readFile(upper.index)).subarray(4096));
  }
  assert.deepEqual(made[0], made[1]);
  await assert.rejects(stat(scratch.join("dump-index")), { code: "ENOENT" });
});

differs("merge", "a writable layer of another size than the layer below it, as after `overlaybd-resize`", async () => {
  await works(createCommitTool, [scratch.join("data"), scratch.join("index"), scratch.join("below")]);
  await works(createCreateTool, [scratch.join("rd"), scratch.join("ri"), "7"]);
  const upper = { data: scratch.join("rd"), index: scratch.join("ri") };
  await writeFile(scratch.join("json"), JSON.stringify({ lowers: [{ file: scratch.join("below") }], upper }));
  await works(createMergeTool, [scratch.join("json"), scratch.join("merged"), "--compress=false"]);
  const file = await FileSource.open(scratch.join("merged"));
  assert.equal((await openLayer(file)).virtualSize, 7 * 2 ** 30);
  await file.close();
});

differs("merge", "an image whose topmost finished layer is turboOCI", async () => {
  const upper = { data: scratch.join("turbo-d"), index: scratch.join("turbo-i"), target: scratch.join("tar") };
  await writeFile(upper.target, tarArchive([{ name: "f", data: "x" }]));
  await works(createCreateTool, [upper.data, upper.index, "1", "--turboOCI", "--mkfs"]);
  await writeFile(scratch.join("json"), JSON.stringify({ upper }));
  await works(createTurboApplyTool, [upper.target, scratch.join("json")]);
  await works(createCommitTool, [upper.data, upper.index, scratch.join("turbo"), "--turboOCI"]);
  await writeFile(scratch.join("json"), JSON.stringify({ lowers: [{ file: scratch.join("turbo"), targetFile: upper.target }] }));
  await works(createMergeTool, [scratch.join("json"), scratch.join("merged"), "--compress=false"]);
  const file = await FileSource.open(scratch.join("merged"));
  const merged = await openLayer(file);
  assert.equal(merged.virtualSize, 2 ** 30);
  assert.equal(await textAt(new Ext4Tree(await Ext4Reader.open(stackLayers([merged]))), "f"), "x");
  await file.close();
});

differs("commit, merge", "an upload that fails", async () => {
  await using registry = createServer((_, answer) => answer.writeHead(403).end()).listen(0, "127.0.0.1");
  await once(registry, "listening");
  const address = registry.address();
  const port = typeof address === "object" ? address?.port : undefined;
  const upload = ["-f", "-z", "--upload", `http://127.0.0.1:${port}/v2/app/blobs/uploads`];
  await fails(createCommitTool, commitArgs(...upload), 255, /commit is complete, sha256:\w+, and stays; .* the same command with -f/);
  await works(createZFileTool, ["--verify", scratch.join("commit")]);
});

differs("commit, merge", "`--upload` without `--cred_file_path`", async () => {
  await fails(createCommitTool, commitArgs("-f", "-z", "--upload", "http://127.0.0.1:1/app"), 255, /expected a URL like/);
});

test("docs/tools.md has a row for every difference that is tested here, and no other", () => {
  const table = page.split("## What differs")[1].split("\n## ")[0];
  const found = [...table.matchAll(/^(\| [^|]+ \| [^|]+ \|) /gm)].map(([, row]) => row).slice(1);
  assert.deepEqual(found.filter((row) => !row.startsWith("| --- ")).toSorted(), rows.toSorted());
});

test("docs/tools.md says of every argument and flag what the tools' own help says", () => {
  for (const { name, usage, lines } of toolSections()) {
    const section = page.split(`\n## ${name}\n`)[1]?.split("\n## ")[0];
    assert.ok(section, name);
    assert.ok(section.includes(`\`${usage}\``), name);
    const found = section.split("\n").filter((line) => line.startsWith("| `"));
    assert.deepEqual(found, lines);
  }
});

/** Bytes that no compression makes smaller. */
function createNoise(): Buffer {
  return Buffer.concat(Array.from({ length: 4096 }, (_, i) => createHash("sha256").update(String(i)).digest()));
}
