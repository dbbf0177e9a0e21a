import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { DeviceReport } from "../../src/daemon/device-report.ts";
import { digestOf } from "../../src/oci/digest.ts";
import { run } from "../support/command.ts";
import { DaemonBench } from "../support/daemon-bench.ts";
import { StackRegistry } from "../support/stack-registry.ts";

const AT_ONCE = { enable: true, delay: 0, delayExtra: 1 };
/** A request is a quarter of a second's bytes, and there are two at a time. */
const SLOW = { ...AT_ONCE, maxMBps: 1 };
const UNDERWAY_BYTES = 2 * (256 << 10);

async function localFront(bench: DaemonBench): Promise<string> {
  const local = await bench.create({ id: "local", config: await bench.stackConfig() });
  const front = await bench.frontOf(local);
  await bench.remove("local");
  return front;
}

/** Waits until so much of a device's layers has come. */
async function arrived(bench: DaemonBench, id: string, bytes: number): Promise<void> {
  while ((await bench.stats(id)).layerDownloads.bytes < bytes) await sleep(50);
}

function digestIn(bench: DaemonBench, layer: number): string {
  return digestOf(readFileSync(bench.join(`dir${layer}`, "overlaybd.commit")));
}

test("a download that was cut off by a kill, or by the end of its device, is gone on with", async () => {
  await using registry = await StackRegistry.start();
  await using bench = await DaemonBench.start({ download: SLOW });
  const front = await localFront(bench);
  const config = registry.configIn(bench);
  let device: DeviceReport = await bench.create({ id: "disk", config });
  await arrived(bench, "disk", 1 << 20);
  assert.ok(device.pid !== undefined);
  process.kill(device.pid, "SIGKILL");
  device = await bench.running("disk", device.pid);
  await arrived(bench, "disk", 1 << 20);
  await bench.remove("disk");
  await bench.allGone();
  assert.deepEqual(readdirSync(bench.join("dir0")), [".download"]);

  device = await bench.create({ id: "disk", config: { ...config, download: AT_ONCE } });
  const { done, bytes } = await bench.downloaded("disk");
  assert.equal(done, 3);
  // The first process is no longer there to say how much it has fetched besides what was waited for.
  assert.ok(bytes <= registry.blobBytes - (2 << 20) + UNDERWAY_BYTES, `${bytes} of ${registry.blobBytes}`);
  for (const [layer, { digest }] of registry.lowers.entries()) assert.equal(digestIn(bench, layer), digest);
  assert.equal(await bench.frontOf(device), front);
  await bench.remove("disk");
  await bench.allGone();
});

test("another device goes on with the download of one that was killed", async () => {
  await using registry = await StackRegistry.start();
  await using bench = await DaemonBench.start({ download: SLOW });
  const config = registry.configIn(bench);
  const devices = await Promise.all(["one", "two"].map(async (id) => await bench.create({ id, config })));
  let first: DeviceReport | undefined;
  while (first === undefined) {
    for (const device of devices) if ((await bench.stats(device.id)).layerDownloads.bytes >= 1 << 20) first = device;
    await sleep(20);
  }
  assert.ok(first.pid !== undefined);
  process.kill(first.pid, "SIGKILL");
  const second = devices.find((device) => device !== first);
  assert.ok(second !== undefined);
  await arrived(bench, second.id, 1);
  await bench.running(first.id, first.pid);
  const results = await Promise.all(devices.map(async ({ id }) => await bench.downloaded(id)));
  for (const { done, total } of results) assert.equal(done, total, "the killed one finds some of them there");
  const bytes = results.reduce((sum, result) => sum + result.bytes, 0);
  assert.ok(bytes <= registry.blobBytes - (1 << 20) + UNDERWAY_BYTES, `${bytes} of ${registry.blobBytes}`);
  for (const { id } of devices) await bench.remove(id);
  await bench.allGone();
});

