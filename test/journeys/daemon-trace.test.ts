import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { deviceStatsSchema, type DeviceStats } from "../../src/daemon/device-stats.ts";
import { parseTrace } from "../../src/formats/trace/trace-reader.ts";
import { run } from "../support/command.ts";
import { DaemonBench } from "../support/daemon-bench.ts";
import { startDockerRegistry, type DockerRegistry } from "../support/docker-registry.ts";
import { listTree, stackTree } from "./mount-support.ts";
import { pushStack } from "../support/stack-registry.ts";

const PATIENCE_MS = 20_000;

let registry: DockerRegistry;
before(async () => {
  registry = await startDockerRegistry();
});
after(async () => await registry?.stop());

async function statsOf(bench: DaemonBench, id: string): Promise<DeviceStats> {
  return deviceStatsSchema.parse(await bench.call("GET", `/devices/${id}/stats`));
}

async function until(condition: () => boolean | Promise<boolean>, what: () => string): Promise<void> {
  for (let waitedMs = 0; !(await condition()); waitedMs += 50) {
    assert.ok(waitedMs < PATIENCE_MS, what());
    await sleep(50);
  }
}

/** Reads what a file system that is mounted on a device shows of it. */
async function readPart(device: string, megabyte: number): Promise<void> {
  await run("dd", [`if=${device}`, "of=/dev/null", "bs=1M", `skip=${megabyte}`, "count=1", "iflag=direct", "status=none"]);
}

test("what is read of a device is recorded, cached or not, until the lock goes away", async () => {
  await using bench = await DaemonBench.start();
  const config = { ...(await pushStack(registry.host)), recordTracePath: bench.join("trace") };
  const expose = { kind: "loop" } as const;
  // Without a file there is nothing to be done; afterwards all of the device's front is in the cache.
  const plain = await bench.create({ id: "app", config, expose });
  assert.ok(plain.access?.kind === "loop");
  for (const megabyte of [0, 1, 2, 3]) await readPart(plain.access.device, megabyte);
  assert.equal((await statsOf(bench, "app")).trace, undefined);
  await bench.remove("app");

  await writeFile(bench.join("trace"), "");
  const { access } = await bench.create({ id: "app", config, expose });
  assert.ok(access?.kind === "loop");
  assert.ok(existsSync(bench.join("trace.lock")));
  for (const megabyte of [0, 1]) await readPart(access.device, megabyte);
  const recording = await statsOf(bench, "app");
  assert.ok(recording.trace?.mode === "record" && recording.trace.active && recording.trace.records > 0, JSON.stringify(recording));
  assert.equal(recording.reads.cached, 0, "no worker answers what nobody would note");
  const second = await bench.create({ id: "second", config });
  assert.equal(second.state, "running");
  assert.match(bench.said, /\|ERROR\|th=\d+\|device second\|.*trace\.lock is there/);

  await rm(bench.join("trace.lock"));
  await until(
    () => existsSync(bench.join("trace.ok")),
    () => bench.said,
  );
  const records = parseTrace(await readFile(bench.join("trace")), "trace");
  const after = await statsOf(bench, "app");
  assert.ok(after.trace?.mode === "record" && !after.trace.active);
  assert.equal(records.length, after.trace.records);
  assert.equal(
    records.reduce((sum, { length }) => sum + length, 0),
    after.trace.bytes,
  );
  assert.ok(records.every(({ layer }) => layer < 3));
  await readPart(access.device, 2);
  assert.ok((await statsOf(bench, "app")).reads.cached > 0, "workers answer again");
  for (const id of ["app", "second"]) await bench.remove(id);
  assert.deepEqual(parseTrace(await readFile(bench.join("trace")), "trace"), records);
  await bench.allGone();
});

test("reads of the layers below a writable one are recorded until the device is removed, and replayed by the next", async () => {
  await using bench = await DaemonBench.start({ prefetchConfig: { concurrency: 3 } });
  const base = { ...(await pushStack(registry.host)), recordTracePath: bench.join("trace") };
  const config = { ...base, upper: await bench.newUpper("upper", 0) };
  const mnt = bench.join("mnt");
  await mkdir(mnt);
  await writeFile(bench.join("trace"), "");
  await bench.create({ id: "app", config, expose: { kind: "mount", directory: mnt } });
  assert.deepEqual(await listTree(mnt), stackTree());
  await run("sh", ["-c", 'head -c 100000 /dev/urandom >"$1/new"; sync "$1/new"; cat "$1/new" >/dev/null', "sh", mnt]);
  await bench.remove("app");
  assert.ok(existsSync(bench.join("trace.ok")) && !existsSync(bench.join("trace.lock")));
  const records = parseTrace(await readFile(bench.join("trace")), "trace");
  assert.deepEqual(
    [...new Set(records.map(({ layer }) => layer))].toSorted((a, b) => a - b),
    [0, 1, 2],
    "and of no upper one",
  );

  await rm(bench.join("cache"), { recursive: true });
  await bench.create({ id: "next", config: base, expose: { kind: "mount", directory: mnt } });
  await until(
    async () => (await statsOf(bench, "next")).trace?.active === false,
    () => bench.said,
  );
  const fetched = await statsOf(bench, "next");
  assert.ok(fetched.trace?.mode === "replay" && fetched.trace.bytes > 0 && fetched.trace.failed === 0, JSON.stringify(fetched));
  assert.match((await bench.device("stats", "next")).stdout.toString(), /^trace +\S+\/trace, \d+ bytes fetched ahead, 0 failed$/m);
  assert.deepEqual(await listTree(mnt), stackTree());
  assert.equal((await statsOf(bench, "next")).downloads.requests, fetched.downloads.requests, "all that is read has been brought");
  await bench.remove("next");
  await bench.allGone();
});

