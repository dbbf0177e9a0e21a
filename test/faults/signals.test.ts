import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createCipheriv } from "node:crypto";
import { once } from "node:events";
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { after, before, beforeEach, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { openLayoutStore } from "../../src/image-layout/layout-store.ts";
import { parseReference } from "../../src/oci/reference.ts";
import { openRegistryStore } from "../../src/registry/registry-store.ts";
import { startDockerRegistry, type DockerRegistry } from "../support/docker-registry.ts";
import { startHostileRegistry, type HostileRegistry, type SeenRequest } from "../support/hostile-registry.ts";
import { copyImage, layerOf, writeImage } from "../support/image-builder.ts";
import { CLEAN_ENVIRONMENT, CONVERTOR, LAZYLAYER } from "../support/programs.ts";
import { TemporaryDirectory } from "../support/temporary-directory.ts";

const STATUS = { SIGINT: 130, SIGTERM: 143 } as const;
const PATIENCE_MS = 30_000;

let scratch: TemporaryDirectory;
let registry: DockerRegistry;
let hostile: HostileRegistry;
let layout = "";

before(async () => {
  scratch = await TemporaryDirectory.create();
  layout = scratch.join("source");
  const noise = createCipheriv("aes-256-ctr", Buffer.alloc(32), Buffer.alloc(16)).update(Buffer.alloc(96_000_000)); // more than blobs may take of memory;
  await writeImage(layout, "v1", { layers: [layerOf([{ name: "small", data: "x" }]), layerOf([{ name: "big", data: noise }])] });
  registry = await startDockerRegistry();
  hostile = await startHostileRegistry(registry.host);
  const store = openStore(registry.host);
  await copyImage(await openLayoutStore(layout), { tag: "v1" }, store, "v1");
  await store.close();
});

beforeEach(() => hostile.reset());

after(async () => {
  await hostile.stop();
  await registry.stop();
  await scratch[Symbol.asyncDispose]();
});

function openStore(host: string): ReturnType<typeof openRegistryStore> {
  const reference = parseReference(`${host}/app`);
  assert.ok(reference.kind === "registry");
  return openRegistryStore(reference);
}

async function until(what: string, condition: () => boolean): Promise<void> {
  for (const end = Date.now() + PATIENCE_MS; !condition();) {
    assert.ok(Date.now() < end, `in vain: ${what}`);
    await sleep(5);
  }
}

/** Starts a program, sends it the signal when the condition holds, and checks how it ended. Nothing may be left in `TMPDIR` or its directory. */
async function interrupt(
  program: string,
  args: string[],
  signal: keyof typeof STATUS,
  what: string,
  condition: (temporary: string) => boolean,
): Promise<void> {
  const directory = scratch.join(`run-${performance.now()}`);
  await mkdir(join(directory, "tmp"), { recursive: true });
  const env = { ...process.env, ...CLEAN_ENVIRONMENT, TMPDIR: join(directory, "tmp") };
  const child = spawn(program, args, { cwd: directory, env, stdio: ["ignore", "pipe", "pipe"] });
  const output: Buffer[] = [];
  child.stdout.on("data", (chunk: Buffer) => output.push(chunk));
  child.stderr.on("data", (chunk: Buffer) => output.push(chunk));
  const ended = once(child, "close");
  await until(what, () => child.exitCode !== null || condition(directory));
  assert.equal(child.exitCode, null, `it ended before: ${Buffer.concat(output).toString()}`);
  child.kill(signal);
  const [status] = (await ended) as [number | null];
  const said = Buffer.concat(output).toString();
  assert.equal(status, STATUS[signal], said);
  assert.match(said, new RegExp(`: interrupted by ${signal}\n$`));
  assert.doesNotMatch(said, /\n\s+at /);
  assert.deepEqual(readdirSync(directory), ["tmp"]);
  assert.deepEqual(readdirSync(join(directory, "tmp")), []);
}

async function hasTag(tag: string): Promise<boolean> {
  const store = openStore(registry.host);
  try {
    await store.resolve({ tag });
    return true;
  } catch {
    return false;
  } finally {
    await store.close();
  }
}

const MOMENTS: readonly (readonly [name: string, method: string, part: string, afterBytes: number])[] = [
  ["the source is looked up", "GET", "/manifests/v1", 0],
  ["a layer is fetched", "GET", "/blobs/", 1_000_000],
  ["the registry is asked for a blob", "HEAD", "/blobs/", 0],
  ["an upload begins", "POST", "/uploads/", 0],
  ["an upload ends", "PUT", "/uploads/", 0],
];

for (const [at, [name, method, part, afterBytes]] of MOMENTS.entries()) {
  for (const [program, args] of [
    [LAZYLAYER, (tag: string) => ["convert", `${hostile.host}/app:v1`, `${hostile.host}/app:${tag}`]],
    [CONVERTOR, (tag: string) => ["-r", `${hostile.host}/app`, "-i", "v1", "-o", tag]],
  ] as const) {
    const signal = (at % 2 === 0) === (program === LAZYLAYER) ? "SIGINT" : "SIGTERM";
    test(`${program.split("/").at(-1)} stops at ${signal} while ${name}`, async () => {
      const matches = (request: SeenRequest): boolean => request.method === method && request.url.includes(part);
      hostile.inject((request) => (matches(request) ? { kind: "stall", afterBytes } : undefined), 100);
      const tag = `moment-${at}-${signal}`;
      await interrupt(program, args(tag), signal, name, () => hostile.seen.some(matches));
      assert.equal(await hasTag(tag), false);
    });
  }
}

/** Whether a file below the directory has reached a size. */
function hasFile(directory: string, bytes: number): boolean {
  return readdirSync(directory, { recursive: true, withFileTypes: true }).some(
    (entry) => entry.isFile() && (statSync(join(entry.parentPath, entry.name), { throwIfNoEntry: false })?.size ?? 0) >= bytes,
  );
}

for (const signal of ["SIGINT", "SIGTERM"] as const) {
  test(`a conversion of directories stops at ${signal} while a blob is written`, async () => {
    const target = scratch.join(`target-${signal}`);
    const args = ["convert", `oci:${layout}:v1`, `oci:${target}:v1`];
    await interrupt(LAZYLAYER, args, signal, "a blob on disk", (directory) => hasFile(directory, 8 << 20));
    assert.equal(existsSync(join(target, "index.json")) && (await hasLayoutTag(target)), false);
    if (existsSync(target))
      assert.deepEqual(
        readdirSync(join(target, "blobs/sha256")).filter((name) => name.startsWith(".")),
        [],
      );
  });
}

async function hasLayoutTag(directory: string): Promise<boolean> {
  const store = await openLayoutStore(directory);
  return await store.resolve({ tag: "v1" }).then(
    () => true,
    () => false,
  );
}

test("verify, ls and cat stop at a signal, too", async () => {
  const stalled = (request: SeenRequest): boolean => request.url.includes("/blobs/");
  const image = `${hostile.host}/app:v1`;
  for (const args of [
    ["verify", image, image],
    ["ls", image],
    ["cat", image, "/big"],
  ]) {
    hostile.reset();
    hostile.inject((request) => (stalled(request) ? { kind: "stall", afterBytes: 0 } : undefined), 100);
    await interrupt(LAZYLAYER, args, "SIGTERM", args[0], () => hostile.seen.some(stalled));
  }
});

test("waiting for a password ends at a signal", async (context) => {
  const args = ["convert", "-u", "x", "--password-stdin", `oci:${layout}:v1`, `oci:${scratch.join("never")}:v1`];
  const child = spawn(LAZYLAYER, args, { env: { ...process.env, ...CLEAN_ENVIRONMENT }, stdio: ["pipe", "ignore", "pipe"] });
  const ended = once(child, "close");
  context.after(() => child.kill("SIGKILL"));
  await until("it reads standard input", () => child.exitCode !== null || waitsForInput(child.pid));
  child.kill("SIGINT");
  assert.deepEqual(await ended, [130, null]);
});

/** Whether the process has standard input among what it waits for. */
function waitsForInput(pid: number | undefined): boolean {
  const directory = `/proc/${pid}/fdinfo`;
  const texts = readdirSync(directory).map((name) => {
    try {
      return readFileSync(join(directory, name), "utf8");
    } catch {
      return ""; // closed meanwhile
    }
  });
  return texts.some((text) => /^tfd:\s+0 /m.test(text));
}
