import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { mkdir, writeFile } from "node:fs/promises";
import { after, before, beforeEach, test } from "node:test";
import { z } from "zod";
import { openLayoutStore } from "../../src/image-layout/layout-store.ts";
import { parseReference } from "../../src/oci/reference.ts";
import { openRegistryStore } from "../../src/registry/registry-store.ts";
import type { CommandResult } from "../support/command.ts";
import { startDockerRegistry, type DockerRegistry } from "../support/docker-registry.ts";
import { startHostileRegistry, type HostileRegistry } from "../support/hostile-registry.ts";
import { copyImage } from "../support/image-builder.ts";
import { copyImages, type ImagesLayout } from "../support/images.ts";
import { convertorInProcess, lazylayerInProcess } from "../support/in-process.ts";
import { lazylayer } from "../support/programs.ts";
import { unusedPort } from "../support/server-process.ts";
import { TemporaryDirectory } from "../support/temporary-directory.ts";

const layers = z.array(z.object({ outcome: z.string() }));
const document = z.object({
  digest: z.string(),
  images: z.array(z.object({ outcome: z.string(), layers })),
  bytes: z.record(z.string(), z.int()),
});

let images: ImagesLayout;
let registry: DockerRegistry;
let watched: HostileRegistry;
let scratch: TemporaryDirectory;
let source = "";

before(async () => {
  [images, registry] = await Promise.all([copyImages(), startDockerRegistry()]);
  watched = await startHostileRegistry(registry.host);
  source = `oci:${images.directory}:small-oci-v1`;
});

beforeEach(async () => {
  await scratch?.[Symbol.asyncDispose]();
  scratch = await TemporaryDirectory.create();
  watched.reset();
});

after(async () => {
  await scratch[Symbol.asyncDispose]();
  await watched.stop();
  await registry.stop();
  await images[Symbol.asyncDispose]();
});

async function convert(to: string, ...options: string[]): Promise<CommandResult> {
  return await lazylayerInProcess(["convert", source, to, "--output", "json", ...options], {
    cacheDirectory: scratch.join("cache"),
    temporaryDirectory: scratch.path,
  });
}

function documentOf({ status, stdout, stderr }: CommandResult): z.infer<typeof document> {
  assert.equal(status, 0, stderr);
  return document.parse(JSON.parse(stdout.toString()));
}

test("a second conversion finds the first one's result without being told, and sends nothing but a tag", async () => {
  const first = documentOf(await convert(`${watched.host}/hits:a`));
  assert.ok(existsSync(scratch.join("cache/conversions.sqlite")));
  const requests = watched.seen.length;
  watched.reset();

  const again = documentOf(await convert(`${watched.host}/hits:b`));
  assert.equal(again.digest, first.digest);
  assert.deepEqual([first.images[0].outcome, again.images[0].outcome], ["converted", "reused"]);
  assert.deepEqual(
    watched.seen.filter(({ method }) => method !== "GET" && method !== "HEAD").map(({ method, url }) => `${method} ${url}`),
    ["PUT /v2/hits/manifests/b"],
  );
  assert.ok(watched.seen.length < requests, `${watched.seen.length} requests, ${requests} before`);
  watched.reset();

  const types = documentOf(await convert(`${watched.host}/hits:c`, "--oci"));
  assert.deepEqual(new Set(types.images[0].layers.map(({ outcome }) => outcome)), new Set(["reused"]));
  assert.deepEqual([types.bytes["read"], types.bytes["sent"]], [0, 0]);

  const mounted = documentOf(await convert(`${watched.host}/neighbour:a`));
  assert.deepEqual(new Set(mounted.images[0].layers.map(({ outcome }) => outcome)), new Set(["mounted"]));

  const other = documentOf(await convert(`${watched.host}/hits:d`, "--vsize", "16"));
  assert.notEqual(other.digest, first.digest, "other options, other layers");
  assert.equal(other.images[0].outcome, "converted");
});

test("convertor finds what it converted before, and what is asked of it anew with --reserve is made anew", async () => {
  const place = { cacheDirectory: scratch.join("cache"), temporaryDirectory: scratch.path };
  const store = await openLayoutStore(images.directory);
  const reference = parseReference(`${registry.host}/drop-in`);
  assert.ok(reference.kind === "registry");
  const repository = openRegistryStore(reference);
  await copyImage(store, { tag: "small-oci-v1" }, repository, "v1");
  await repository.close();
  const call = ["-r", `${registry.host}/drop-in`, "-i", "v1", "--output", "json", "-d", scratch.join("tmp")];
  const outcomes: string[] = [];
  for (const options of [
    ["-o", "a"],
    ["-o", "b"],
    ["-o", "c", "--reserve"],
  ]) {
    outcomes.push(documentOf(await convertorInProcess([...call, ...options], place)).images[0].outcome);
  }
  assert.deepEqual(outcomes, ["converted", "reused", "converted"]);
});

test("nothing is remembered with --db-type none, in the environment as well, nor of what goes into a directory", async () => {
  documentOf(await convert(`${registry.host}/none:a`, "--db-type", "none"));
  documentOf(await convert(`oci:${scratch.join("out")}:a`));
  const env = { XDG_CACHE_HOME: scratch.join("cache"), HOME: scratch.path, LAZYLAYER_DB_TYPE: "none" };
  const { status, stderr } = await lazylayer(["convert", source, `${registry.host}/none:b`], { env });
  assert.equal(status, 0, stderr);
  assert.equal(existsSync(scratch.join("cache")), false);
});

test("a database that is down or damaged is one warning, and changes nothing else", async () => {
  const expected = documentOf(await convert(`${registry.host}/down:a`, "--db-type", "none")).digest;
  await mkdir(scratch.join("cache"));
  await writeFile(scratch.join("cache/conversions.sqlite"), "this is no database, whatever its name says".repeat(100));
  await writeFile(scratch.join("file"), "");
  const port = await unusedPort();
  const rows: [options: string[], expected: RegExp][] = [
    [["--db-type", "mysql", "--db-str", `me:secret@tcp(127.0.0.1:${port})/conv?timeout=2s`], /MySQL at .* cannot be reached/],
    [["--db-type", "postgres", "--db-str", `postgres://me:secret@127.0.0.1:${port}/conv`], /cannot be reached/],
    [[], /conversion database is damaged/],
    [["--db-type", "sqlite", "--db-str", scratch.join("file/below")], /conversion database/],
  ];
  for (const [options, reason] of rows) {
    const result = await convert(`${registry.host}/down:b`, ...options);
    assert.equal(documentOf(result).digest, expected);
    const [warning, summary, ...more] = result.stderr.trimEnd().split("\n");
    assert.match(warning, reason);
    assert.match(warning, /^warning: .*going on without the conversion database/);
    assert.match(summary, /^converted /);
    assert.deepEqual(more, []);
    assert.doesNotMatch(result.stderr, /secret/);
  }
});
