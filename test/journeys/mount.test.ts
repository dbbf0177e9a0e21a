import assert from "node:assert/strict";
import { existsSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import { execute, run } from "../support/command.ts";
import { listTree, MountBench, stackTree } from "./mount-support.ts";

test("a mounted image shows the tree that its layers make, and umount leaves nothing of it", async () => {
  await using bench = await MountBench.create();
  const directory = await bench.mountPoint();
  await bench.mount(directory);
  assert.deepEqual(await listTree(directory), stackTree());
  await bench.umount(directory);
  assert.deepEqual(readdirSync(directory), []);
  assert.deepEqual(bench.leftovers(), []);
});

test("a mount is read-only, nosuid and nodev, on a loop device with direct I/O", async () => {
  await using bench = await MountBench.create();
  const directory = await bench.mountPoint();
  await bench.mount(directory);
  const line = readFileSync("/proc/self/mounts", "utf8")
    .split("\n")
    .find((each) => each.includes(` ${directory} `))!;
  const [device, , type, options] = line.split(" ");
  assert.equal(type, "ext4");
  for (const option of ["ro", "nosuid", "nodev"]) assert.ok(options.split(",").includes(option), options);
  assert.equal(readFileSync(`/sys/block/${device.slice("/dev/".length)}/loop/dio`, "utf8"), "1\n");
  assert.match((await execute("touch", [`${directory}/new`])).stderr, /Read-only file system/);
  await bench.umount(directory);
});

test("the second mount of an image fetches nothing", async () => {
  await using bench = await MountBench.create();
  const directory = await bench.mountPoint();
  await bench.mount(directory);
  const tree = await listTree(directory);
  await bench.umount(directory);
  const before = bench.fetched();
  await bench.mount(directory);
  assert.deepEqual(await listTree(directory), tree);
  await bench.umount(directory);
  assert.deepEqual(bench.fetched(), before);
});

test("opening the layers takes at most two ranges of each", async () => {
  await using bench = await MountBench.create();
  const directory = await bench.mountPoint();
  await bench.mount(directory);
  const [state] = readdirSync(bench.join("state"));
  const stats: unknown = JSON.parse(await run("cat", [bench.join("state", state, "export", "stats")]));
  await bench.umount(directory);
  assert.ok(typeof stats === "object" && stats !== null && "fetchedToOpen" in stats && "layers" in stats);
  assert.deepEqual([stats.layers, stats.fetchedToOpen], [3, { requests: 6, bytes: totalOf(bench.fetched(), 2) }]);
});

/** Bytes in the first `count` ranges of each layer. */
function totalOf(fetched: Map<string, string[]>, count: number): number {
  return [...fetched.values()].flatMap((ranges) => ranges.slice(0, count)).reduce((sum, range) => sum + Number(range.split("+")[1]), 0);
}

test("two mounts of one image live and end independently", async () => {
  await using bench = await MountBench.create();
  const [one, other] = [await bench.mountPoint("one"), await bench.mountPoint("other")];
  await Promise.all([bench.mount(one), bench.mount(other)]);
  const [tree] = await Promise.all([listTree(one), listTree(other)]);
  assert.deepEqual(tree, stackTree());
  await bench.umount(one);
  assert.equal(bench.servers().length, 1);
  assert.deepEqual(await listTree(other), stackTree());
  await bench.umount(other);
  assert.deepEqual(bench.leftovers(), []);
});

test("a plain umount(8) ends the serving process too", async () => {
  await using bench = await MountBench.create();
  const directory = await bench.mountPoint();
  await bench.mount(directory);
  await run("umount", [directory]);
  await bench.allGone();
});

test("a directory name with spaces and letters beyond ASCII can be mounted on", async () => {
  await using bench = await MountBench.create();
  const directory = await bench.mountPoint("a b\\ünd\tc");
  await bench.mount(directory);
  assert.ok(readdirSync(directory).includes("etc"));
  await bench.umount(directory);
});

test("a mount with an overlay is written to, keeps what was written, and leaves the image as it is", async () => {
  await using bench = await MountBench.create();
  const [directory, changes] = [await bench.mountPoint(), bench.join("changes")];
  await bench.mount(directory, "--overlay", changes);
  assert.ok(readdirSync(directory).includes("etc"));
  assert.match(await run("findmnt", ["--noheadings", "--output=OPTIONS", directory]), /^rw,nosuid,nodev,/);
  writeFileSync(`${directory}/note`, "kept\n");
  await bench.umount(directory);
  assert.deepEqual(bench.leftovers(), []);
  await bench.mount(directory);
  assert.deepEqual(await listTree(directory), stackTree());
  await bench.umount(directory);
  await bench.mount(directory, "--overlay", changes);
  assert.equal(readFileSync(`${directory}/note`, "utf8"), "kept\n");
  await run("umount", [directory]);
  await bench.allGone();
  assert.ok(existsSync(`${changes}/upper/note`));
});

test("a mount with an overlay whose server was killed is taken down by umount", async () => {
  await using bench = await MountBench.create();
  const [directory, changes] = [await bench.mountPoint(), bench.join("changes")];
  await bench.mount(directory, "--overlay", changes);
  const [server] = bench.servers();
  process.kill(server, "SIGKILL");
  await bench.umount(directory);
  assert.deepEqual(bench.leftovers(), []);
  await bench.mount(directory, "--overlay", changes);
  await bench.umount(directory);
});

test("an overlay's directory is one mount's at a time", async () => {
  await using bench = await MountBench.create();
  const [one, other] = [await bench.mountPoint("one"), await bench.mountPoint("other")];
  const changes = bench.join("changes");
  await bench.mount(one, "--overlay", changes);
  const { status, stderr } = await bench.lazylayer("mount", "--overlay", changes, "image", other);
  assert.equal(status, 1);
  assert.match(stderr, /overlay: .*changes: another overlay uses it/);
  assert.deepEqual(readdirSync(other), []);
  assert.equal(readdirSync(bench.join("state")).length, 1);
  await bench.umount(one);
});
