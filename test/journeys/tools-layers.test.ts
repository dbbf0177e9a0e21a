import assert from "node:assert/strict";
import { createCipheriv } from "node:crypto";
import { chmod, lstat, mkdir, open, readdir, readFile, rm, stat, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { DiskFile, FileSource } from "../../src/bytes/file.ts";
import { findDataExtents } from "../../src/cli/tools/data-extents.ts";
import { createCommitTool } from "../../src/cli/tools/overlaybd-commit.ts";
import { createCreateTool } from "../../src/cli/tools/overlaybd-create.ts";
import { createMergeTool } from "../../src/cli/tools/overlaybd-merge.ts";
import { openOverlaybdLayer } from "../../src/device/layer.ts";
import { AppendLayer } from "../../src/formats/lsmt/append-layer.ts";
import { LSMT_RECORD_BYTES, MAPPING_BYTES } from "../../src/formats/lsmt/layout.ts";
import { stackLayers } from "../../src/formats/lsmt/stack.ts";
import { lsmtBytes, SparseSource } from "../support/lsmt-files.ts";
import { execute, run } from "../support/command.ts";
import { TemporaryDirectory } from "../support/temporary-directory.ts";
import { runTool } from "./tools-support.ts";

const COMMITTED = "overlaybd-commit has committed files SUCCESSFULLY\n";
const IDS = ["--uuid", "11111111-2222-3333-4444-555555555555", "--parent-uuid", "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"];

/** A writable layer of testdata/lsmt as files. */
async function writableLayer(
  scratch: TemporaryDirectory,
  form: "append" | "sparse",
  name = "writable",
): Promise<[data: string, index: string]> {
  const [data, index] = [scratch.join(`${form}-data`), scratch.join(`${form}-index`)];
  if (form === "append") {
    await writeFile(data, lsmtBytes(`append/${name}_data.zst`));
    await writeFile(index, lsmtBytes(`append/${name}_index`));
    return [data, index];
  }
  await writeSparse(data, new SparseSource(`${name}_data`));
  await writeFile(index, "");
  return [data, index];
}

async function writeSparse(path: string, source: SparseSource): Promise<void> {
  const file = await open(path, "wx");
  await file.truncate(source.size);
  for (const { offset, length } of source.extents) await file.write(await source.read(offset, length), 0, length, offset);
  await file.close();
}

async function commit(args: readonly string[]): Promise<void> {
  const { status, stdout, stderr } = await runTool(createCommitTool, args);
  assert.deepEqual({ status, stdout, stderr }, { status: 0, stdout: COMMITTED, stderr: "\n" }, args.join(" "));
}

async function assertBytes(path: string, expected: Buffer, what: string): Promise<void> {
  const found = await readFile(path);
  assert.equal(found.length, expected.length, what);
  assert.ok(found.equals(expected), `${what}: byte ${found.findIndex((byte, at) => byte !== expected[at])} differs`);
}

test("overlaybd-commit makes of an append-only layer the bytes that the other tool makes", async () => {
  await using scratch = await TemporaryDirectory.create();
  const [data, index] = await writableLayer(scratch, "append");
  const rows: readonly [name: string, args: string[]][] = [
    ["plain.commit.zst", []],
    ["plain.commit.zst", ["-t"]],
    ["plain-uuid-parent-tag.commit.zst", [...IDS, "-m", "user tag: hello fixture"]],
    ["lz4-4k.commit", ["-z"]],
    ["lz4-4k.commit", ["-z", "--compress_threads", "2"]],
    ["lz4-4k-tar.commit", ["-z", "-t", ...IDS]],
    ["lz4-8k.commit", ["-z", "--bs", "8"]],
    ["lz4-16k.commit", ["-z", "--bs=16"]],
    ["lz4-32k.commit", ["-z", "--bs", "32"]],
    ["turboOCIflag.commit.zst", ["-z", "--turboOCI"]],
  ];
  for (const [name, args] of rows) {
    const target = scratch.join("made");
    await commit(["-f", data, index, target, ...args]);
    await assertBytes(target, lsmtBytes(`append/${name}`), `${name} ${args.join(" ")}`);
  }
  assert.equal((await stat(scratch.join("made"))).mode & 0o777, 0o644);
});

test("overlaybd-commit makes of a sparse layer the bytes that the other tool makes", async () => {
  await using scratch = await TemporaryDirectory.create();
  const [data, index] = await writableLayer(scratch, "sparse");
  await commit([data, index, scratch.join("plain")]);
  await assertBytes(scratch.join("plain"), lsmtBytes("sparse/plain.commit.zst"), "plain");
  await commit(["-z", "-t", data, index, scratch.join("tar"), ...IDS]);
  await assertBytes(scratch.join("tar"), lsmtBytes("sparse/lz4-4k-tar.commit"), "lz4-4k-tar");
});

test("overlaybd-commit --commit_sealed makes the bytes that the other tool makes, of a layer that either of them sealed", async () => {
  await using scratch = await TemporaryDirectory.create();
  await writeSparse(scratch.join("sealed"), new SparseSource("sealed_data"));
  await commit(["--commit_sealed", "-z", scratch.join("sealed"), scratch.join("made")]);
  await assertBytes(scratch.join("made"), lsmtBytes("sparse/commit-sealed-lz4.commit"), "sealed by the other tool");

  const [data, index] = await writableLayer(scratch, "append");
  assert.deepEqual(await runTool(createCommitTool, ["--seal", data, index]), { status: 0, stdout: "", stderr: "" });
  await commit(["--commit_sealed", "-z", data, scratch.join("own")]);
  await assertBytes(scratch.join("own"), lsmtBytes("append/lz4-4k.commit"), "sealed here");
});

test("overlaybd-commit --seal makes the bytes that the other tool makes, but for the garbage behind its index", async () => {
  await using scratch = await TemporaryDirectory.create();
  const [data, index] = await writableLayer(scratch, "append");
  const indexOffset = (await stat(data)).size;
  await runTool(createCommitTool, ["--seal", data, index]);
  const expected = lsmtBytes("append/sealed.zst");
  const trailer = expected.subarray(-LSMT_RECORD_BYTES);
  assert.equal(Number(trailer.readBigUInt64LE(32)), indexOffset);
  const indexEnd = indexOffset + Number(trailer.readBigUInt64LE(40)) * MAPPING_BYTES;
  expected.fill(0, indexEnd, expected.length - LSMT_RECORD_BYTES);
  const found = await readFile(data);
  found.fill(0, indexEnd, found.length - LSMT_RECORD_BYTES);
  await writeFile(scratch.join("found"), found);
  await assertBytes(scratch.join("found"), expected, "sealed");
});

test("overlaybd-merge makes of two layers the bytes that the other tool makes", async () => {
  await using scratch = await TemporaryDirectory.create();
  await writeFile(scratch.join("second"), lsmtBytes("append/second.commit"));
  await writeFile(scratch.join("first"), lsmtBytes("append/lz4-4k.commit"));
  const config = scratch.join("image.json");
  const lowers = [{ file: scratch.join("first") }, { file: scratch.join("second") }];
  await writeFile(config, JSON.stringify({ lowers, resultFile: scratch.join("result") }));
  await writeFile(scratch.join("merged"), "is replaced");
  const { status, stdout, stderr } = await runTool(createMergeTool, [config, scratch.join("merged")]);
  assert.deepEqual({ status, stdout, stderr }, { status: 0, stdout: "", stderr: "\n" });
  await assertBytes(scratch.join("merged"), lsmtBytes("append/merged.commit"), "merged");
  assert.equal(await readFile(scratch.join("result"), "utf8"), "success");
});

test("overlaybd-merge takes the writable layer too, and --compress=false leaves the layer as it is", async () => {
  await using scratch = await TemporaryDirectory.create();
  const [data, index] = await writableLayer(scratch, "append");
  await writeFile(scratch.join("image.json"), JSON.stringify({ upper: { data, index } }));
  const { status } = await runTool(createMergeTool, [scratch.join("image.json"), scratch.join("merged"), "--compress=false"]);
  assert.equal(status, 0);
  await assertBytes(scratch.join("merged"), lsmtBytes("append/plain.commit.zst"), "merged");
});

/** Peak memory of a command and its status, as the kernel counts them. */
const MEASURED =
  "import resource, subprocess, sys; status = subprocess.run(sys.argv[1:]).returncode; print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(status)";

test("overlaybd-merge takes 255 layers, however much is in them, in less memory than they make together", async () => {
  await using scratch = await TemporaryDirectory.create();
  const [layers, pieces, pieceBytes, virtualSize] = [255, 64, 32_768, 256 << 20];
  const maxRssBytes = 208 << 20;
  const expected = await DiskFile.create(scratch.join("expected"));
  await expected.truncate(virtualSize);
  const lowers: { file: string }[] = [];
  for (let layer = 0; layer < layers; layer++) {
    const [data, index, file] = [scratch.join("data"), scratch.join("index"), scratch.join(`${layer}.layer`)];
    const upper = await AppendLayer.create(await DiskFile.create(data), await DiskFile.create(index), { virtualSize });
    const noise = createCipheriv("aes-256-ctr", Buffer.alloc(32, layer), Buffer.alloc(16)).update(Buffer.alloc(pieces * pieceBytes));
    for (let piece = 0; piece < pieces; piece++) {
      const bytes = noise.subarray(piece * pieceBytes, (piece + 1) * pieceBytes);
      const offset = ((Math.imul(layer * pieces + piece + 1, 2_654_435_761) >>> 0) % (virtualSize / 4096 - 8)) * 4096;
      await upper.write(offset, bytes);
      await expected.write(offset, bytes);
    }
    await upper.close();
    await commit([...(layer % 2 === 0 ? ["-z"] : []), data, index, file]);
    for (const path of [data, index]) await rm(path);
    lowers.push({ file });
  }
  const config = scratch.join("image.json");
  await writeFile(config, JSON.stringify({ lowers }));
  const merge = ["-c", MEASURED, join(import.meta.dirname, "../../bin/overlaybd-merge"), config, scratch.join("merged")];
  const { status, stdout, stderr } = await execute("python3", merge);
  assert.deepEqual([status, stderr], [0, "\n"]);
  const rssBytes = Number(stdout) * 1024;
  assert.ok(rssBytes < maxRssBytes, `${rssBytes} bytes`);
  assert.ok((await stat(scratch.join("merged"))).size > maxRssBytes);
  const { lsmt } = await openOverlaybdLayer(await FileSource.open(scratch.join("merged")), { declared: true, keepPinned: true });
  const merged = stackLayers([lsmt]);
  for (let offset = 0; offset < virtualSize; offset += 1 << 20) {
    assert.ok(Buffer.from(await merged.read(offset, 1 << 20)).equals(await expected.read(offset, 1 << 20)), `at ${offset}`);
  }
  await lsmt.close();
  await expected.close();

  await writeFile(config, JSON.stringify({ lowers: [...lowers, lowers[0]] }));
  const refused = await runTool(createMergeTool, [config, scratch.join("none")]);
  assert.equal(refused.status, 255);
  assert.match(refused.stderr, /256 .*255/);
});

test("overlaybd-merge replaces a file where symlinks lead to, and keeps its mode", async () => {
  await using scratch = await TemporaryDirectory.create();
  const [data, index] = await writableLayer(scratch, "append");
  await writeFile(scratch.join("image.json"), JSON.stringify({ upper: { data, index } }));
  await mkdir(scratch.join("kept"));
  await symlink("kept/old", scratch.join("link-to-old"));
  await symlink("kept/new", scratch.join("link-to-new"));
  await writeFile(scratch.join("kept/old"), "old");
  await chmod(scratch.join("kept/old"), 0o4604);
  for (const [link, file, mode] of [
    ["link-to-old", "kept/old", 0o4604],
    ["link-to-new", "kept/new", 0o644],
  ] as const) {
    const { status, stderr } = await runTool(createMergeTool, [scratch.join("image.json"), scratch.join(link), "--compress=false"]);
    assert.equal(status, 0, stderr);
    assert.ok((await lstat(scratch.join(link))).isSymbolicLink());
    assert.ok((await lstat(scratch.join(file))).isFile());
    assert.equal((await stat(scratch.join(file))).mode & 0o7777, mode);
    await assertBytes(scratch.join(link), lsmtBytes("append/plain.commit.zst"), link);
  }
  assert.deepEqual((await readdir(scratch.join("kept"))).toSorted(), ["new", "old"]);
});

test("overlaybd-create makes the files of each kind of layer, which overlaybd-commit takes", async () => {
  await using scratch = await TemporaryDirectory.create();
  const kinds: readonly [flags: string[], dataBytes: number, indexBytes: number, commitFlags: string[]][] = [
    [[], 4096, 4096, []],
    [["-s"], 2 ** 30 + 4096, 0, []],
    [["--turboOCI"], 2 ** 30, 4096, ["--turboOCI"]],
    [["-s", "--fastoci"], 2 ** 30, 4096, ["--fastoci"]],
  ];
  for (const [flags, dataBytes, indexBytes, commitFlags] of kinds) {
    const [data, index] = [scratch.join(`data${flags.join("")}`), scratch.join(`index${flags.join("")}`)];
    const parent = ["-u", "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"];
    const { status, stdout, stderr } = await runTool(createCreateTool, [data, index, "1", ...flags, ...parent]);
    assert.deepEqual({ status, stdout, stderr }, { status: 0, stdout: "overlaybd-create has created files SUCCESSFULLY\n", stderr: "" });
    assert.deepEqual([(await stat(data)).size, (await stat(index)).size], [dataBytes, indexBytes], flags.join(" "));
    await commit([data, index, `${data}.commit`, ...commitFlags]);
    if (commitFlags.length > 0) continue;
    const { lsmt } = await openOverlaybdLayer(await FileSource.open(`${data}.commit`), { declared: true, keepPinned: true });
    assert.equal(lsmt.parentUuid, "AAAAAAAA-BBBB-CCCC-DDDD-EEEEEEEEEEEE");
    assert.equal(lsmt.virtualSize, 2 ** 30);
    await lsmt.close();
  }
});

test("overlaybd-create --raw --mkfs makes a file with a filesystem that e2fsck has nothing against, the same one each time", async () => {
  await using scratch = await TemporaryDirectory.create();
  for (const name of ["one", "two"]) {
    assert.equal((await runTool(createCreateTool, [scratch.join(name), scratch.join(`${name}-index`), "1", "--raw", "--mkfs"])).status, 0);
    assert.equal((await stat(scratch.join(`${name}-index`))).size, 0);
  }
  await run("e2fsck", ["-fn", scratch.join("one")]);
  assert.deepEqual(await dataOf(scratch.join("one")), await dataOf(scratch.join("two")));
});

/** What a sparse file holds, without its holes. */
async function dataOf(path: string): Promise<Buffer> {
  const file = await FileSource.open(path);
  const pieces = [];
  for (const { offset, length } of await findDataExtents(path)) pieces.push(await file.read(offset, length));
  await file.close();
  assert.notEqual(pieces.length, 0);
  return Buffer.concat(pieces);
}

test("overlaybd-create keeps what is there, and takes away what it has made when it fails", async () => {
  await using scratch = await TemporaryDirectory.create();
  await writeFile(scratch.join("index"), "mine");
  const taken = await runTool(createCreateTool, [scratch.join("data"), scratch.join("index"), "1"]);
  assert.equal(taken.status, 255);
  assert.ok(taken.stderr.includes(`failed to open file '${scratch.join("index")}', 17: File exists`));
  const failed = await runTool(createCreateTool, [scratch.join("d"), scratch.join("i"), "0", "--mkfs"]);
  assert.equal(failed.status, 255);
  assert.match(failed.stderr, /mkfs failed, /);
  assert.equal(failed.stdout, "");
  assert.deepEqual(await readdir(scratch.path), ["index"]);
  for (const size of ["-1", "1.5", "x", "8388608"]) {
    assert.equal((await runTool(createCreateTool, [scratch.join("d"), scratch.join("i"), size])).status, 105, size);
  }
});
