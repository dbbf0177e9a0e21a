import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { z } from "zod";
import { execute, run } from "../support/command.ts";
import { DaemonBench } from "../support/daemon-bench.ts";
import { unusedPort } from "../support/server-process.ts";
import { chanceOf } from "../support/recorded-file.ts";

const SEED = Number(process.env["SEED"] ?? 20_261_121);
const DEVICE_BYTES = 64 << 20;

async function shell(script: string, ...args: string[]): Promise<string> {
  return await run("sh", ["-euc", script, "sh", ...args]);
}

test("devices go on while the daemon is killed, and the next one finds them", async () => {
  const chance = chanceOf(SEED);
  await using bench = await DaemonBench.start();
  const config = await bench.stackConfig();
  await mkdir(bench.join("mnt"));
  const mounted = await bench.create({ id: "mount", config, expose: { kind: "mount", directory: bench.join("mnt") } });
  const loop = await bench.create({ id: "loop", config, expose: { kind: "loop" } });
  const list = async (): Promise<string> => await shell('cd "$1"; find . | sort | sha256sum', bench.join("mnt"));
  const before = await list();
  for (let round = 0; round < 3; round++) {
    // In the middle of making and removing others.
    const others = [0, 1, 2].map(async (index) => {
      await bench.create({ id: `other-${round}-${index}`, config });
      await bench.remove(`other-${round}-${index}`);
    });
    const settled = Promise.allSettled(others);
    await sleep(chance.below(1500));
    await bench.endDaemon(round === 2 ? "SIGTERM" : "SIGKILL");
    await settled;
    assert.equal(await list(), before, `seed ${SEED}`);
    await bench.startDaemon();
    assert.deepEqual(await bench.running("mount"), mounted, `seed ${SEED}`);
    assert.deepEqual(await bench.running("loop"), loop);
    for (const index of [0, 1, 2]) await removeIfThere(bench, `other-${round}-${index}`);
  }
  await bench.remove("mount");
  await bench.remove("loop");
  await bench.allGone();
});

test("a process waits for the next device; when it is killed another does its work, and it ends with the daemon", async () => {
  await using bench = await DaemonBench.start();
  const config = await bench.stackConfig();
  const first = await bench.spare();
  const { pid } = await bench.create({ id: "first", config });
  assert.equal(pid, first, "it has become the device's");
  const second = await bench.spare();
  process.kill(second, "SIGKILL");
  const other = await bench.create({ id: "second", config });
  assert.ok(![first, second].includes(other.pid!));
  for (const signal of ["SIGKILL", "SIGTERM"] as const) {
    const waiting = await bench.spare();
    await bench.endDaemon(signal);
    for (let tries = 0; existsSync(`/proc/${waiting}/cwd`); tries++) {
      assert.ok(tries < 100, `${waiting} goes on after ${signal}`);
      await sleep(50);
    }
    await bench.startDaemon();
  }
  assert.deepEqual([(await bench.running("first")).pid, (await bench.running("second")).pid], [first, other.pid]);
  for (const id of ["first", "second"]) await bench.remove(id);
  await bench.allGone();
});

async function removeIfThere(bench: DaemonBench, id: string): Promise<void> {
  const { stderr } = await bench.device("list");
  assert.equal(stderr, "");
  const result = await bench.running(id).catch((error: unknown) => error);
  if (result instanceof Error) assert.match(result.message, /there is no device/);
  else await bench.remove(id);
}

test("a device whose process is killed comes back, and has what was synced", async () => {
  const chance = chanceOf(SEED + 1);
  const port = await unusedPort();
  await using bench = await DaemonBench.start({ exporterConfig: { enable: true, port } });
  const mnt = bench.join("mnt");
  await mkdir(mnt);
  const config = { upper: await bench.newUpper("upper", DEVICE_BYTES) };
  const disk = await bench.create({ id: "disk", config, expose: { kind: "loop" } });
  assert.ok(disk.access?.kind === "loop");
  await run("mkfs.ext4", ["-q", disk.access.device]);
  await bench.remove("disk");
  await bench.create({ id: "disk", config, expose: { kind: "mount", directory: mnt } });
  for (let round = 0; round < 4; round++) {
    const { pid } = await bench.running("disk");
    assert.ok(pid !== undefined);
    await shell('echo "$2" >"$1/synced$2"; sync "$1/synced$2"; sync -f "$1"', mnt, String(round));
    const writer = execute("timeout", ["0.6", "sh", "-c", 'while cat /proc/version >>"$1/unsynced" 2>/dev/null; do :; done', "sh", mnt]);
    await sleep(chance.below(400));
    process.kill(pid, "SIGKILL");
    await writer;
    const report = await bench.running("disk", pid);
    assert.equal(report.restarts, round + 1, `seed ${SEED}`);
    const found = await shell('cat "$1"/synced* | tr "\\n" " "', mnt);
    assert.equal(found, `${Array.from({ length: round + 1 }, (_, i) => i).join(" ")} `, `seed ${SEED}`);
  }
  await bench.remove("disk");
  const page = await (await fetch(`http://127.0.0.1:${port}/metrics`)).text();
  assert.match(page, /^lazylayer_device_restarts_total 4$/m, "a device that is removed does not take its restarts along");
  const last = await bench.create({ id: "disk", config, expose: { kind: "loop" } });
  assert.ok(last.access?.kind === "loop");
  await run("e2fsck", ["-fn", last.access.device]);
  await bench.remove("disk");
  await bench.allGone();
});

