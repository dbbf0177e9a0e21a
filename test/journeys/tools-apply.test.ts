import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { createWriteStream } from "node:fs";
import { mkdir, open, readdir, readFile, stat, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { gzipSync, zstdCompressSync } from "node:zlib";
import { FileSource } from "../../src/bytes/file.ts";
import { findDataExtents } from "../../src/cli/tools/data-extents.ts";
import { createApplyTool } from "../../src/cli/tools/overlaybd-apply.ts";
import { createCommitTool } from "../../src/cli/tools/overlaybd-commit.ts";
import { createCreateTool } from "../../src/cli/tools/overlaybd-create.ts";
import { createMergeTool } from "../../src/cli/tools/overlaybd-merge.ts";
import { createResizeTool } from "../../src/cli/tools/overlaybd-resize.ts";
import { createTurboApplyTool } from "../../src/cli/tools/turbo-oci-apply.ts";
import { lockUpper } from "../../src/daemon/upper-lock.ts";
import { openImageConfig } from "../../src/device/image-config.ts";
import { imageConfigSchema } from "../../src/device/image-config-schema.ts";
import { openFilesystem } from "../../src/device/open-filesystem.ts";
import { lookupPath } from "../../src/tree/filesystem-reader.ts";
import type { ByteSource } from "../../src/bytes/source.ts";
import type { CreateTool } from "../../src/cli/tools/tool.ts";
import { run } from "../support/command.ts";
import { lsmtBytes } from "../support/lsmt-files.ts";
import { tarArchive } from "../support/tar-builder.ts";
import { TemporaryDirectory } from "../support/temporary-directory.ts";
import { runTool } from "./tools-support.ts";

const ARCHIVE = tarArchive([
  { name: "etc/" },
  { name: "etc/name", data: "one\n", mode: 0o640, uid: 7 },
  { name: "big", data: Buffer.alloc(300_000, "abcdefg") },
  { name: "etc/link", type: "symlink", link: "name" },
]);
const SECOND = tarArchive([{ name: "etc/.wh.name" }, { name: "etc/other", data: "two\n" }]);
const APPLY = join(import.meta.dirname, "../../src/cli/tools/overlaybd-apply.ts");
const DONE = "overlaybd-apply done\n";

async function succeed(create: CreateTool, args: readonly string[]): Promise<{ stdout: string; stderr: string }> {
  const { status, stdout, stderr } = await runTool(create, args);
  assert.equal(status, 0, `${args.join(" ")}: ${stderr}`);
  return { stdout, stderr };
}

/** What a sparse file holds, without its holes. */
async function digestOfData(path: string): Promise<string> {
  const file = await FileSource.open(path);
  const hash = createHash("sha256");
  for (const { offset, length } of await findDataExtents(path)) hash.update(`${offset} `).update(await file.read(offset, length));
  await file.close();
  return hash.digest("hex");
}

async function rawFile(path: string): Promise<string> {
  await writeFile(path, "");
  await truncate(path, 64 << 20);
  return path;
}

async function textAt(device: ByteSource, path: string): Promise<string> {
  const filesystem = await openFilesystem(device);
  const file = await filesystem.file(await lookupPath(filesystem, path));
  return Buffer.from(await file.read(0, file.size)).toString();
}

async function openImage(lowers: readonly string[]): Promise<ByteSource> {
  const config = imageConfigSchema.parse({ lowers: lowers.map((file) => ({ file })) });
  const openRemote = async (): Promise<never> => await Promise.reject(new Error("nothing is remote"));
  return (await openImageConfig(config, { openRemote, cache: undefined, gzipCache: undefined, notice: assert.fail })).device;
}

test("overlaybd-apply --raw --mkfs makes the same file of a tar, however compressed, and of a FIFO with it", async () => {
  await using scratch = await TemporaryDirectory.create();
  await writeFile(scratch.join("tar"), ARCHIVE);
  await writeFile(scratch.join("gz"), gzipSync(ARCHIVE));
  await writeFile(scratch.join("zst"), zstdCompressSync(ARCHIVE));
  await run("mkfifo", [scratch.join("fifo")]);
  const digests = new Set<string>();
  for (const input of ["tar", "gz", "zst", "fifo"]) {
    const raw = await rawFile(scratch.join(`${input}.raw`));
    const fed = input === "fifo" ? feed(scratch.join("fifo")) : undefined;
    assert.equal((await succeed(createApplyTool, ["--raw", "--mkfs", scratch.join(input), raw])).stdout, DONE);
    await fed;
    digests.add(await digestOfData(raw));
    await run("e2fsck", ["-fn", raw]);
    const file = await FileSource.open(raw);
    assert.equal(await textAt(file, "etc/link"), "one\n");
    await file.close();
  }
  assert.equal(digests.size, 1);
});

async function feed(fifo: string): Promise<void> {
  await new Promise<void>((done, fail) =>
    createWriteStream(fifo)
      .once("error", fail)
      .end(ARCHIVE, () => done()),
  );
}

test("a tool that is interrupted while it waits for a FIFO ends at once, and leaves nothing behind", async () => {
  await using scratch = await TemporaryDirectory.create();
  await run("mkfifo", [scratch.join("fifo")]);
  await mkdir(scratch.join("tmp"));
  const raw = await rawFile(scratch.join("raw"));
  const apply = spawn(process.execPath, [APPLY, "--raw", "--mkfs", scratch.join("fifo"), raw], {
    env: { ...process.env, TMPDIR: scratch.join("tmp") },
    stdio: "ignore",
  });
  const ended = once(apply, "exit");
  const writer = await open(scratch.join("fifo"), "w"); // waits for the reader
  apply.kill("SIGINT");
  assert.deepEqual(await ended, [130, null]);
  await writer.close();
  assert.deepEqual(await readdir(scratch.join("tmp")), []);
});

test("overlaybd-apply holds the tar against --checksum, says it again on standard error, and changes nothing if it differs", async () => {
  await using scratch = await TemporaryDirectory.create();
  await writeFile(scratch.join("gz"), gzipSync(ARCHIVE));
  const raw = await rawFile(scratch.join("raw"));
  const digest = `sha256:${createHash("sha256").update(ARCHIVE).digest("hex")}`;
  const wrong = digest.replace(/.$/, (last) => (last === "0" ? "1" : "0"));
  const refused = await runTool(createApplyTool, ["--raw", "--mkfs", scratch.join("gz"), raw, "--checksum", wrong]);
  assert.equal(refused.status, 255);
  assert.equal(refused.stdout, "");
  assert.ok(refused.stderr.includes(`sha256 checksum mismatch, expect: ${wrong}, got: ${digest}`));
  assert.equal((await stat(raw)).blocks, 0);
  const { stderr } = await succeed(createApplyTool, ["--raw", "--mkfs", scratch.join("gz"), raw, "--checksum", digest]);
  assert.equal(stderr, `${digest}\n`);
});

for (const form of ["append-only", "sparse"]) {
  test(`layers that are created, applied and committed one on the other are an image (${form})`, async () => {
    await using scratch = await TemporaryDirectory.create();
    const flags = form === "sparse" ? ["-s"] : [];
    const layers: string[] = [];
    for (const [number, archive] of [ARCHIVE, SECOND].entries()) {
      const [data, index, tar, config] = ["data", "index", "tar", "json"].map((name) => scratch.join(`${number}.${name}`));
      await writeFile(tar, archive);
      await succeed(createCreateTool, [data, index, number === 0 ? "1" : "0", ...flags, ...(number === 0 ? ["--mkfs"] : [])]);
      await writeFile(config, JSON.stringify({ lowers: layers.map((file) => ({ file })), upper: { data, index } }));
      await succeed(createApplyTool, [tar, config]);
      layers.push(scratch.join(`${number}.commit`));
      await succeed(createCommitTool, [data, index, layers[number], "-z", "-t"]);
    }
    const device = await openImage(layers);
    assert.equal(device.size, 2 ** 30);
    assert.equal(await textAt(device, "etc/other"), "two\n");
    assert.equal((await textAt(device, "big")).length, 300_000);
    await assert.rejects(textAt(device, "etc/name"), { code: "NOT_FOUND" });
    await device.close();
  });
}

test("overlaybd-apply goes on with a writable layer that the other tool made", async () => {
  await using scratch = await TemporaryDirectory.create();
  const [data, index] = [scratch.join("data"), scratch.join("index")];
  await writeFile(data, lsmtBytes("append/writable_data.zst"));
  await writeFile(index, lsmtBytes("append/writable_index"));
  await writeFile(scratch.join("json"), JSON.stringify({ upper: { data, index } }));
  await writeFile(scratch.join("tar"), SECOND);
  await succeed(createApplyTool, [scratch.join("tar"), scratch.join("json")]);
  await succeed(createCommitTool, [data, index, scratch.join("commit"), "-z"]);
  const device = await openImage([scratch.join("commit")]);
  assert.equal(await textAt(device, "etc/other"), "two\n");
  assert.equal((await textAt(device, "text")).length, 150_000);
  await device.close();
});

test("overlaybd-apply --from_qcow2 takes the partitions with root filesystems, or the whole disk", async () => {
  await using scratch = await TemporaryDirectory.create();
  const partition = await rawFile(scratch.join("partition"));
  await writeFile(scratch.join("tar"), ARCHIVE);
  await succeed(createApplyTool, ["--raw", "--mkfs", scratch.join("tar"), partition]);
  await writeFile(scratch.join("disk"), "");
  await truncate(scratch.join("disk"), 80 << 20);
  const disk = await open(scratch.join("disk"), "r+");
  const mbr = Buffer.alloc(512);
  for (const [entry, type, firstSector, sectors] of [
    [0, 0x82, 2048, 8192],
    [1, 0x83, 16_384, 131_072],
  ]) {
    mbr[446 + entry * 16 + 4] = type;
    mbr.writeUInt32LE(firstSector, 446 + entry * 16 + 8);
    mbr.writeUInt32LE(sectors, 446 + entry * 16 + 12);
  }
  mbr.writeUInt16LE(0xaa55, 510);
  await disk.write(mbr, 0, 512, 0);
  await disk.write(Buffer.from("swap"), 0, 4, 2048 * 512);
  const content = await readFile(partition);
  await disk.write(content, 0, content.length, 16_384 * 512);
  await disk.close();
  await run("qemu-img", ["convert", "-c", "-f", "raw", "-O", "qcow2", scratch.join("disk"), scratch.join("qcow2")]);

  await mkdir(scratch.join("tmp"));
  const taken = await rawFile(scratch.join("taken"));
  const { stdout } = await succeed(createApplyTool, ["--raw", "--from_qcow2", scratch.join("qcow2"), taken]);
  assert.equal(stdout, "qcow2 to overlaybd conversion done\n");
  assert.ok((await readFile(taken)).equals(content));

  const [data, index] = [scratch.join("data"), scratch.join("index")];
  await succeed(createCreateTool, [data, index, "1"]);
  await writeFile(scratch.join("json"), JSON.stringify({ upper: { data, index } }));
  await succeed(createApplyTool, ["--from_qcow2", "--no-extract-rootfs", scratch.join("qcow2"), scratch.join("json")]);
  await succeed(createCommitTool, [data, index, scratch.join("commit"), "-z"]);
  const device = await openImage([scratch.join("commit")]);
  assert.deepEqual(Buffer.from(await device.read(2048 * 512, 4)).toString(), "swap");
  assert.ok(Buffer.from(await device.read(16_384 * 512, content.length)).equals(content));
  await device.close();
});

test("overlaybd-resize gives device and filesystem another size, larger or smaller, over layers below", async () => {
  await using scratch = await TemporaryDirectory.create();
  await writeFile(scratch.join("lower"), lsmtBytes("append/lz4-4k.commit"));
  const [data, index, config] = [scratch.join("data"), scratch.join("index"), scratch.join("json")];
  await succeed(createCreateTool, [data, index, "0"]);
  await writeFile(config, JSON.stringify({ lowers: [{ file: scratch.join("lower") }], upper: { data, index } }));
  for (const [number, size] of ["3", "2"].entries()) {
    const { stdout } = await succeed(createResizeTool, ["--config", config, "--size", size]);
    assert.match(stdout, new RegExp(`^Success: filesystem resized to ${size} GB \\(\\d+\\.\\d+ seconds\\)\n$`));
    const commit = scratch.join(`commit${number}`);
    await succeed(createCommitTool, [data, index, commit, "-z"]);
    const device = await openImage([scratch.join("lower"), commit]);
    assert.equal(device.size, Number(size) * 2 ** 30);
    const superblock = Buffer.from(await device.read(1024, 1024));
    assert.equal(superblock.readUInt32LE(4), (Number(size) * 2 ** 30) / 4096);
    assert.equal((await textAt(device, "text")).length, 150_000);
    await device.close();
  }
  const small = await runTool(createResizeTool, ["--config", config, "--size", "0"]);
  assert.match(small.stderr, /invalid size: 0/);
});

test("the tools that write to a writable layer leave it alone while another process writes to it; those that read go on", async () => {
  await using scratch = await TemporaryDirectory.create();
  const [data, index, tar, config] = ["data", "index", "tar", "json"].map((name) => scratch.join(name));
  await writeFile(tar, ARCHIVE);
  await succeed(createCreateTool, [data, index, "1", "--mkfs"]);
  await writeFile(config, JSON.stringify({ upper: { data, index } }));
  for (const name of ["warp1", "warp2"]) {
    const upper = { data: scratch.join(name), index: scratch.join(`${name}.index`), target: tar };
    await succeed(createCreateTool, [upper.data, upper.index, "1", "--turboOCI", "--mkfs"]);
    await writeFile(scratch.join(`${name}.json`), JSON.stringify({ upper }));
  }
  const calls: readonly [create: CreateTool, args: string[]][] = [
    [createApplyTool, [tar, config]],
    [createApplyTool, ["--mkfs", tar, config]],
    [createApplyTool, ["--gz_index_path", scratch.join("gz"), tar, scratch.join("warp1.json")]],
    [createTurboApplyTool, ["--mkfs", tar, scratch.join("warp2.json")]],
    [createResizeTool, ["--config", config, "--size", "2"]],
    [createCommitTool, ["--seal", data, index]],
  ];
  const before = [await readFile(data), await readFile(index)];
  const locks = [await lockUpper(data), await lockUpper(scratch.join("warp1")), await lockUpper(scratch.join("warp2"))];
  for (const [create, args] of calls) {
    const { status, stdout, stderr } = await runTool(create, args);
    assert.equal(status, 255, args.join(" "));
    assert.equal(stdout, "");
    assert.match(
      stderr,
      /another process writes to .*(data|warp.), and two would spoil it; it is a device of lazylayer daemon.* end that first/,
    );
  }
  assert.deepEqual([await readFile(data), await readFile(index)], before);
  await succeed(createCommitTool, [data, index, scratch.join("commit")]);
  await succeed(createMergeTool, [config, scratch.join("merged")]);
  for (const lock of locks) lock.close();
  for (const [create, args] of calls) await succeed(create, args);
});