test("a layer that arrives with other bytes never gets its name, and is given up after so many tries", async () => {
  await using registry = await StackRegistry.start();
  await using bench = await DaemonBench.start({ download: { ...AT_ONCE, tryCnt: 2 } });
  const front = await localFront(bench);
  const [bottom] = registry.lowers;
  // In the request of the download alone: reads of the device would find it out, and ask again.
  registry.proxy.inject(
    ({ url, headers }) =>
      url.endsWith(bottom.digest) && headers["range"]?.endsWith("-4194303") ? { kind: "corrupt", at: 3_000_000 } : undefined,
    Infinity,
  );
  const device = await bench.create({ id: "disk", config: registry.configIn(bench) });
  const { done, failed } = await bench.downloaded("disk");
  assert.deepEqual([done, failed], [2, 1]);
  assert.deepEqual(readdirSync(bench.join("dir0")), []);
  const notices = bench.saidBy("disk").match(/^.*\/dir0: download of .* failed, .*$/gm) ?? [];
  assert.equal(notices.length, 2, bench.saidBy("disk"));
  assert.match(notices[1], /try 2 of 2: .*content has digest sha256:.*, expected sha256:.*; it stays remote$/);
  assert.equal(await bench.frontOf(device), front);
  await bench.remove("disk");
  await bench.allGone();
});

test("a registry that breaks down in between costs a try, and what has come counts", async () => {
  await using registry = await StackRegistry.start();
  await using bench = await DaemonBench.start({ download: { ...AT_ONCE, tryCnt: 2 } });
  registry.proxy.inject(({ headers }) => (headers["range"]?.startsWith("bytes=4194304-") ? { kind: "answer", status: 404 } : undefined));
  await bench.create({ id: "disk", config: registry.configIn(bench) });
  const { done, bytes } = await bench.downloaded("disk");
  assert.equal(done, 3, bench.saidBy("disk"));
  assert.ok(bytes < registry.blobBytes);
  assert.match(bench.saidBy("disk"), /dir0: download of .* failed, try 1 of 2: .*; it will be tried again$/m);
  await bench.remove("disk");
  await bench.allGone();
});

test("a full disk is told of, and the device goes on", async () => {
  await using registry = await StackRegistry.start();
  const cacheConfig = { cacheType: "download" };
  await using bench = await DaemonBench.start({ cacheConfig, download: { ...AT_ONCE, tryCnt: 1 } });
  const front = await localFront(bench);
  await mkdir(bench.join("dir0"));
  await run("mount", ["-t", "tmpfs", "-o", "size=1m", "lazylayer-test", bench.join("dir0")]);
  try {
    const device = await bench.create({ id: "disk", config: registry.configIn(bench) });
    assert.equal(await bench.frontOf(device), front);
    const { done, failed } = await bench.downloaded("disk");
    assert.deepEqual([done, failed], [2, 1]);
    assert.match(
      bench.saidBy("disk"),
      /dir0: download of .* failed, try 1 of 1: .*dir0: has room for \d+ bytes, \d+ are missing of the layer; it stays remote$/m,
    );
    assert.match(bench.saidBy("disk"), /dir0\/\.download\.blocks: ENOSPC.*; what is not kept there is read from its place$/m);
    assert.equal(existsSync(bench.join("dir0", "overlaybd.commit")), false);
    assert.equal(await bench.frontOf(device), front);
    await bench.remove("disk");
  } finally {
    await run("umount", [bench.join("dir0")]);
  }
  await bench.allGone();
});

test("a layer's file that is damaged after the device took it is left for the registry", async () => {
  await using registry = await StackRegistry.start();
  await using bench = await DaemonBench.start({ download: AT_ONCE });
  const front = await localFront(bench);
  const device = await bench.create({ id: "disk", config: registry.configIn(bench) });
  assert.equal((await bench.downloaded("disk")).done, 3);
  await run("dd", ["if=/dev/zero", `of=${bench.join("dir0", "overlaybd.commit")}`, "bs=64k", "seek=20", "count=20", "conv=notrunc"]);
  assert.equal(await bench.frontOf(device), front);
  assert.match(bench.saidBy("disk"), /dir0\/overlaybd\.commit: gave wrong bytes; the layer is read from the registry again$/m);
  await bench.remove("disk");
  await bench.allGone();
});
