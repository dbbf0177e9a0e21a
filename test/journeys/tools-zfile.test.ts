import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { zstdDecompressSync } from "node:zlib";
import packageJson from "../../package.json" with { type: "json" };
import { createZFileTool } from "../../src/cli/tools/overlaybd-zfile.ts";
import { TemporaryDirectory } from "../support/temporary-directory.ts";
import { runLauncher, runTool } from "./tools-support.ts";

const DATA = join(import.meta.dirname, "../../testdata/zfile");

/** The inputs that the files in testdata/zfile were made from, in a directory. */
async function inputs(scratch: TemporaryDirectory): Promise<void> {
  await writeFile(scratch.join("src.bin"), zstdDecompressSync(await readFile(join(DATA, "src.bin.zst"))));
  for (const name of ["one", "block", "block1", "empty"])
    await writeFile(scratch.join(`${name}.bin`), await readFile(join(DATA, `${name}.bin`)));
}

async function golden(): Promise<Record<string, { bytes: number; sha256: string }>> {
  return JSON.parse(await readFile(join(DATA, "golden.json"), "utf8")) as Record<string, { bytes: number; sha256: string }>;
}

test("overlaybd-zfile makes of a file, with LZ4, the bytes that the other tool makes", async () => {
  await using scratch = await TemporaryDirectory.create();
  await inputs(scratch);
  const expected = Object.entries(await golden()).filter(([name]) => name.includes(".lz4."));
  assert.equal(expected.length, 10);
  for (const [name, { bytes, sha256 }] of expected) {
    const [base, , form] = name.split(".");
    const flags = form === "tar" ? ["-t"] : form.endsWith("k") ? ["--bs", form.slice(0, -1)] : [];
    const [source, target] = [scratch.join(`${base}.bin`), scratch.join(name)];
    const { status, stdout, stderr } = await runTool(createZFileTool, [...flags, source, target]);
    assert.deepEqual({ status, stderr }, { status: 0, stderr: "" }, name);
    assert.equal(stdout, `compress file ${source} as ${target}\ncompress file done.\n`);
    const made = await readFile(target);
    assert.equal(made.length, bytes, name);
    assert.equal(createHash("sha256").update(made).digest("hex"), sha256, name);
    assert.equal((await stat(target)).mode & 0o777, 0o644);
  }
});

test("overlaybd-zfile extracts what the other tool made, with either algorithm, in a tar or not", async () => {
  await using scratch = await TemporaryDirectory.create();
  await inputs(scratch);
  const kept = [
    "src.lz4.4k",
    "src.lz4.64k",
    "src.zstd.4k",
    "src.zstd.64k",
    "one.lz4",
    "one.zstd",
    "block.zstd",
    "block1.lz4",
    "empty.lz4",
    "src.lz4.tar",
  ];
  for (const name of kept) {
    const [source, target] = [join(DATA, `${name}.zfile`), scratch.join(name)];
    const flags = name.endsWith(".tar") ? ["-x", "-t"] : ["-x"];
    const { status, stdout } = await runTool(createZFileTool, [...flags, source, target]);
    assert.equal(status, 0, name);
    assert.equal(stdout, `decompress file ${source} as ${target}\ndecompress file done.\n`);
    assert.deepEqual(await readFile(target), await readFile(scratch.join(`${name.split(".")[0]}.bin`)), name);
    assert.equal((await stat(target)).mode & 0o777, 0o700);
  }
});

test("overlaybd-zfile takes any block size with zstd, and gives back what went in", async () => {
  await using scratch = await TemporaryDirectory.create();
  await inputs(scratch);
  for (const bs of ["4", "8", "16", "32", "64"]) {
    const [zfile, back] = [scratch.join(`z${bs}`), scratch.join(`b${bs}`)];
    assert.equal((await runTool(createZFileTool, [scratch.join("src.bin"), "--algorithm=zstd", `--bs=${bs}`, zfile])).status, 0);
    assert.equal((await runTool(createZFileTool, ["--verify", zfile])).stdout, `${zfile} is a valid zfile blob.\n`);
    assert.equal((await runTool(createZFileTool, ["-x", zfile, back])).status, 0);
    assert.deepEqual(await readFile(back), await readFile(scratch.join("src.bin")));
  }
});

test("overlaybd-zfile with one file reads standard input", async () => {
  await using scratch = await TemporaryDirectory.create();
  await inputs(scratch);
  const target = scratch.join("made");
  const { status, stdout, stderr } = await runLauncher("overlaybd-zfile", [target], { input: await readFile(scratch.join("src.bin")) });
  assert.deepEqual({ status, stderr }, { status: 0, stderr: "" });
  assert.equal(stdout.toString(), `compress file  as ${target}\ncompress file done.\n`);
  assert.deepEqual(await readFile(target), await readFile(join(DATA, "src.lz4.4k.zfile")));
});

