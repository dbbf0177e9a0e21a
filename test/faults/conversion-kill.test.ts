import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createCipheriv } from "node:crypto";
import { once } from "node:events";
import { existsSync, readdirSync } from "node:fs";
import { cp, mkdir } from "node:fs/promises";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { after, before, describe, it } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { LazyError } from "../../src/errors.ts";
import { openLayoutStore } from "../../src/image-layout/layout-store.ts";
import type { ImageStore } from "../../src/oci/image-store.ts";
import { parseManifest } from "../../src/oci/manifest.ts";
import { openRegistryStore } from "../../src/registry/registry-store.ts";
import { execute, type CommandResult } from "../support/command.ts";
import { startDockerRegistry, type DockerRegistry } from "../support/docker-registry.ts";
import { copyImage, layerOf, writeImage } from "../support/image-builder.ts";
import { CLEAN_ENVIRONMENT, CONVERTOR, LAZYLAYER } from "../support/programs.ts";
import { TemporaryDirectory } from "../support/temporary-directory.ts";

const KILLS = 50;
/** Runs that are killed and run again at the same time. */
const CONCURRENCY = 2;
const SEED = Math.floor(Math.random() * 2 ** 32);
/** The sizes of layers: one that goes through a file, as it is more than what is held in memory, one that does not, and many to be remembered. */
const SOURCES = { large: [68_000_000, 1], many: Array.from({ length: 15 }, () => 5000), small: [1_000_000, 1] };
const TAG = "converted";
const DATABASE = "conversions.sqlite";

/** One conversion: a directory of its own, with `tmp` for temporary data, and a repository of its own, which holds the source image. */
interface Place {
  readonly directory: string;
  readonly repository: string;
}

interface Call {
  readonly name: string;
  readonly program: string;
  readonly source: keyof typeof SOURCES;
  readonly isPushed: boolean;
  /** It has a conversion database, in `known` of its place. */
  readonly isRemembered?: boolean;
  readonly args: (place: Place) => string[];
  readonly openDestination: (place: Place) => Promise<ImageStore>;
}

const CALLS: readonly Call[] = [
  {
    name: "convertor",
    program: CONVERTOR,
    source: "large",
    isPushed: true,
    args: ({ directory, repository }) => ["-r", `${registry.host}/${repository}`, "-i", "large", "-o", TAG, "-d", join(directory, "tmp")],
    openDestination: async ({ repository }) => openRepository(repository),
  },
  {
    name: "lazylayer convert to a registry",
    program: LAZYLAYER,
    source: "small",
    isPushed: true,
    args: ({ repository }) => ["convert", `oci:${layout}:small`, `${registry.host}/${repository}:${TAG}`],
    openDestination: async ({ repository }) => openRepository(repository),
  },
  {
    name: "lazylayer convert with a conversion database",
    program: LAZYLAYER,
    source: "many",
    isPushed: true,
    isRemembered: true,
    args: ({ directory, repository }) => [
      "convert",
      `oci:${layout}:many`,
      `${registry.host}/${repository}:${TAG}`,
      "--db-type",
      "sqlite",
      "--db-str",
      join(directory, "known", DATABASE),
    ],
    openDestination: async ({ repository }) => openRepository(repository),
  },
  {
    name: "lazylayer convert to a directory",
    program: LAZYLAYER,
    source: "small",
    isPushed: false,
    args: ({ directory }) => ["convert", `oci:${layout}:small`, `oci:${join(directory, "layout")}:${TAG}`],
    openDestination: async ({ directory }) => await openLayoutStore(join(directory, "layout"), { create: true }),
  },
];

let scratch: TemporaryDirectory;
let registry: DockerRegistry;
let layout = "";
let places = 0;
let killed = 0;
let copies = 0;
/** What an undisturbed run makes of each source, and how long it takes. */
const expected = new Map<Call["source"], string | undefined>();
const durations = new Map<Call, number>();

before(async () => {
  scratch = await TemporaryDirectory.create();
  registry = await startDockerRegistry();
  layout = scratch.join("source");
  const noise = createCipheriv("aes-256-ctr", Buffer.alloc(32), Buffer.alloc(16));
  const store = openRepository("source");
  for (const [tag, sizes] of Object.entries(SOURCES)) {
    const layers = sizes.map((bytes, at) => layerOf([{ name: `noise-${at}`, data: noise.update(Buffer.alloc(bytes)) }]));
    await writeImage(layout, tag, { layers });
    await copyImage(await openLayoutStore(layout), { tag }, store, tag);
  }
  await store.close();
  for (const call of CALLS) {
    const place = await makePlace();
    const start = performance.now();
    const result = await run(call, place);
    durations.set(call, performance.now() - start);
    expected.set(call.source, expected.get(call.source) ?? (await destinationDigest(call, place)));
    await assertConverted(call, place, result, []);
  }
});

after(async () => {
  await registry.stop();
  await scratch[Symbol.asyncDispose]();
});

function openRepository(repository: string): ImageStore {
  return openRegistryStore({ kind: "registry", host: registry.host, repository });
}

function repositories(...names: string[]): string {
  return join(registry.directory, "docker/registry/v2/repositories", ...names);
}

async function makePlace(): Promise<Place> {
  const name = `place-${++places}`;
  const directory = scratch.join(name);
  await mkdir(join(directory, "tmp"), { recursive: true });
  await cp(repositories("source"), repositories(name), { recursive: true });
  return { directory, repository: name };
}

