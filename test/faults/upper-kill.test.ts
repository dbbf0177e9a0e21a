import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { copyFile, readdir, writeFile } from "node:fs/promises";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { FileSource } from "../../src/bytes/file.ts";
import { createCommitTool } from "../../src/cli/tools/overlaybd-commit.ts";
import { openLayer } from "../../src/formats/lsmt/lsmt-reader.ts";
import { stackLayers } from "../../src/formats/lsmt/stack.ts";
import { runTool } from "../journeys/tools-support.ts";
import { DaemonBench } from "../support/daemon-bench.ts";
import { chanceOf, type Chance } from "../support/recorded-file.ts";
import { openAccess, type BlockAccess } from "./soak/block-access.ts";
import { SECTOR_BYTES, sectorBytes, SectorModel, type Range } from "./soak/sector-model.ts";
import { createUpper } from "./soak/soak-images.ts";

const QEMU_IO = "qemu-io";
const SEED = 20_261_122;
const DEVICE_BYTES = 64 << 20;
const SECTORS = DEVICE_BYTES / SECTOR_BYTES;
const CLIENTS = 4;
const ROUNDS = 4;

/** Writes and discards in a part of the device of its own until the process that serves it is gone. Nothing is flushed. */
async function writeUntilKilled(device: BlockAccess, model: SectorModel, chance: Chance, part: number): Promise<void> {
  const size = SECTORS / CLIENTS;
  for (let version = 1 + part; ; version += CLIENTS) {
    const count = 1 + chance.below(64);
    const range = { first: part * size + chance.below(size - count), count };
    const isDiscard = chance.below(5) === 0;
    model.begin(range, isDiscard ? 0 : version);
    try {
      if (isDiscard) await device.discard(range.first * SECTOR_BYTES, count * SECTOR_BYTES);
      else await device.write(range.first * SECTOR_BYTES, sectorBytes(version, range.first, count), true);
    } catch {
      return;
    }
    model.done(range, isDiscard ? 0 : version, true);
  }
}

async function check(device: Pick<BlockAccess, "read">, model: SectorModel, where: string): Promise<void> {
  for (const { first, count } of model.unsettled(2048)) {
    model.settle(first, await device.read(first * SECTOR_BYTES, count * SECTOR_BYTES, true), where);
  }
  for (let first = 0; first < SECTORS; first += 2048) {
    model.check(first, await device.read(first * SECTOR_BYTES, 2048 * SECTOR_BYTES, true), where);
  }
}

/** What is beside the files of a layer. */
async function leftBeside(bench: DaemonBench): Promise<string[]> {
  return (await readdir(bench.join("."))).filter((name) => name.endsWith(".unsynced"));
}

const uppers: Readonly<Record<string, (bench: DaemonBench) => Promise<object>>> = {
  "an append-only": async (bench) => await bench.newUpper("upper", DEVICE_BYTES),
  "a sparse": async (bench) => await bench.newUpper("upper", DEVICE_BYTES, true),
  "a turboOCI": async (bench) => {
    const target = bench.join("target.tar");
    await writeFile(target, new Uint8Array(10_240));
    return { ...(await createUpper(bench.join("upper"), "append", "1", "--turboOCI")), target };
  },
};

for (const [form, makeUpper] of Object.entries(uppers)) {
  test(`${form} layer: whenever its process is killed, clients that come back find what was acknowledged, though nothing was flushed`, async () => {
    const chance = chanceOf(SEED);
    await using bench = await DaemonBench.start();
    const config = { upper: await makeUpper(bench) };
    const model = new SectorModel(new Uint32Array(SECTORS));
    const request = { id: "disk", config, expose: { kind: "nbd" } };
    let { pid, access } = await bench.create(request);
    const uri = access;
    for (let round = 0; round < ROUNDS; round++) {
      const devices = await Promise.all(Array.from({ length: CLIENTS }, async () => await openAccess(access!, false)));
      const writing = devices.map(async (device, part) => await writeUntilKilled(device, model, chance, part));
      await sleep(50 + chance.below(400));
      process.kill(pid!, "SIGKILL");
      await Promise.all(writing);
      for (const device of devices) await device.close();
      model.killed();
      ({ pid, access } = await bench.running("disk", pid));
      assert.deepEqual(access, uri);
      const device = await openAccess(access!, false);
      await check(device, model, `seed ${SEED}, round ${round}`);
      if (round === 1) await device.flush();
      await device.close();
    }
    await bench.remove("disk");
    assert.deepEqual(await leftBeside(bench), []);
    const { access: last } = await bench.create(request);
    const device = await openAccess(last!, false);
    await check(device, model, "after it was removed");
    await device.close();
    await bench.remove("disk");
    await bench.allGone();
  });
}

