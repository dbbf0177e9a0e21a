import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { ERRNO, COMMANDS } from "../../src/export/nbd/protocol.ts";
import { startDockerRegistry, type DockerRegistry } from "../support/docker-registry.ts";
import { patternBytes } from "../support/held-device.ts";
import { startHostileRegistry, type HostileRegistry, type SeenRequest } from "../support/hostile-registry.ts";
import { layerOf, writeImage } from "../support/image-builder.ts";
import { NbdClient } from "../support/nbd-client.ts";
import { lazylayer } from "../support/programs.ts";
import { startServing, type Serving } from "../support/serving.ts";
import { TemporaryDirectory } from "../support/temporary-directory.ts";

const MIB = 2 ** 20;
/** In the middle of the only file's data, which opening the image does not read. */
const DATA_OFFSET = 24 * MIB;

let scratch: TemporaryDirectory;
let registry: DockerRegistry;
let hostile: HostileRegistry;

before(async () => {
  scratch = await TemporaryDirectory.create();
  registry = await startDockerRegistry();
  hostile = await startHostileRegistry(registry.host);
  await writeImage(scratch.join("source"), "v1", { layers: [layerOf([{ name: "big", data: patternBytes(20 * MIB) }])] });
  const { status, stderr } = await lazylayer(["convert", "--vsize", "1", `oci:${scratch.join("source")}:v1`, `${registry.host}/app:1`]);
  assert.equal(status, 0, stderr);
});

after(async () => {
  await hostile.stop();
  await registry.stop();
  await scratch[Symbol.asyncDispose]();
});

function isBlob({ url }: SeenRequest): boolean {
  return url.includes("/blobs/");
}

async function serving(name: string, ...args: string[]): Promise<Serving> {
  hostile.reset();
  return await startServing(`${hostile.host}/app:1`, scratch.join(`cache-${name}`), "--nbd", `unix:${scratch.join(name)}`, ...args);
}

test("what a registry does not give is an I/O error, said once on standard error; what it gives later is read", async () => {
  await using served = await serving("lost");
  await using client = await NbdClient.ready({ kind: "unix", path: scratch.join("lost") });
  const before = await client.read(0, 4096);
  hostile.inject((request) => (isBlob(request) ? { kind: "answer", status: 404 } : undefined), Infinity);
  for (const offset of [DATA_OFFSET, DATA_OFFSET + 4 * MIB]) {
    client.send(COMMANDS.READ, 1n, offset, 4096);
    assert.equal((await client.reply()).error, ERRNO.IO);
  }
  assert.ok(before.equals(await client.read(0, 4096)), "what is cached can still be read");
  hostile.reset();
  const data = await client.read(DATA_OFFSET, 65536);
  assert.ok(patternBytes(20 * MIB).includes(data));
  assert.equal(await served.end("SIGTERM"), 0);
  assert.match(served.stderr(), /^read of \[25165824, 25169920\) failed: [^\n]*: 404[^\n]*\n$/);
});

test("a server that waits for its registry ends when it is told to, and tells its clients", async () => {
  await using served = await serving("stalled");
  await using client = await NbdClient.ready({ kind: "unix", path: scratch.join("stalled") });
  hostile.inject((request) => (isBlob(request) ? { kind: "hang" } : undefined), Infinity);
  const seen = hostile.seen.length;
  client.send(COMMANDS.READ, 1n, DATA_OFFSET, 4096);
  while (hostile.seen.length === seen) await new Promise(setImmediate);
  const ending = served.end("SIGTERM");
  assert.equal((await client.reply()).error, ERRNO.SHUTDOWN);
  assert.equal(await ending, 0);
});