test("devices of every kind come back after both were killed, and nothing is left when they are removed", async () => {
  await using bench = await DaemonBench.start();
  const config = await bench.stackConfig();
  await mkdir(bench.join("mnt"));
  const kinds = [{ kind: "fuse" }, { kind: "loop" }, { kind: "nbd" }, { kind: "mount", directory: bench.join("mnt") }];
  await Promise.all(kinds.map(async (expose) => await bench.create({ id: expose.kind, config, expose })));
  const pids = bench.processes();
  assert.equal(pids.length, 4);
  await bench.endDaemon("SIGKILL");
  for (const pid of pids) process.kill(pid, "SIGKILL");
  await bench.startDaemon();
  for (const { kind } of kinds) assert.ok((await bench.running(kind)).access !== undefined);
  await shell('ls "$1/bin" >/dev/null', bench.join("mnt"));
  for (const { kind } of kinds) await bench.remove(kind);
  await bench.allGone();
});

test("a device that cannot come back says why, is tried again, and can be removed", async () => {
  await using bench = await DaemonBench.start();
  const config = await bench.stackConfig();
  const { pid } = await bench.create({ id: "broken", config });
  assert.ok(pid !== undefined);
  const layer = config.lowers[1].file;
  await run("mv", [layer, `${layer}.away`]);
  process.kill(pid, "SIGKILL");
  let report = await bench.report("broken");
  while (report.restarts < 2) {
    await sleep(50);
    report = await bench.report("broken");
  }
  assert.equal(report.state, "restarting");
  assert.match(report.error ?? "", /layer1/);
  await bench.create({ id: "other", config: { lowers: config.lowers.slice(0, 1) } });
  await run("mv", [`${layer}.away`, layer]);
  await bench.running("broken");
  for (const id of ["broken", "other"]) await bench.remove(id);

  const again = await bench.create({ id: "broken", config });
  await run("mv", [layer, `${layer}.away`]);
  assert.ok(again.pid !== undefined);
  process.kill(again.pid, "SIGKILL");
  await bench.remove("broken");
  await bench.allGone();
});

test("whoever waits for a result file hears of what goes wrong before the image is open", async () => {
  await using bench = await DaemonBench.start();
  const { lowers, resultFile } = await bench.stackConfig();
  const service = await readFile(bench.join("service.json"), "utf8");
  const refused = async (image: object, message: RegExp, expose: object = { kind: "fuse" }): Promise<string> => {
    await writeFile(resultFile, "what was there before");
    await assert.rejects(bench.create({ id: "refused", config: { resultFile, ...image }, expose }), { message });
    return await readFile(resultFile, "utf8");
  };
  const gone = { data: bench.join("gone.data"), index: bench.join("gone.index") };
  assert.equal(await refused({ lowers, upper: gone }, /upper: ENOENT.*gone\.data/), "failed:");
  const noLower = { lowers: [{ file: bench.join("gone") }], upper: gone };
  assert.equal(await refused(noLower, /there is no .*gone, and it has no digest/), "failed:empty repoBlobUrl", "lower layers come first");
  const upper = await bench.newUpper("upper", DEVICE_BYTES);
  await bench.create({ id: "writer", config: { upper } });
  assert.equal(await refused({ lowers, upper }, /upper: another process writes to .*upper\.data/), "failed:");
  await bench.remove("writer");

  const general = "failed:failed to create overlaybd device";
  assert.equal(await refused({ lowers }, /nowhere/, { kind: "mount", directory: bench.join("nowhere") }), general);
  await writeFile(bench.join("file"), "");
  for (const [change, message] of [
    [{ cacheConfig: { cacheType: "file", cacheDir: bench.join("file") } }, /file/],
    [{ certConfig: { certFile: bench.join("file"), keyFile: bench.join("gone") } }, /gone|file/],
    [{ cacheConfig: { cacheType: "memory" } }, /cacheConfig\.cacheType is "memory"/],
  ] as const) {
    await writeFile(
      bench.join("service.json"),
      JSON.stringify({ ...z.record(z.string(), z.unknown()).parse(JSON.parse(service)), ...change }),
    );
    assert.equal(await refused({ lowers }, message), general);
  }
  await writeFile(bench.join("service.json"), service);
  await bench.create({ id: "refused", config: { lowers, resultFile } });
  assert.equal(await readFile(resultFile, "utf8"), "success");
  await bench.remove("refused");
  await bench.allGone();
});

