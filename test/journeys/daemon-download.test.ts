import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { test } from "node:test";
import { digestOf } from "../../src/oci/digest.ts";
import { DaemonBench } from "../support/daemon-bench.ts";
import { unusedPort } from "../support/server-process.ts";
import { StackRegistry } from "../support/stack-registry.ts";

const AT_ONCE = { enable: true, delay: 0, delayExtra: 1 };

function areWhole(bench: DaemonBench, { lowers }: StackRegistry): void {
  for (const [layer, { digest }] of lowers.entries()) {
    assert.deepEqual(readdirSync(bench.join(`dir${layer}`)), ["overlaybd.commit"]);
    assert.equal(digestOf(readFileSync(bench.join(`dir${layer}`, "overlaybd.commit"))), digest);
  }
}

test("a remote image arrives whole, and goes on from its directories when the registry is gone", async () => {
  await using registry = await StackRegistry.start();
  const port = await unusedPort();
  await using bench = await DaemonBench.start({ download: AT_ONCE, exporterConfig: { enable: true, port } });
  const local = await bench.create({ id: "local", config: await bench.stackConfig() });
  const remote = await bench.create({ id: "remote", config: registry.configIn(bench) });
  const { total, done, failed, bytes } = await bench.downloaded("remote");
  assert.deepEqual([total, done, failed], [3, 3, 0]);
  assert.equal(registry.askedBytes, registry.blobBytes, "what opening has read is not fetched again");
  areWhole(bench, registry);
  assert.match((await bench.device("stats", "remote")).stdout.toString(), /^layers +3 of 3 downloaded, [1-9]\d+ bytes, 0 failed$/m);
  const page = await (await fetch(`http://127.0.0.1:${port}/metrics`)).text();
  assert.match(page, /^lazylayer_layer_downloads\{state="done"\} 3$/m);
  assert.match(page, new RegExp(`^lazylayer_layer_downloaded_bytes_total ${bytes}$`, "m"));

  await registry.stop();
  assert.equal(await bench.frontOf(remote), await bench.frontOf(local), "most of it was never read before");
  await bench.remove("remote");
  const again = await bench.create({ id: "again", config: registry.configIn(bench) });
  assert.equal(await bench.frontOf(again), await bench.frontOf(local));
  assert.equal((await bench.stats("again")).layerDownloads.total, 0, "there is nothing to download any more");
  for (const id of ["local", "again"]) await bench.remove(id);
  await bench.allGone();
});

test("devices on the same layers download them once, and the configuration of an image counts before the service's", async () => {
  await using registry = await StackRegistry.start();
  await using bench = await DaemonBench.start({ download: { ...AT_ONCE, enable: false } });
  const config = registry.configIn(bench, { download: { ...AT_ONCE, maxMBps: 8 } });
  const ids = ["one", "two", "three"];
  await Promise.all(ids.map(async (id) => await bench.create({ id, config })));
  const downloads = await Promise.all(ids.map(async (id) => await bench.downloaded(id)));
  assert.deepEqual(
    downloads.map(({ done }) => done),
    [3, 3, 3],
  );
  assert.ok(downloads.reduce((sum, { bytes }) => sum + bytes, 0) <= registry.blobBytes);
  const stats = await Promise.all(ids.map(async (id) => await bench.stats(id)));
  const read = stats.reduce((sum, { fetches }) => sum + fetches.bytes, 0);
  assert.ok(registry.askedBytes <= registry.blobBytes + read, `${registry.askedBytes} bytes, ${read} of them for reads of devices`);
  areWhole(bench, registry);

  const off = await bench.create({ id: "off", config: registry.configIn(bench, { lowers: registry.lowers }) });
  assert.equal((await bench.stats(off.id)).layerDownloads.total, 0, "without a directory there is no place for it");
  for (const id of [...ids, "off"]) await bench.remove(id);
  await bench.allGone();
});

test("nothing is downloaded while reads are recorded, nor where a configuration does not want it", async () => {
  await using registry = await StackRegistry.start();
  await using bench = await DaemonBench.start({ download: AT_ONCE });
  await writeFile(bench.join("trace"), "");
  await bench.create({ id: "recorded", config: registry.configIn(bench, { recordTracePath: bench.join("trace") }) });
  await bench.create({ id: "unwanted", config: registry.configIn(bench, { download: { enable: false } }) });
  for (const id of ["recorded", "unwanted"]) {
    assert.equal((await bench.stats(id)).layerDownloads.total, 0);
    await bench.remove(id);
  }
  await bench.allGone();
});

test("with cacheType download the directories have what was read, and then the layers", async () => {
  await using registry = await StackRegistry.start();
  const cacheConfig = { cacheType: "download", refillSize: 65_536 };
  await using bench = await DaemonBench.start({ cacheConfig });
  const config = registry.configIn(bench);
  const first = await bench.create({ id: "first", config });
  const front = await bench.frontOf(first);
  const { fetches } = await bench.stats("first");
  assert.ok(fetches.bytes > 0 && fetches.bytes <= registry.blobBytes, "nothing was fetched twice");
  await bench.remove("first");
  assert.deepEqual(readdirSync(bench.join("dir0")), [".download.blocks"]);

  registry.proxy.reset();
  const second = await bench.create({ id: "second", config });
  assert.equal(await bench.frontOf(second), front);
  assert.equal(registry.askedBytes, 0, "what was read is there");
  const { reads } = await bench.stats("second");
  assert.ok(reads.cached > reads.waited, "and read without waiting");
  const third = await bench.create({ id: "third", config: registry.configIn(bench, { download: AT_ONCE }) });
  assert.equal((await bench.downloaded("third")).done, 3);
  await registry.stop();
  assert.deepEqual([await bench.frontOf(second), await bench.frontOf(third)], [front, front]);
  await bench.remove("third");
  areWhole(bench, registry);
  assert.equal(await bench.frontOf(second), front, "whoever had the cache open goes on");
  await bench.remove("second");
  areWhole(bench, registry);
  await bench.allGone();
  assert.equal((await readFile(bench.join("dir0", "overlaybd.commit"))).length, registry.lowers[0].size);
});
