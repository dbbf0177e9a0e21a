import assert from "node:assert/strict";
import { closeSync, existsSync, openSync, readFileSync, statSync, writeFileSync, writeSync } from "node:fs";
import { after, before, describe, it } from "node:test";
import { createCommitTool } from "../../src/cli/tools/overlaybd-commit.ts";
import { execute, run } from "../support/command.ts";
import { patternBytes } from "../support/held-device.ts";
import { layerOf, writeImage } from "../support/image-builder.ts";
import { lazylayerInProcess } from "../support/in-process.ts";
import { NbdClient } from "../support/nbd-client.ts";
import { AS_NOBODY } from "../support/nobody.ts";
import { CLEAN_ENVIRONMENT, LAZYLAYER, lazylayer } from "../support/programs.ts";
import { startServing, type Serving } from "../support/serving.ts";
import { TemporaryDirectory } from "../support/temporary-directory.ts";
import { runTool } from "./tools-support.ts";

const MIB = 2 ** 20;
const FILE = patternBytes(5 * MIB);

let scratch: TemporaryDirectory;
let image = "";

before(async () => {
  scratch = await TemporaryDirectory.create();
  const lower = layerOf([{ name: "big", data: FILE }]);
  const upper = layerOf([{ name: "etc/motd", data: "hello\n" }]);
  await writeImage(scratch.join("source"), "v1", { layers: [lower, upper] });
  image = `oci:${scratch.join("converted")}:v1`;
  const { status, stderr } = await lazylayer(["convert", "--vsize", "1", `oci:${scratch.join("source")}:v1`, image]);
  assert.equal(status, 0, stderr);
});

after(async () => await scratch[Symbol.asyncDispose]());

async function serving(...args: string[]): Promise<Serving> {
  return await startServing(image, scratch.join("cache"), ...args);
}