test("a device whose directory is damaged is left as it is, with its id taken, and the others are found", async () => {
  await using bench = await DaemonBench.start();
  const config = await bench.stackConfig();
  const [good, bad] = [await bench.create({ id: "good", config }), await bench.create({ id: "bad", config })];
  const devices = (...names: string[]): string => bench.join("d.devices", ...names);
  const restart = async (): Promise<void> => {
    await bench.endDaemon("SIGKILL");
    await bench.startDaemon();
  };
  const isLeft = async (id: string, found: RegExp): Promise<void> => {
    assert.deepEqual(await bench.running("good"), good);
    assert.match(
      bench.said,
      new RegExp(`\\|WARN \\|th=\\d+\\|daemon\\|\\S+/${id}: ${found.source}; it is left as it is.*and remove it$`, "m"),
    );
    await assert.rejects(bench.report(id), /there is no device/);
    await assert.rejects(bench.create({ id, config }), { message: `duplicated dev id: ${id}` });
  };
  for (const [name, damage, found] of [
    ["device.json", () => "", /\S+device\.json: is empty/],
    ["device.json", (whole: string) => whole.slice(0, 20), /\S+device\.json: .*JSON.*/],
    ["device.json", () => "{}", /\S+device\.json: id: .*/],
    ["device.json", (whole: string) => whole.replace('"bad"', '"good"'), /\S+device\.json: id is "good", expected "bad"/],
    ["process.json", () => '{"pid": 0}', /\S+process\.json: pid: .*/],
    ["state.json", () => "", /\S+state\.json: is empty/],
  ] as const) {
    const path = devices("bad", name);
    const whole = await readFile(path, "utf8");
    await writeFile(path, damage(whole));
    await restart();
    await isLeft("bad", found);
    assert.equal(await readFile(path, "utf8"), damage(whole));
    await writeFile(path, whole);
  }
  await writeFile(devices("file"), "");
  await mkdir(devices("foreign"));
  await writeFile(devices("foreign", "something"), "");
  await restart();
  assert.deepEqual(await bench.running("bad"), bad);
  await isLeft("file", /ENOTDIR.*/);
  await isLeft("foreign", /ENOTEMPTY.*/);
  for (const id of ["file", "foreign"]) {
    await rm(devices(id), { recursive: true });
    await bench.create({ id, config });
  }
  for (const id of ["good", "bad", "file", "foreign"]) await bench.remove(id);
  await bench.allGone();
});

test("a device process that is asked to end by a signal writes everything, and is not started again", async () => {
  await using bench = await DaemonBench.start();
  const mnt = bench.join("mnt");
  await mkdir(mnt);
  const config = { upper: await bench.newUpper("upper", DEVICE_BYTES) };
  const disk = await bench.create({ id: "disk", config, expose: { kind: "loop" } });
  assert.ok(disk.access?.kind === "loop" && disk.pid !== undefined);
  await run("mkfs.ext4", ["-q", disk.access.device]);
  process.kill(disk.pid, "SIGTERM");
  await bench.allGone();
  const mounted = await bench.create({ id: "disk", config, expose: { kind: "mount", directory: mnt } });
  await writeFile(bench.join("mnt", "file"), "not synced");
  assert.ok(mounted.pid !== undefined);
  process.kill(mounted.pid, "SIGTERM");
  await bench.allGone();
  await bench.create({ id: "disk", config, expose: { kind: "mount", directory: mnt } });
  assert.equal(await shell('cat "$1/file"', mnt), "not synced");
  await bench.remove("disk");
  await bench.allGone();
});
