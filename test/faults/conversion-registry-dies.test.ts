import assert from "node:assert/strict";
import { spawn, type ChildProcess } from "node:child_process";
import { createCipheriv } from "node:crypto";
import { once } from "node:events";
import { existsSync, readdirSync, statSync } from "node:fs";
import { cp, mkdir } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { openLayoutStore } from "../../src/image-layout/layout-store.ts";
import { openRegistryStore } from "../../src/registry/registry-store.ts";
import { convertStores } from "../support/convert.ts";
import { startDockerRegistry, type DockerRegistry } from "../support/docker-registry.ts";
import { copyImage, layerOf, writeImage } from "../support/image-builder.ts";
import { CLEAN_ENVIRONMENT, CONVERTOR, LAZYLAYER } from "../support/programs.ts";
import { pause, resume } from "../support/server-process.ts";
import { TemporaryDirectory } from "../support/temporary-directory.ts";

/** More than blobs may take of memory. */
const IMAGE_BYTES = 96_000_000;
const TAG = "converted";
const PATIENCE_MS = 30_000;

/** A conversion with a directory of its own, which is where the program runs and has its temporary data. */
interface Conversion {
  readonly program: string;
  readonly args: readonly string[];
  readonly directory: string;
}

let scratch: TemporaryDirectory;
let registry: DockerRegistry;
let expected = "";
let runs = 0;

before(async () => {
  scratch = await TemporaryDirectory.create();
  registry = await startDockerRegistry();
  const layout = scratch.join("source");
  const noise = createCipheriv("aes-256-ctr", Buffer.alloc(32), Buffer.alloc(16)).update(Buffer.alloc(IMAGE_BYTES));
  await writeImage(layout, "v1", { layers: [layerOf([{ name: "small", data: "x" }]), layerOf([{ name: "big", data: noise }])] });
  const [source, store] = [await openLayoutStore(layout), openRepository("source")];
  await copyImage(source, { tag: "v1" }, store, "v1");
  await store.close();
  const undisturbed = await openLayoutStore(scratch.join("undisturbed"), { create: true });
  expected = (await convertStores(source, undisturbed, "v1", { directory: scratch.join("work") })).descriptor.digest;
});

after(async () => {
  await registry.stop();
  await scratch[Symbol.asyncDispose]();
});

function openRepository(repository: string): ReturnType<typeof openRegistryStore> {
  return openRegistryStore({ kind: "registry", host: registry.host, repository });
}

async function conversion(program: string, args: readonly string[]): Promise<Conversion> {
  const directory = scratch.join(`run-${++runs}`);
  await mkdir(join(directory, "tmp"), { recursive: true });
  return { program, args, directory };
}

interface Ending {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs to the end, and does something while it runs. */
async function run({ program, args, directory }: Conversion, disturb?: (child: ChildProcess) => Promise<void>): Promise<Ending> {
  const env = { ...process.env, ...CLEAN_ENVIRONMENT, LAZYLAYER_DB_TYPE: "none", TMPDIR: join(directory, "tmp") };
  const child = spawn(program, args, { cwd: directory, env, stdio: ["ignore", "pipe", "pipe"] });
  const [stdout, stderr]: [Buffer[], Buffer[]] = [[], []];
  child.stdout.on("data", (chunk: Buffer) => stdout.push(chunk));
  child.stderr.on("data", (chunk: Buffer) => stderr.push(chunk));
  const ended = once(child, "close");
  try {
    await disturb?.(child);
  } finally {
    if (disturb && child.exitCode === null) child.kill("SIGCONT");
  }
  const [status] = (await ended) as [number | null];
  return { status, stdout: Buffer.concat(stdout).toString(), stderr: Buffer.concat(stderr).toString() };
}

/** Kills the registry when the condition holds. The program is held still meanwhile, so that it cannot get any further. */
async function killWhen(condition: () => boolean, child: ChildProcess): Promise<void> {
  for (const end = Date.now() + PATIENCE_MS; !condition(); await sleep(2)) {
    assert.equal(child.exitCode, null, "it ended before");
    assert.ok(Date.now() < end, "in vain");
  }
  await pause([child.pid!]);
  await registry.kill();
  resume([child.pid!]);
}

/** Bytes of the files below a directory whose paths match. */
function bytesIn(directory: string, pattern: RegExp): number {
  const files = entriesBelow(directory).filter((path) => pattern.test(path));
  return files.reduce((sum, path) => sum + (statSync(path, { throwIfNoEntry: false })?.size ?? 0), 0);
}

function entriesBelow(directory: string): string[] {
  while (existsSync(directory)) {
    try {
      return readdirSync(directory, { recursive: true, withFileTypes: true }).map((entry) => join(entry.parentPath, entry.name));
    } catch (error) {
      // The registry removes what it has finished while it is looked at.
      if (!(error instanceof Error && "code" in error && error.code === "ENOENT")) throw error;
    }
  }
  return [];
}

function repositoryDirectory(repository: string): string {
  return join(registry.directory, "docker/registry/v2/repositories", repository);
}

/** Dead half-way, it is named in an error, nothing is left or tagged; back again, the same call comes right. */
async function checkDeath(call: Conversion, repository: string, condition: () => boolean): Promise<void> {
  const { status, stdout, stderr } = await run(call, async (child) => await killWhen(condition, child));
  const lines = stderr.trimEnd().split("\n");
  assert.ok(lines.at(-1)!.includes(registry.host), stderr);
  assert.match(lines.at(-1)!, /connection (?:refused|failed)/);
  assert.doesNotMatch(stderr, /\n\s+at /);
  assert.deepEqual([status, stdout], [1, ""], stderr);
  assert.deepEqual(readdirSync(call.directory, { recursive: true }), ["tmp"], "no temporary files");
  assert.equal(existsSync(join(repositoryDirectory(repository), "_manifests/tags", TAG)), false, "no tag");
  await registry.restart();
  const again = await run(call);
  assert.equal(again.status, 0, again.stderr);
  const store = openRepository(repository);
  assert.equal((await store.resolve({ tag: TAG })).descriptor.digest, expected);
  await store.close();
}

/** A repository with the source image and nothing else. */
async function makeRepository(name: string): Promise<string> {
  await cp(repositoryDirectory("source"), repositoryDirectory(name), { recursive: true });
  return name;
}

const CALLS = [
  ["convertor", CONVERTOR, (repository: string) => ["-r", `${registry.host}/${repository}`, "-i", "v1", "-o", TAG]],
  [
    "lazylayer",
    LAZYLAYER,
    (repository: string) => ["convert", `${registry.host}/${repository}:v1`, `${registry.host}/${repository}:${TAG}`],
  ],
] as const;

for (const [name, program, args] of CALLS) {
  test(`a registry that dies while ${name} reads from it is named, and the next run comes right`, async () => {
    const repository = await makeRepository(`${name}-read`);
    const call = await conversion(program, args(repository));
    await checkDeath(call, repository, () => bytesIn(call.directory, /overlaybd\.commit$/) >= IMAGE_BYTES / 4);
  });

  test(`a registry that dies while ${name} pushes to it is named, and the next run comes right`, async () => {
    const repository = await makeRepository(`${name}-pushed`);
    const uploads = join(repositoryDirectory(repository), "_uploads");
    await checkDeath(await conversion(program, args(repository)), repository, () => bytesIn(uploads, /\/data$/) >= IMAGE_BYTES / 4);
  });
}
