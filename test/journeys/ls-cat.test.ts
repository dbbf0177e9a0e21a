import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { openSync } from "node:fs";
import { after, before, test } from "node:test";
import type { CommandResult } from "../support/command.ts";
import { layerOf, writeImage } from "../support/image-builder.ts";
import { CLEAN_ENVIRONMENT, LAZYLAYER, lazylayer } from "../support/programs.ts";
import { TemporaryDirectory } from "../support/temporary-directory.ts";

const BIG = Buffer.alloc(5_000_000, "0123456789abcdef\n");
const NOT_TEXT = Buffer.from([0, 0xff, 0xc3, 0x28, 10]);
/** Latin-1, as no UTF-8 text has it. */
const BYTES_NAME = "caf\xe9";

let scratch: TemporaryDirectory;
let image = "";

before(async () => {
  scratch = await TemporaryDirectory.create();
  const lower = layerOf([
    { name: "etc/", mtime: 1_700_000_000 },
    { name: "etc/motd", data: "hello\n", mtime: 1_700_000_000, uid: 3, gid: 4 },
    { name: "etc/secret", data: "gone\n" },
    { name: "dev/null", type: "character", major: 1, minor: 3, mode: 0o666 },
    { name: "big", data: BIG, mode: 0o4755 },
  ]);
  const upper = layerOf([
    { name: "etc/.wh.secret" },
    { name: "etc/link", type: "symlink", link: "motd", mode: 0o777 },
    { name: "etc/same", type: "hardlink", link: "etc/motd" },
    { name: "etc/bytes", data: NOT_TEXT },
    { name: BYTES_NAME, data: "" },
    { name: "pipe", type: "fifo" },
  ]);
  await writeImage(scratch.join("source"), "v1", { layers: [lower, upper] });
  image = `oci:${scratch.join("converted")}:v1`;
  const { status, stderr } = await lazylayer(["convert", `oci:${scratch.join("source")}:v1`, image]);
  assert.equal(status, 0, stderr);
});

after(async () => await scratch[Symbol.asyncDispose]());

function printed({ status, stdout, stderr }: CommandResult): Buffer {
  assert.equal(stderr, "");
  assert.equal(status, 0);
  return stdout;
}

function assertRefused({ status, stdout, stderr }: CommandResult, code: number, expected: RegExp): void {
  assert.match(stderr, expected);
  assert.equal(stderr.trimEnd().split("\n").length, 1, stderr);
  assert.deepEqual([status, stdout.toString()], [code, ""]);
}

test("ls prints names, a line each, byte by byte", async () => {
  assert.equal(printed(await lazylayer(["ls", image])).toString("latin1"), `big\n${BYTES_NAME}\ndev\netc\npipe\n`);
  assert.equal(printed(await lazylayer(["ls", image, "/etc"])).toString(), "bytes\nlink\nmotd\nsame\n");
  assert.equal(printed(await lazylayer(["ls", image, "etc/motd"])).toString(), "etc/motd\n");
  assert.equal(printed(await lazylayer(["ls", image, "dev/../etc/"])).toString(), "bytes\nlink\nmotd\nsame\n");
});

test("ls -l says type, mode, links, owner, size or device, time and target", async () => {
  const lines = printed(await lazylayer(["ls", "-l", image, "/etc"]))
    .toString()
    .trimEnd()
    .split("\n");
  assert.deepEqual(
    lines.map((line) => line.replaceAll(/ +/g, " ")),
    [
      "-0644 1 0:0 5 1970-01-01T00:00:00Z bytes",
      "l0777 1 0:0 4 1970-01-01T00:00:00Z link -> motd",
      "-0644 2 3:4 6 2023-11-14T22:13:20Z motd",
      "-0644 2 3:4 6 2023-11-14T22:13:20Z same",
    ],
  );
  assert.match(printed(await lazylayer(["ls", "-l", image, "/dev"])).toString(), /^c0666 +1 0:0 +1,3 1970-01-01T00:00:00Z null\n$/);
  assert.match(printed(await lazylayer(["ls", "-l", image])).toString(), /^-4755 .*big$/m);
});

test("cat prints a file's bytes and nothing else, also through links", async () => {
  assert.deepEqual(printed(await lazylayer(["cat", image, "/etc/bytes"])), NOT_TEXT);
  assert.deepEqual(printed(await lazylayer(["cat", image, "/big"])), BIG);
  assert.equal(printed(await lazylayer(["cat", image, "/etc/same"])).toString(), "hello\n");
  assert.equal(printed(await lazylayer(["cat", image, "/etc/link"])).toString(), "hello\n");
});

test("what is not there, is no file or is no converted image is said in a line", async () => {
  assertRefused(await lazylayer(["cat", image, "/etc/secret"]), 1, /there is no "secret"/);
  assertRefused(await lazylayer(["ls", image, "/etc/motd/x"]), 1, /motd/);
  assertRefused(await lazylayer(["cat", image, "/etc"]), 2, /"\/etc" is not a regular file/);
  assertRefused(await lazylayer(["cat", image, "/pipe"]), 2, /"\/pipe" is not a regular file/);
  const source = `oci:${scratch.join("source")}:v1`;
  assertRefused(await lazylayer(["ls", source]), 1, /this is not an overlaybd image; convert it first/);
});

test("a reader of the output that goes away ends the command without a word", async () => {
  const child = spawn(LAZYLAYER, ["cat", image, "/big"], {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, ...CLEAN_ENVIRONMENT },
  });
  const stderr: Buffer[] = [];
  child.stderr.on("data", (chunk: Buffer) => stderr.push(chunk));
  await once(child.stdout, "data");
  child.stdout.destroy();
  const [status] = (await once(child, "close")) as [number];
  assert.deepEqual([status, Buffer.concat(stderr).toString()], [141, ""]);
});

test("output that cannot be written is an error of one line", async () => {
  for (const args of [
    ["ls", image],
    ["cat", image, "/big"],
  ]) {
    const child = spawn(LAZYLAYER, args, {
      stdio: ["ignore", openSync("/dev/full", "w"), "pipe"],
      env: { ...process.env, ...CLEAN_ENVIRONMENT },
    });
    const stderr: Buffer[] = [];
    child.stderr?.on("data", (chunk: Buffer) => stderr.push(chunk));
    const [status] = (await once(child, "close")) as [number];
    assert.match(Buffer.concat(stderr).toString(), /^lazylayer: cannot write to standard output: ENOSPC.*\n$/);
    assert.equal(status, 1);
  }
});