describe("lazylayer serve", () => {
  it("shows the image's filesystem on a unix socket until it is told to end, with status 0", async () => {
    const socket = scratch.join("app.sock");
    await using served = await serving("--nbd", `unix:${socket}`);
    assert.equal(served.line, `nbd+unix:///?socket=${socket}`);
    const copy = scratch.join("copy");
    await run("qemu-img", ["convert", "-f", "raw", "-O", "raw", served.line, copy]);
    assert.equal(statSync(copy).size, 1024 * MIB);
    assert.ok(statSync(copy).blocks * 512 < 20 * MIB, "what is a hole stays one");
    assert.match(await run("e2fsck", ["-fn", copy]), /1024\/|files/);
    assert.equal(await run("debugfs", ["-R", "cat /etc/motd", copy]), "hello\n");
    assert.deepEqual([await served.end("SIGTERM"), served.stderr(), existsSync(socket)], [0, "", false]);
  });

  it("tells programs the address with the port that it got, and serves what is cached when nothing else is left", async () => {
    await using served = await serving("--nbd", "127.0.0.1:0", "--name", "disk", "--output", "json");
    const { uri, address, ...rest } = JSON.parse(served.line) as { uri: string; address: { port: number }; name: string };
    assert.equal(uri, `nbd://127.0.0.1:${address.port}/disk`);
    assert.deepEqual(rest, { name: "disk", sizeBytes: 1024 * MIB, readOnly: true });
    await run("mv", [scratch.join("converted"), scratch.join("gone")]);
    try {
      const compared = await run("qemu-img", ["compare", "-f", "raw", "-F", "raw", uri, scratch.join("copy")]);
      assert.match(compared, /identical/);
    } finally {
      await run("mv", [scratch.join("gone"), scratch.join("converted")]);
    }
    assert.equal(await served.end("SIGINT"), 0);
  });

  it("takes writes into a layer of its own, which outlives it, however it ends", async () => {
    const socket = scratch.join("upper.sock");
    const files = [scratch.join("upper.data"), scratch.join("upper.index")];
    const args = ["--nbd", `unix:${socket}`, "--upper", files.join(":")];
    {
      await using served = await serving(...args);
      await run("qemu-io", [
        "-f",
        "raw",
        "-c",
        "write -f -P 1 2M 1M",
        "-c",
        "write -P 2 700M 64k",
        "-c",
        "discard 0 1M",
        "-c",
        "flush",
        served.line,
      ]);
      await served.end("SIGKILL");
    }
    assert.ok(statSync(files[0]).size < 2 * MIB);
    const model = openSync(scratch.join("copy"), "r+");
    writeSync(model, Buffer.alloc(MIB, 1), 0, MIB, 2 * MIB);
    writeSync(model, Buffer.alloc(65536, 2), 0, 65536, 700 * MIB);
    writeSync(model, Buffer.alloc(MIB), 0, MIB, 0);
    closeSync(model);
    {
      await using served = await serving(...args);
      const second = await lazylayer([
        "serve",
        image,
        "--cache-dir",
        scratch.join("cache"),
        "--nbd",
        "127.0.0.1:0",
        "--upper",
        files.join(":"),
      ]);
      assert.deepEqual([second.status, second.stdout.toString()], [1, ""]);
      assert.match(
        second.stderr,
        /^lazylayer: --upper: another process writes to .*upper\.data, and two would spoil it; .*end that first\n$/,
      );
      const sealed = await runTool(createCommitTool, ["--seal", ...files]);
      assert.equal(sealed.status, 255);
      assert.match(sealed.stderr, /^data_file: another process writes to .*upper\.data, and two would spoil it; it is .* lazylayer serve/);
      assert.match(await run("qemu-img", ["compare", "-f", "raw", "-F", "raw", served.line, scratch.join("copy")]), /identical/);
      await run("qemu-io", ["-f", "raw", "-c", "write -P 3 5M 512", served.line]);
      assert.equal(await served.end("SIGTERM"), 0, served.stderr());
    }
    await using served = await serving(...args);
    await run("qemu-io", ["-r", "-f", "raw", "-c", "read -P 3 5M 512", "-c", "read -P 1 2M 1M", served.line]);
  });

  it("ends while clients wait, and tells them", async () => {
    const socket = scratch.join("end.sock");
    await using served = await serving("--nbd", `unix:${socket}`);
    await using client = await NbdClient.ready({ kind: "unix", path: socket });
    assert.equal((await client.read(0, 4096)).length, 4096);
    assert.equal(await served.end("SIGTERM"), 0);
    assert.equal((await client.closed()).length, 0);
  });

  it("needs no root", async () => {
    const args = [...AS_NOBODY, LAZYLAYER, "serve", image, "--nbd", "unix:/nonexistent/socket", "--cache-dir", "/nonexistent/cache"];
    const { status, stderr } = await execute("setpriv", args, { env: CLEAN_ENVIRONMENT });
    assert.equal(status, 1);
    assert.match(stderr, /nonexistent/);
    assert.doesNotMatch(stderr, /root/);
  });

  it("refuses what makes no sense before it opens anything", async () => {
    const rows: [string[], RegExp][] = [
      [[], /required option '--nbd <address>' not specified/],
      [["--nbd", "nowhere"], /expected unix:\/PATH or HOST:PORT/],
      [["--nbd", "h:1", "--upper", "one"], /expected DATA:INDEX/],
      [["--nbd", "h:1", "--cache-size", "0"], /from 0\.01/],
      [["--nbd", "h:1", "--output", "yaml"], /Allowed choices are text, json/],
    ];
    for (const [args, expected] of rows) {
      const { status, stdout, stderr } = await lazylayerInProcess(["serve", "oci:/nonexistent:v1", ...args]);
      assert.match(stderr, expected);
      assert.deepEqual([status, stdout.toString()], [2, ""]);
    }
  });

  it("refuses half a layer, one of another kind, and files that are none", async () => {
    const existing = scratch.join("existing");
    writeFileSync(existing, "precious");
    const call = async (upper: string): Promise<string> => {
      const { status, stderr } = await lazylayer([
        "serve",
        image,
        "--nbd",
        "127.0.0.1:0",
        "--cache-dir",
        scratch.join("cache"),
        "--upper",
        upper,
      ]);
      assert.notEqual(status, 0);
      return stderr;
    };
    assert.match(await call(`${existing}:${scratch.join("new")}`), /existing exists, .*new does not; name both files of a writable layer/);
    assert.match(await call(`${existing}:${existing}`), /existing/);
    assert.equal(readFileSync(existing, "utf8"), "precious");
  });
});
