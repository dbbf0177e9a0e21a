import assert from "node:assert/strict";
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { closeSync, openSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { gzipSync } from "node:zlib";
import { execute } from "../support/command.ts";
import { listTree, MountBench, stackLayerBlobs, stackTree } from "../journeys/mount-support.ts";
import { AS_NOBODY } from "../support/nobody.ts";

/** Reads every file by a process of its own: a reader that hangs must not take the test with it. */
async function readAll(directory: string): Promise<string> {
  const { stderr } = await execute("sh", ["-c", 'find "$1" -type f -exec cat {} + > /dev/null', "sh", directory], {
    signal: AbortSignal.timeout(30_000),
  });
  return stderr;
}

function startMount(bench: MountBench, directory: string): ChildProcess {
  return spawn(process.execPath, bench.arguments("mount", "image", directory), { stdio: ["ignore", "ignore", "pipe"] });
}

async function eventually(what: string, holds: () => boolean): Promise<void> {
  for (let i = 0; i < 1000; i++) {
    if (holds()) return;
    await sleep(10);
  }
  assert.fail(`after ten seconds: not ${what}`);
}

test("when the server is killed, reads fail with EIO and umount cleans up", async () => {
  await using bench = await MountBench.create();
  const directory = await bench.mountPoint();
  await bench.mount(directory);
  const [server] = bench.servers();
  process.kill(server, "SIGKILL");
  await eventually("ended", () => bench.servers().length === 0);
  assert.match(await readAll(directory), /Input\/output error/);
  await bench.umount(directory);
  assert.deepEqual(bench.leftovers(), []);
});

test("when the server is killed and the file system unmounted by hand, umount still removes the rest", async () => {
  await using bench = await MountBench.create();
  const directory = await bench.mountPoint();
  await bench.mount(directory);
  process.kill(bench.servers()[0], "SIGKILL");
  assert.equal((await execute("umount", [directory])).status, 0);
  await bench.umount(directory);
  assert.deepEqual(bench.leftovers(), []);
});

test("when the server is stopped, umount does not wait for it", async () => {
  await using bench = await MountBench.create();
  const directory = await bench.mountPoint();
  await bench.mount(directory);
  process.kill(bench.servers()[0], "SIGSTOP");
  await bench.umount(directory);
  assert.deepEqual(bench.leftovers(), []);
});

for (const signal of ["SIGTERM", "SIGINT"] as const) {
  test(`${signal} makes the server unmount, also while files are in use, and end`, async () => {
    await using bench = await MountBench.create();
    const directory = await bench.mountPoint();
    await bench.mount(directory);
    const held = openSync(`${directory}/etc`, "r");
    process.kill(bench.servers()[0], signal);
    await bench.allGone().finally(() => closeSync(held));
    assert.deepEqual(readdirSync(directory), []);
  });
}

test("umount refuses while files are in use and changes nothing; with --lazy it does not wait", async () => {
  await using bench = await MountBench.create();
  const directory = await bench.mountPoint();
  await bench.mount(directory);
  const held = openSync(`${directory}/etc`, "r");
  const { status, stderr } = await bench.lazylayer("umount", directory);
  assert.equal(status, 1);
  assert.match(stderr, /in use.*--lazy/);
  assert.deepEqual(await listTree(directory), stackTree());
  await bench.umount("--lazy", directory);
  assert.deepEqual(readdirSync(directory), []);
  closeSync(held);
  await bench.allGone();
});

test("a place that fails gives EIO, not a hang; when it is back, the same reads succeed", async () => {
  await using bench = await MountBench.create();
  const directory = await bench.mountPoint();
  await bench.mount(directory);
  writeFileSync(bench.join("failing"), "");
  assert.match(await readAll(directory), /Input\/output error/);
  rmSync(bench.join("failing"));
  assert.deepEqual(await listTree(directory), stackTree());
  await bench.umount(directory);
});

test("an image that is not overlaybd is refused, and nothing is left", async () => {
  await using bench = await MountBench.create([gzipSync("a tar, say")]);
  const { status, stderr } = await bench.lazylayer("mount", "image", await bench.mountPoint());
  assert.equal(status, 1);
  assert.match(stderr, /not an overlaybd image; convert it first/);
  assert.deepEqual(bench.leftovers(), []);
});

test("a damaged layer is refused by name, and nothing is left", async () => {
  const [base, middle, top] = stackLayerBlobs();
  middle[1536 + 600] ^= 1;
  await using bench = await MountBench.create([base, middle, top]);
  const { status, stderr } = await bench.lazylayer("mount", "image", await bench.mountPoint());
  assert.equal(status, 1);
  assert.match(stderr, /sha256.[0-9a-f]{64}: zfile block 0 at 512: crc is/);
  assert.deepEqual(bench.leftovers(), []);
});

for (const signal of ["SIGINT", "SIGTERM", "SIGKILL"] as const) {
  test(`${signal} to mount while it waits for the image's place leaves nothing`, async () => {
    await using bench = await MountBench.create();
    writeFileSync(bench.join("stalling"), "");
    const mount = startMount(bench, await bench.mountPoint());
    await eventually("fetching", () => bench.fetched().size > 0);
    mount.kill(signal);
    await once(mount, "exit");
    if (signal !== "SIGKILL") assert.equal(mount.exitCode, 1);
    if (signal === "SIGKILL") await bench.allGone();
    assert.deepEqual(bench.leftovers(), []);
  });
}

for (const whom of ["mount", "its server"]) {
  test(`SIGTERM to ${whom} while the kernel waits for a block of the file system leaves nothing`, async () => {
    await using bench = await MountBench.create();
    await bench.fillDisk();
    writeFileSync(bench.join("stalling-served"), "");
    const mount = startMount(bench, await bench.mountPoint());
    const ended = once(mount, "exit");
    await eventually("attached", () => bench.leftovers().some((left) => left.startsWith("loop ")));
    await sleep(100);
    if (whom === "mount") mount.kill("SIGTERM");
    else process.kill(bench.servers()[0], "SIGTERM");
    await ended;
    assert.equal(mount.exitCode, 1);
    assert.deepEqual(bench.leftovers(), []);
  });
}

test("when the server is killed while it mounts, mount says so and leaves nothing", async () => {
  await using bench = await MountBench.create();
  await bench.fillDisk();
  writeFileSync(bench.join("stalling-served"), "");
  const mount = startMount(bench, await bench.mountPoint());
  const ended = once(mount, "exit");
  await eventually("attached", () => bench.leftovers().some((left) => left.startsWith("loop ")));
  process.kill(bench.servers()[0], "SIGKILL");
  await ended;
  assert.equal(mount.exitCode, 1);
  await bench.allGone();
});

test("with a full disk under the cache, the image is served all the same", async () => {
  await using bench = await MountBench.create();
  await bench.fillDisk();
  const directory = await bench.mountPoint();
  await bench.mount(directory);
  assert.deepEqual(await listTree(directory), stackTree());
  await bench.umount(directory);
});

test("SIGTERM to mount at any time leaves nothing, or a mount that works", async () => {
  await using bench = await MountBench.create();
  const directory = await bench.mountPoint();
  for (let afterMs = 100; afterMs <= 1000; afterMs += 180) {
    const mount = startMount(bench, directory);
    const ended = once(mount, "exit");
    await sleep(afterMs);
    mount.kill("SIGTERM");
    await ended;
    // A signal that comes when all is mounted, while the process ends, kills it: what it has made is whole then.
    const isMounted = mount.exitCode === 0 || (mount.signalCode === "SIGTERM" && bench.leftovers().length > 0);
    if (isMounted) {
      assert.deepEqual(await listTree(directory), stackTree(), `after ${afterMs} ms`);
      await bench.umount(directory);
    } else if (mount.signalCode !== "SIGTERM") assert.equal(mount.exitCode, 1, `after ${afterMs} ms`);
    assert.deepEqual(bench.leftovers(), [], `after ${afterMs} ms`);
  }
});

test("directories that cannot be mounted on are refused by what is wrong with them", async () => {
  await using bench = await MountBench.create();
  const directory = await bench.mountPoint();
  writeFileSync(bench.join("file"), "");
  await bench.mount(directory);
  for (const [name, message] of [
    ["mnt", /mounted there already/],
    ["file", /is not a directory/],
    ["missing", /no such file/],
  ] as const) {
    const { status, stderr } = await bench.lazylayer("mount", "image", bench.join(name));
    assert.deepEqual([status, message.test(stderr)], [1, true], stderr);
  }
  await bench.umount(directory);
  const { status, stderr } = await bench.lazylayer("umount", directory);
  assert.equal(status, 1);
  assert.match(stderr, /no mount of lazylayer/);
  assert.deepEqual(bench.leftovers(), []);
});

test("mount without root says what works without", async () => {
  await using bench = await MountBench.create();
  const { status, stderr } = await execute("setpriv", [...AS_NOBODY, process.execPath, ...bench.arguments("mount", "image", "/mnt")]);
  assert.equal(status, 1);
  assert.match(stderr, /needs root.*lazylayer ls and lazylayer cat/);
});