test("tools find in a layer what its killed process had acknowledged; without what is beside the index they find what was flushed", async () => {
  await using bench = await DaemonBench.start();
  const upper = await bench.newUpper("upper", DEVICE_BYTES);
  const { pid, access } = await bench.create({ id: "disk", config: { upper }, expose: { kind: "nbd" } });
  const device = await openAccess(access!, false);
  const model = new SectorModel(new Uint32Array(SECTORS));
  const write = async ({ first, count }: Range, version: number): Promise<void> =>
    await device.write(first * SECTOR_BYTES, sectorBytes(version, first, count), true);
  const expect = (range: Range, version: number): void => {
    model.begin(range, version);
    model.done(range, version, true);
  };
  const commit = async (index: string, name: string): Promise<void> => {
    const { status, stderr } = await runTool(createCommitTool, [upper.data, index, bench.join(name)]);
    assert.equal(status, 0, stderr);
    const layer = await openLayer(await FileSource.open(bench.join(name)));
    await check(stackLayers([layer]), model, name);
    await layer.close();
  };
  const [early, late] = [
    { first: 0, count: 1000 },
    { first: 500, count: 1000 },
  ];
  await write(early, 1);
  await device.flush();
  await write(late, 2);
  await bench.endDaemon("SIGKILL");
  process.kill(pid!, "SIGKILL");
  await device.close();
  await copyFile(upper.index, bench.join("alone.index"));
  expect(early, 1);
  await commit(bench.join("alone.index"), "flushed");
  expect(late, 2);
  await commit(upper.index, "written");
  assert.deepEqual(await leftBeside(bench), ["upper.index.unsynced"]);
  const sealed = await runTool(createCommitTool, ["--seal", upper.data, upper.index]);
  assert.equal(sealed.status, 0, sealed.stderr);
  assert.deepEqual(await leftBeside(bench), []);
  const layer = await openLayer(await FileSource.open(upper.data));
  await check(stackLayers([layer]), model, "sealed");
  await layer.close();
  await bench.startDaemon();
  await bench.remove("disk", true);
  await bench.allGone();
});

test("QEMU goes on with a device whose process is killed, and has what it wrote", async () => {
  await using bench = await DaemonBench.start();
  const config = { upper: await bench.newUpper("upper", DEVICE_BYTES) };
  const { access, ...created } = await bench.create({ id: "disk", config, expose: { kind: "nbd" } });
  let { pid } = created;
  assert.ok(access?.kind === "nbd");
  const path = new URL(access.uri).searchParams.get("socket");
  const options = `driver=raw,file.driver=nbd,file.server.type=unix,file.server.path=${path},file.export=disk,file.reconnect-delay=60`;
  const qemu = spawn(QEMU_IO, ["-t", "writeback", "--image-opts", options], { stdio: ["pipe", "pipe", "inherit"] });
  await using _ = { [Symbol.asyncDispose]: async () => void qemu.kill("SIGKILL") };
  let said = "";
  qemu.stdout.on("data", (chunk: Buffer) => (said += chunk.toString()));
  const told = async (command: string, answer: RegExp): Promise<void> => {
    said = "";
    qemu.stdin.write(`${command}\n`);
    while (!answer.test(said) && !/failed|error/i.test(said)) await once(qemu.stdout, "data");
    assert.match(said, answer);
  };
  for (let round = 1; round <= 3; round++) {
    await told(`write -P ${round} ${round}M 512k`, /wrote 524288\/524288/);
    await told(`write -z ${round}M 64k`, /wrote 65536\/65536/);
    process.kill(pid!, "SIGKILL");
    await told(`write -P ${0x10 + round} ${20 + round}M 512k`, /wrote 524288\/524288/);
    ({ pid } = await bench.running("disk", pid));
    for (let written = 1; written <= round; written++) {
      await told(`read -P 0 ${written}M 64k`, /read 65536\/65536/);
      await told(`read -P ${written} ${written * 1024 + 64}k 448k`, /read 458752\/458752/);
      await told(`read -P ${0x10 + written} ${20 + written}M 512k`, /read 524288\/524288/);
    }
  }
  qemu.stdin.end("quit\n");
  assert.deepEqual(await once(qemu, "close"), [0, null]);
  await bench.remove("disk");
  await bench.allGone();
});
