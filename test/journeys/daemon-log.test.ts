import assert from "node:assert/strict";
import { mkdir, readFile } from "node:fs/promises";
import { test } from "node:test";
import { deviceStatsSchema } from "../../src/daemon/device-stats.ts";
import { DaemonBench } from "../support/daemon-bench.ts";
import { startDockerRegistry } from "../support/docker-registry.ts";
import { listTree, stackTree } from "./mount-support.ts";
import { pushStack } from "../support/stack-registry.ts";

test("daemon and devices write to one log, and each read of the registry is in the audit log", async () => {
  await using registry = await startDockerRegistry();
  await using bench = await DaemonBench.start({ somethingElse: 1 });
  const config = await pushStack(registry.host);
  await mkdir(bench.join("mnt"));
  await bench.create({ id: "app", config, expose: { kind: "mount", directory: bench.join("mnt") } });
  assert.deepEqual(await listTree(bench.join("mnt")), stackTree());
  const { downloads, pid } = deviceStatsSchema.parse(await bench.call("GET", "/devices/app/stats"));
  await bench.remove("app");
  await bench.allGone();

  const log = await readFile(bench.log, "utf8");
  for (const line of [
    /^\S+ \S+\|INFO \|th=\d+\|daemon\|listens on \S+d\.sock$/m,
    /^\S+ \S+\|WARN \|th=\d+\|daemon\|\S+: somethingElse is not known and has no effect$/m,
    new RegExp(`^\\S+ \\S+\\|INFO \\|th=${pid}\\|device app\\|can be used: mount \\S+/mnt ext4 \\S+$`, "m"),
    new RegExp(`^\\S+ \\S+\\|INFO \\|th=\\d+\\|daemon\\|device app: process ${pid} serves it$`, "m"),
    new RegExp(`^\\S+ \\S+\\|INFO \\|th=${pid}\\|device app\\|has ended$`, "m"),
  ]) {
    assert.match(log, line);
  }
  const audit = await readFile(bench.join("audit.log"), "utf8");
  const form =
    /^\d{4}\/\d\d\/\d\d \d\d:\d\d:\d\d\.\d{6}\|AUDIT\|th=(\d+)\|download\[pathname=\/(\S+?)\]\[offset=\d+\]\[size=(\d+)\]\[latency=\d+\]$/;
  const reads = audit
    .trimEnd()
    .split("\n")
    .map((line) => form.exec(line) ?? assert.fail(line));
  const blobs = new Set(config.lowers.map(({ digest }) => `${config.repoBlobUrl}/${digest}`));
  for (const [, process, url] of reads) assert.ok(Number(process) === pid && blobs.has(url), url);
  const bytes = reads.reduce((sum, [, , , size]) => sum + Number(size), 0);
  assert.deepEqual([reads.length, bytes], [downloads.requests, downloads.bytes]);
});

test("a log that cannot be written is no reason to serve nothing, and is said where somebody looks", async () => {
  await using bench = await DaemonBench.start({ logConfig: { logPath: "/nothing/is/here/log" }, enableAudit: false });
  await bench.create({ id: "app", config: await bench.stackConfig() });
  const own = await readFile(bench.join("d.devices", "app", "device.log"), "utf8");
  assert.match(own, /\|ERROR\|th=\d+\|device app\|the log cannot be written, and goes on here: ENOENT/);
  assert.match(own, /\|INFO \|th=\d+\|device app\|can be used: fuse /);
  assert.match(bench.said, /\|ERROR\|th=\d+\|daemon\|the log cannot be written[^]*\|daemon\|device app: process \d+ serves it/);
  await bench.remove("app");
  await bench.allGone();
});