test("overlaybd-zfile --verify tells a damaged block, a ZFile without checksums, and what is none, and makes nothing", async () => {
  await using scratch = await TemporaryDirectory.create();
  const bytes = await readFile(join(DATA, "src.lz4.4k.zfile"));
  bytes[5000] ^= 1;
  await writeFile(scratch.join("damaged"), bytes);
  const damaged = await runTool(createZFileTool, ["--verify", scratch.join("damaged")]);
  assert.equal(damaged.status, 255);
  assert.equal(damaged.stdout, "");
  assert.match(damaged.stderr, /damaged is not a valid zfile blob or checksum can't be found\. \(.*zfile block \d+ at \d+.*\)\n$/);
  const none = await runTool(createZFileTool, ["--verify", join(DATA, "block.bin")]);
  assert.equal(none.status, 255);
  assert.match(none.stderr, /format error! .*block\.bin should be a zfile\./);
});

test("overlaybd-zfile replaces a file only with -f, and leaves nothing behind that is not whole", async () => {
  await using scratch = await TemporaryDirectory.create();
  await inputs(scratch);
  const target = scratch.join("there");
  await writeFile(target, "mine");
  const refused = await runTool(createZFileTool, [scratch.join("one.bin"), target]);
  assert.equal(refused.status, 255);
  assert.ok(refused.stderr.includes(`failed to open file '${target}', 17: File exists`));
  assert.equal(await readFile(target, "utf8"), "mine");
  assert.equal((await runTool(createZFileTool, ["-f", scratch.join("one.bin"), target])).status, 0);
  assert.deepEqual(await readFile(target), await readFile(join(DATA, "one.lz4.zfile")));

  const bytes = await readFile(join(DATA, "src.lz4.4k.zfile"));
  bytes[150_000] ^= 1;
  await writeFile(scratch.join("damaged"), bytes);
  const failed = await runTool(createZFileTool, ["-x", scratch.join("damaged"), scratch.join("out")]);
  assert.equal(failed.status, 255);
  assert.doesNotMatch(failed.stdout, /done/);
  await assert.rejects(stat(scratch.join("out")), { code: "ENOENT" });
});

test("every tool has a launcher, and explains itself", async () => {
  const { bin } = packageJson;
  const names = Object.keys(bin).filter((name) => name !== "convertor" && name !== "lazylayer");
  assert.equal(names.length, 7);
  for (const name of names) {
    const { status, stdout } = await runLauncher(name, ["--help"]);
    assert.equal(status, 0, name);
    assert.match(stdout.toString(), new RegExp(`^Usage: ${name} `));
  }
});

test("the tools' wrong calls have the statuses that scripts know", async () => {
  await using scratch = await TemporaryDirectory.create();
  await writeFile(scratch.join("in"), "x");
  const calls: readonly (readonly [args: string[], status: number, message: RegExp])[] = [
    [[], 106, /missing required argument 'source_file'/],
    [["a", "b", "c"], 109, /too many arguments/],
    [["--unknown", "a"], 109, /unknown option '--unknown'/],
    [["--bs"], 114, /argument missing/],
    [["--bs", "x", "a", "b"], 105, /expected a whole number/],
    [["--verify=perhaps", "a"], 105, /--verify=perhaps: expected true or false/],
    [["--bs", "3", scratch.join("in"), scratch.join("out")], 255, /invalid '--bs' parameters\./],
    [["--bs", "128", scratch.join("in"), scratch.join("out")], 255, /invalid '--bs' parameters\./],
    [["-x", scratch.join("out")], 255, /cannot extract from standard input/],
    [[scratch.join("nothing"), scratch.join("out")], 255, /failed to open file '.*nothing', 2: No such file or directory/],
  ];
  for (const [args, status, message] of calls) {
    const result = await runTool(createZFileTool, args);
    assert.equal(result.status, status, args.join(" "));
    assert.match(result.stderr, message);
    assert.equal(result.stdout, "", args.join(" "));
  }
  const help = await runLauncher("overlaybd-zfile", ["--help"]);
  assert.equal(help.status, 0);
  assert.match(help.stdout.toString(), /Usage: overlaybd-zfile/);
  assert.equal((await runLauncher("overlaybd-zfile", [])).status, 106);
});

test("a flag may be said to be true or false, the last word counts, and --verbose is said on standard error", async () => {
  await using scratch = await TemporaryDirectory.create();
  await writeFile(scratch.join("in"), "x");
  const target = scratch.join("out");
  const { status, stdout, stderr } = await runTool(createZFileTool, [
    "--verify",
    "--verify=false",
    "--verbose=1",
    scratch.join("in"),
    target,
  ]);
  assert.equal(status, 0);
  assert.equal(stdout, `compress file ${scratch.join("in")} as ${target}\ncompress file done.\n`);
  assert.match(stderr, /1 bytes in blocks of 4096/);
});
