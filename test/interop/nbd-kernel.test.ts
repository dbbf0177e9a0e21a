import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { createCommitTool } from "../../src/cli/tools/overlaybd-commit.ts";
import { DiskFile } from "../../src/bytes/file.ts";
import { AppendLayer } from "../../src/formats/lsmt/append-layer.ts";
import { openLayer } from "../../src/formats/lsmt/lsmt-reader.ts";
import { stackLayers } from "../../src/formats/lsmt/stack.ts";
import { runTool } from "../journeys/tools-support.ts";
import { run } from "../support/command.ts";
import { NO_GUEST, runInGuest } from "../support/guest.ts";
import { patternBytes } from "../support/held-device.ts";
import { layerOf, writeImage } from "../support/image-builder.ts";
import { lazylayer } from "../support/programs.ts";
import { requireProgram } from "../support/server-process.ts";
import { startServing, type Serving } from "../support/serving.ts";
import { TemporaryDirectory } from "../support/temporary-directory.ts";

const MIB = 2 ** 20;
const FILE = patternBytes(5 * MIB);
const DISK_BYTES = 32 * MIB;
/** It boots a machine that is emulated. */
const TIMEOUT_MS = 300_000;

test("the kernel's NBD client reads, writes, loses and finds what lazylayer serves", { skip: NO_GUEST, timeout: TIMEOUT_MS }, async (t) => {
  await requireProgram("nbd-client", "nbd-client");
  await using scratch = await TemporaryDirectory.create();
  await writeImage(scratch.join("source"), "v1", { layers: [layerOf([{ name: "big", data: FILE }])] });
  const image = `oci:${scratch.join("converted")}:v1`;
  const { status, stderr } = await lazylayer(["convert", "--vsize", "1", `oci:${scratch.join("source")}:v1`, image]);
  assert.equal(status, 0, stderr);
  await using served = await startServing(image, scratch.join("cache"), "--nbd", "127.0.0.1:0");
  const front = await run("sh", ["-c", 'nbdcopy "$1" - | head -c 32M | sha256sum', "sh", served.line]);
  const upper = [scratch.join("upper.data"), scratch.join("upper.index")];
  const [data, index] = await Promise.all(upper.map(async (path) => await DiskFile.create(path)));
  await (await AppendLayer.create(data, index, { virtualSize: DISK_BYTES })).close();

  const over = new AbortController();
  const asked = killWhenAsked(scratch.path, served, over.signal);
  const program = join(import.meta.dirname, "nbd-kernel-guest.ts");
  const guest = await runInGuest(program, [scratch.path, new URL(served.line).port], scratch.path, "nbd");
  over.abort();
  await asked;
  assert.equal(guest.status, 0, guest.output);
  for (const line of guest.output.trimEnd().split("\n")) t.diagnostic(line);

  const found = (name: string): string => readFileSync(scratch.join(name), "utf8");
  assert.equal(found("front"), front.slice(0, 64));
  assert.equal(found("file"), createHash("sha256").update(FILE).digest("hex"));
  const committed = scratch.join("committed");
  assert.equal((await runTool(createCommitTool, [...upper, committed])).status, 0);
  const layer = stackLayers([await openLayer(await DiskFile.open(committed))]);
  const disk = await layer.read(0, DISK_BYTES);
  assert.equal(createHash("sha256").update(disk).digest("hex"), found("disk"), "what the kernel read is what was committed");
  writeFileSync(scratch.join("disk.img"), disk);
  await run("e2fsck", ["-fn", scratch.join("disk.img")]);
  await layer.close();
});

/** Kills the server once the guest asks for that. */
async function killWhenAsked(directory: string, served: Serving, signal: AbortSignal): Promise<void> {
  while (!signal.aborted && !existsSync(join(directory, "asked"))) await sleep(50);
  await served.end("SIGKILL");
  writeFileSync(join(directory, "done"), "");
}