test("a list of an acceleration layer is replayed, and what is wrong with it is no harm to the device", async () => {
  await using bench = await DaemonBench.start();
  const stack = await pushStack(registry.host);
  await mkdir(bench.join("mnt"));
  await mkdir(bench.join("acceleration"));
  const config = { ...stack, accelerationLayer: true, lowers: [...stack.lowers, { dir: bench.join("acceleration") }] };
  const expose = { kind: "mount", directory: bench.join("mnt") } as const;
  await writeFile(bench.join("acceleration", "trace"), "/nothing\n/opt/\n");
  const { layers } = await bench.create({ id: "list", config, expose });
  assert.equal(layers, 3, "the one with the list is none of the device's");
  await until(
    async () => (await statsOf(bench, "list")).trace?.active === false,
    () => bench.said,
  );
  const { trace } = await statsOf(bench, "list");
  assert.ok(trace?.mode === "replay" && trace.bytes > 0 && trace.failed === 1, JSON.stringify(trace));
  assert.match(bench.said, /\|WARN \|th=\d+\|device list\|fetching ahead failed: line 1: "nothing"/);
  assert.deepEqual(await listTree(bench.join("mnt")), stackTree());
  await bench.remove("list");

  const header = Buffer.alloc(24);
  header.writeUInt32LE(0xc2ef1820);
  header.writeUInt32LE(24, 8);
  await writeFile(bench.join("acceleration", "trace"), header);
  await bench.create({ id: "damaged", config, expose });
  assert.deepEqual(await listTree(bench.join("mnt")), stackTree());
  assert.match(bench.said, /\|ERROR\|th=\d+\|device damaged\|.*; nothing is fetched ahead/);
  await bench.remove("damaged");
  await bench.allGone();
});

test("a snapshot leaves the acceleration layer on top, where it is no layer of the device", async () => {
  await using bench = await DaemonBench.start();
  const { lowers } = await bench.stackConfig();
  const mnt = bench.join("mnt");
  for (const name of ["mnt", "acceleration"]) await mkdir(bench.join(name));
  await writeFile(bench.join("acceleration", "trace"), "/opt/\n");
  const [first, second] = [await bench.newUpper("first", 0), await bench.newUpper("second", 0)];
  const [path, next] = [bench.join("config.json"), bench.join("next.json")];
  const acceleration = { dir: bench.join("acceleration") };
  await writeFile(path, JSON.stringify({ accelerationLayer: true, lowers: [...lowers, acceleration], upper: first }));
  await bench.create({ id: "app", config: path, expose: { kind: "mount", directory: mnt } });
  await run("sh", ["-c", 'echo written >"$1/new"; sync "$1/new"', "sh", mnt]);
  const sealed = { file: first.data };
  const wrong = { accelerationLayer: true, lowers: [...lowers, acceleration, sealed], upper: second };
  await writeFile(next, JSON.stringify(wrong));
  assert.match((await bench.device("snapshot", "app", next)).stderr, /lowers\[3\]: expected the file \S+first\.data/);
  await writeFile(next, JSON.stringify({ ...wrong, lowers: [...lowers, sealed, acceleration] }));
  assert.equal((await bench.device("snapshot", "app", next)).stderr, "");
  await bench.remove("app");
  const { layers } = await bench.create({ id: "app", config: path, expose: { kind: "mount", directory: mnt } });
  assert.equal(layers, lowers.length + 2);
  assert.equal(await readFile(bench.join("mnt", "new"), "utf8"), "written\n");
  await bench.remove("app");
  await bench.allGone();
});

test("a device that is killed while it is recorded comes back, records nothing more and says so", async () => {
  await using bench = await DaemonBench.start();
  await writeFile(bench.join("trace"), "");
  const config = { ...(await bench.stackConfig()), recordTracePath: bench.join("trace") };
  const { pid } = await bench.create({ id: "app", config });
  assert.ok(pid !== undefined);
  process.kill(pid, "SIGKILL");
  const { access } = await bench.running("app", pid);
  assert.match(bench.said, /\|ERROR\|th=\d+\|device app\|\S+trace: no trace can be recorded: \S+trace\.lock is there/);
  assert.ok(access?.kind === "fuse");
  await run("head", ["-c", "1000000", access.path]);
  await bench.remove("app");
  assert.deepEqual([(await readFile(bench.join("trace"))).length, existsSync(bench.join("trace.ok"))], [0, false]);
  await bench.allGone();
});