function environment({ directory }: Place): Record<string, string> {
  const own = { TMPDIR: join(directory, "tmp"), XDG_CACHE_HOME: join(directory, "cache"), LAZYLAYER_DB_TYPE: "none" };
  return { ...CLEAN_ENVIRONMENT, ...own };
}

async function run({ program, args }: Call, place: Place): Promise<CommandResult> {
  return await execute(program, args(place), { cwd: place.directory, env: environment(place) });
}

/** Runs the program for that long at most. */
async function runAndKill({ program, args }: Call, place: Place, milliseconds: number): Promise<void> {
  const env = { ...process.env, ...environment(place) };
  const child = spawn(program, args(place), { cwd: place.directory, env, stdio: "ignore" });
  const ended = once(child, "exit");
  const abandon = new AbortController();
  await Promise.race([ended, sleep(milliseconds, undefined, { signal: abandon.signal }).catch(() => undefined)]);
  abandon.abort();
  child.kill("SIGKILL");
  const [, signal] = (await ended) as [number | null, NodeJS.Signals | null];
  if (signal === "SIGKILL") killed++;
}

/** Undefined if there is no such tag. */
async function destinationDigest(call: Call, place: Place): Promise<string | undefined> {
  const store = await call.openDestination(place);
  try {
    return (await store.resolve({ tag: TAG })).descriptor.digest;
  } catch (error) {
    assert.ok(error instanceof LazyError && error.code === "NOT_FOUND", String(error));
    return undefined;
  } finally {
    await store.close();
  }
}

/** Reads the whole image; the store holds each blob against its digest. */
async function readImage(call: Call, place: Place): Promise<void> {
  const store = await call.openDestination(place);
  const { bytes, descriptor } = await store.resolve({ tag: TAG });
  const { config, layers } = parseManifest(bytes, descriptor.mediaType, TAG);
  await store.blob(config);
  for (const layer of layers) for await (const _ of store.blobStream(layer));
  await store.close();
}

function tagsOf({ repository }: Place): string[] {
  return readdirSync(repositories(repository, "_manifests/tags"));
}

/** Files that are no result, as paths within the place. */
function temporaryFiles({ directory }: Place): string[] {
  const entries = readdirSync(directory, { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name).slice(directory.length + 1));
  return files.filter(
    (path) => !/^layout\/(?:oci-layout|index\.json|blobs\/sha256\/[0-9a-f]{64})$|^known\/conversions\.sqlite(?:-wal|-shm)?$/.test(path),
  );
}

async function assertConverted(call: Call, place: Place, { status, stderr }: CommandResult, leftBefore: readonly string[]): Promise<void> {
  assert.equal(status, 0, stderr);
  assert.equal(await destinationDigest(call, place), expected.get(call.source));
  await readImage(call, place);
  assert.deepEqual(
    temporaryFiles(place).filter((path) => !leftBefore.includes(path)),
    [],
    "no temporary files of this run",
  );
}

/** What the conversion database says that images were converted to; it must be sound. Looks at a copy, to repair nothing. */
async function rememberedImages({ directory }: Place): Promise<unknown[]> {
  if (!existsSync(join(directory, "known", DATABASE))) return [];
  const copy = scratch.join(`copy-${++copies}`);
  await cp(join(directory, "known"), copy, { recursive: true });
  using database = new DatabaseSync(join(copy, DATABASE));
  assert.deepEqual({ ...database.prepare("pragma integrity_check").get() }, { integrity_check: "ok" });
  if (database.prepare("select 1 from sqlite_schema where name = 'lazylayer_conversions'").get() === undefined) return [];
  const rows = database.prepare("select converted_digest from lazylayer_conversions where kind = 'manifest'").all();
  return rows.map((row) => row["converted_digest"]);
}

/** Numbers from 0 to 1, by a linear congruential generator (Numerical Recipes). */
function* randomNumbers(seed: number): Generator<number, never> {
  for (let state = seed; ;) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    yield state / 2 ** 32;
  }
}

async function checkKill(call: Call, fraction: number): Promise<void> {
  const place = await makePlace();
  await runAndKill(call, place, fraction * durations.get(call)!);
  const digest = await destinationDigest(call, place);
  if (digest !== undefined) {
    assert.equal(digest, expected.get(call.source), "the tag is on the right image or absent");
    await readImage(call, place);
  }
  if (call.isRemembered) assert.ok((await rememberedImages(place)).every((one) => one === expected.get(call.source)));
  assert.deepEqual(tagsOf(place), [...(digest !== undefined && call.isPushed ? [TAG] : []), ...Object.keys(SOURCES)]);
  const left = temporaryFiles(place);
  await assertConverted(call, place, await run(call, place), left);
  if (call.isRemembered) assert.deepEqual(await rememberedImages(place), [expected.get(call.source)]);
}

describe(`killed at some moment (seed ${SEED})`, { concurrency: CONCURRENCY }, () => {
  const random = randomNumbers(SEED);
  for (let kill = 0; kill < KILLS; kill++) {
    const call = CALLS[kill % CALLS.length];
    // One moment in each of as many equal parts of the run.
    const fraction = (kill + random.next().value) / KILLS;
    it(`${call.name} after ${(fraction * 100).toFixed(1)} % of its time: run again, it comes right`, async () =>
      await checkKill(call, fraction));
  }
});

it("most of them were still running", () => {
  assert.ok(killed > KILLS / 4, `${killed} of ${KILLS}`);
});
