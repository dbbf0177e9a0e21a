import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { after, before, beforeEach, describe, it } from "node:test";
import { z } from "zod";
import { openLayoutStore } from "../../src/image-layout/layout-store.ts";
import { parseIndex } from "../../src/oci/index.ts";
import { parseManifest } from "../../src/oci/manifest.ts";
import { parseReference } from "../../src/oci/reference.ts";
import { openRegistryStore } from "../../src/registry/registry-store.ts";
import type { CommandResult } from "../support/command.ts";
import { startDockerRegistry, type DockerRegistry } from "../support/docker-registry.ts";
import { startHostileRegistry, type HostileRegistry } from "../support/hostile-registry.ts";
import { copyImage } from "../support/image-builder.ts";
import { copyImages, type ImagesLayout } from "../support/images.ts";
import { convertorInProcess, lazylayerInProcess, type InProcessOptions } from "../support/in-process.ts";
import { convertor } from "../support/programs.ts";
import { TemporaryDirectory } from "../support/temporary-directory.ts";

const DIGEST = /^sha256:[0-9a-f]{64}$/;
const digest = z.string().regex(DIGEST);
const bytes = z.strictObject({ read: z.int(), converted: z.int(), sent: z.int(), reused: z.int() });
/** As docs/cli.md promises it. */
const conversion = z.strictObject({
  digest,
  mediaType: z.string(),
  size: z.int(),
  reference: z.string(),
  format: z.enum(["overlaybd", "turbo"]),
  images: z.array(
    z.strictObject({
      platform: z.string().nullable(),
      source: digest,
      digest,
      outcome: z.enum(["converted", "reused", "copied"]),
      layers: z.array(
        z.strictObject({ source: digest, digest, size: z.int(), outcome: z.enum(["uploaded", "exists", "reused", "mounted", "kept"]) }),
      ),
    }),
  ),
  bytes,
  seconds: z.number(),
});
const planBytes = z.strictObject({ fetch: z.int(), convert: z.int(), reuse: z.int(), mount: z.int(), push: z.int() });
const plan = z.strictObject({
  reference: z.string(),
  format: z.enum(["overlaybd", "turbo"]),
  images: z.array(
    z.strictObject({
      platform: z.string().nullable(),
      source: digest,
      outcome: z.enum(["convert", "reuse", "copy"]),
      layers: z.array(
        z.strictObject({
          source: digest,
          sourceSize: z.int(),
          outcome: z.enum(["convert", "reuse", "mount"]),
          digest: digest.nullable(),
          size: z.int().nullable(),
        }),
      ),
      bytes: planBytes,
    }),
  ),
  bytes: planBytes,
  pushIsEstimate: z.boolean(),
});

let images: ImagesLayout;
let registry: DockerRegistry;
let watched: HostileRegistry;
let scratch: TemporaryDirectory;

before(async () => {
  [images, registry] = await Promise.all([copyImages(), startDockerRegistry()]);
  watched = await startHostileRegistry(registry.host);
  const reference = parseReference(`${registry.host}/app`);
  assert.ok(reference.kind === "registry");
  const store = openRegistryStore(reference);
  for (const tag of ["small-oci-v1", "multi-oci-v1"]) await copyImage(await openLayoutStore(images.directory), { tag }, store, tag);
  await store.close();
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

const inScratch = (options: InProcessOptions): InProcessOptions => ({
  cacheDirectory: scratch.join("cache"),
  temporaryDirectory: scratch.path,
  ...options,
});

async function convert(args: readonly string[], options: InProcessOptions = {}): Promise<CommandResult> {
  return await lazylayerInProcess(["convert", ...args], inScratch(options));
}

function printed({ status, stdout, stderr }: CommandResult): string {
  assert.equal(status, 0, stderr);
  return stdout.toString();
}

async function tagsOf(repository: string): Promise<string[]> {
  const response = await fetch(`http://${registry.host}/v2/${repository}/tags/list`);
  return z.object({ tags: z.array(z.string()).nullish() }).parse(await response.json()).tags ?? [];
}

describe("what goes to standard output and standard error", () => {
  it("is one JSON document with --output json, from both programs", async () => {
    const target = `${registry.host}/json:a`;
    const result = conversion.parse(
      JSON.parse(printed(await convert([`oci:${images.directory}:multi-oci-v1`, target, "--db-type", "none", "--output", "json"]))),
    );
    assert.deepEqual([result.reference, result.format], [target, "overlaybd"]);
    assert.deepEqual(
      result.images.map(({ platform, outcome }) => [platform, outcome]),
      [
        ["linux/amd64", "converted"],
        ["linux/arm64/v8", "converted"],
      ],
    );
    const layers = result.images.flatMap((image) => image.layers);
    const uploaded = layers.filter(({ outcome }) => outcome === "uploaded").reduce((sum, { size }) => sum + size, 0);
    assert.equal(result.bytes.sent, uploaded);
    assert.ok(result.bytes.read > 0 && result.bytes.converted >= uploaded && result.seconds > 0);

    const there = await convertorInProcess(
      ["-r", `${registry.host}/app`, "-i", "small-oci-v1", "-o", "x", "--output", "json", "--no-upload", "-d", scratch.join("t")],
      inScratch({}),
    );
    const kept = conversion.parse(JSON.parse(printed(there)));
    assert.deepEqual([kept.images[0].platform, kept.bytes.sent], [null, 0]);
    assert.deepEqual(new Set(kept.images[0].layers.map(({ outcome }) => outcome)), new Set(["kept"]));
    assert.match(there.stderr, new RegExp(`^converted, not pushed, digest: "${kept.digest}", in `));
  });

  it("is a document, or a digest, on a line for each result", async () => {
    const targets = ["a", "b"].map((tag) => `oci:${scratch.join("out")}:${tag}`);
    const call = [`oci:${images.directory}:small-oci-v1`, ...targets, "--to", "overlaybd,turbo"];
    const lines = printed(await convert([...call, "--output", "json"]))
      .trimEnd()
      .split("\n");
    const documents = lines.map((line) => conversion.parse(JSON.parse(line)));
    assert.deepEqual(
      documents.map(({ reference, format }) => [reference, format]),
      [
        [targets[0], "overlaybd"],
        [targets[1], "turbo"],
      ],
    );
    assert.equal(printed(await convert(call)), documents.map((document) => `${document.digest}\n`).join(""));
    const plans = printed(await convert([...call, "--dry-run", "--output", "json"])).trimEnd();
    assert.deepEqual(
      plans.split("\n").map((line) => plan.parse(JSON.parse(line)).format),
      ["overlaybd", "turbo"],
    );
  });

  it("is a digest alone, and a line for people", async () => {
    const target = `oci:${scratch.join("out")}:x`;
    const { stdout, stderr } = await convert([`oci:${images.directory}:small-oci-v1`, target]);
    assert.match(stdout.toString().trimEnd(), DIGEST);
    assert.match(stderr, /^converted oci:.*:small-oci-v1 to oci:.*out:x in \d+\.\d s\n$/);
  });

  it("is nothing but the result with --quiet, in color only on a terminal, and JSON lines if that is wanted", async () => {
    const call = [`oci:${images.directory}:small-oci-v1`, `oci:${scratch.join("out")}:x`];
    assert.equal((await convert([...call, "--quiet"])).stderr, "");
    assert.equal((await convert([...call, "--progress", "none"])).stderr, "");
    const lines = (await convert([...call, "--progress", "json"])).stderr.trimEnd().split("\n");
    const events = lines.map((line) => z.looseObject({ event: z.string() }).parse(JSON.parse(line)).event);
    assert.deepEqual([events[0], events.at(-2), events.at(-1)], ["image", "totals", "summary"]);
    assert.equal(events.filter((event) => event === "image-done").length, 1);
    const terminal = await convert(call, { terminal: { interactive: true, color: true } });
    assert.match(terminal.stderr, /converted oci:.* in \d+\.\d s\n$/);
    const failed = await convert(["oci:/nonexistent:x", call[1], "--quiet"]);
    assert.deepEqual([failed.status, failed.stderr], [1, "lazylayer: /nonexistent: does not exist\n"]);
  });

  it("has no escape sequences where there is no terminal", async () => {
    const { stderr } = await convertor(["-r", `${registry.host}/app`, "-i", "small-oci-v1", "-o", "plain", "--verbose"], {
      cwd: scratch.path,
      env: { CI: "true", FORCE_COLOR: "1" },
    });
    assert.ok(!stderr.includes("\u001b") && stderr.includes("layer 2 "), stderr);
  });
});

describe("--dry-run", () => {
  it("says what would be done, and does nothing of it", async () => {
    const source = `${watched.host}/app:multi-oci-v1`;
    const call = [source, `${watched.host}/dry/run:x`, "--dry-run"];
    const document = plan.parse(JSON.parse(printed(await convert([...call, "--output", "json"]))));
    assert.deepEqual([document.images.length, document.pushIsEstimate, document.reference], [2, true, `${watched.host}/dry/run:x`]);
    const { fetch: fetched, convert: converted, push, reuse, mount } = document.bytes;
    assert.ok(fetched > 0 && fetched === converted && push > converted && mount === 0);
    const shared = document.images[1].layers.filter(({ outcome }) => outcome === "reuse").length;
    assert.equal(reuse > 0, shared > 0);

    const { stdout, stderr } = await convert(call);
    const table = stdout.toString().trimEnd().split("\n");
    assert.match(table[0], /^image +outcome +fetch +convert +reuse +mount +push$/);
    assert.match(table[1], /^linux\/amd64 [0-9a-f]{12} +convert +[\d.]+ [kM]B +[\d.]+ [kM]B +0 B +0 B +about [\d.]+ [kM]B$/);
    assert.match(table[3], /^in total .* about [\d.]+ [kM]B$/);
    assert.match(table[4], /^about: .* 1\.6 times/);
    assert.equal(stderr, "dry run: nothing was converted, pushed or remembered\n");
    assert.deepEqual(
      watched.seen.filter(({ method }) => method !== "GET" && method !== "HEAD"),
      [],
    );
    assert.deepEqual(await tagsOf("dry/run"), []);
  });

  it("knows what was converted before", async () => {
    const call = ["-r", `${registry.host}/app`, "-i", "small-oci-v1", "-o", "again", "-d", scratch.join("tmp")];
    printed(await convertorInProcess(call, inScratch({})));
    const known = plan.parse(JSON.parse(printed(await convertorInProcess([...call, "--dry-run", "--output=json"], inScratch({})))));
    assert.deepEqual([known.images[0].outcome, known.pushIsEstimate, known.bytes.push], ["reuse", false, 0]);
    const other = await convertorInProcess([...call, "--oci", "--dry-run"], inScratch({}));
    assert.match(printed(other), /convert +0 B +0 B +[\d.]+ [kM]B +0 B +0 B\n/);
    assert.equal(existsSync(scratch.join("tmp")), false);
  });
});

describe("where the result goes", () => {
  it("is the source's tag and a suffix", async () => {
    const source = `oci:${images.directory}:small-oci-v1`;
    const expected = printed(await convert([source, `${registry.host}/suffix`, "--tag-suffix", "_obd", "--db-type", "none"]));
    assert.deepEqual(await tagsOf("suffix"), ["small-oci-v1_obd"]);
    const { stdout, stderr } = await convert([`${registry.host}/app:small-oci-v1`, "--tag-suffix=-same", "--db-type", "none"]);
    assert.equal(stdout.toString(), expected);
    assert.match(stderr, /to 127\.0\.0\.1:\d+\/app:small-oci-v1-same in/);
    assert.equal(printed(await convert([source, `oci:${scratch.join("out")}`, "--tag-suffix=.1"])), expected);
    const store = await openLayoutStore(scratch.join("out"));
    assert.equal(`${(await store.resolve({ tag: "small-oci-v1.1" })).descriptor.digest}\n`, expected);
  });

  it("is the source's own tag only with --force", async () => {
    const call = ["-r", `${registry.host}/forced`, "-i", "v", "-o", "v", "-d", scratch.join("tmp"), "--db-type=none"];
    printed(await convert([`oci:${images.directory}:small-oci-hardlink-lower`, `${registry.host}/forced:other`, "--db-type=none"]));
    const reference = parseReference(`${registry.host}/forced`);
    assert.ok(reference.kind === "registry");
    const store = openRegistryStore(reference);
    await copyImage(await openLayoutStore(images.directory), { tag: "small-oci-hardlink-lower" }, store, "v");
    const before = (await store.resolve({ tag: "v" })).descriptor.digest;
    const refused = await convertorInProcess(call, inScratch({}));
    assert.deepEqual([refused.status, (await store.resolve({ tag: "v" })).descriptor.digest], [2, before]);
    const forced = await convertorInProcess([...call, "--force"], inScratch({}));
    const after = (await store.resolve({ tag: "v" })).descriptor.digest;
    assert.equal(forced.status, 0, forced.stderr);
    assert.ok(after !== before && forced.stderr.includes(after));
    await store.close();
  });
});

describe("what the result is", () => {
  it("is a referrer of its source, in OCI types, with --referrer", async () => {
    const out = scratch.join("out");
    printed(await convert([`oci:${images.directory}:multi-docker-v1`, `oci:${out}:x`, "--referrer"]));
    const store = await openLayoutStore(out);
    const source = await (await openLayoutStore(images.directory)).resolve({ tag: "multi-docker-v1" });
    const { descriptor, bytes: document } = await store.resolve({ tag: "x" });
    const index = parseIndex(document, descriptor.mediaType, "x");
    assert.equal(z.object({ subject: z.object({ digest }) }).parse(index).subject.digest, source.descriptor.digest);
    const manifest = parseManifest(await store.manifest(index.manifests[0]), index.manifests[0].mediaType, "amd64");
    assert.match(manifest.mediaType ?? "", /^application\/vnd\.oci\./);
    assert.match(z.object({ artifactType: z.string() }).parse(manifest).artifactType, /overlaybd\.native/);
  });

  it("has the images for the platforms that were asked for, also from convertor", async () => {
    const call = ["-r", `${registry.host}/app`, "-i", "multi-oci-v1", "-o", "arm", "--db-type=none", "-d", scratch.join("tmp")];
    const result = await convertorInProcess([...call, "--platform", "linux/arm64", "--output", "json"], inScratch({}));
    assert.deepEqual(
      conversion.parse(JSON.parse(printed(result))).images.map(({ platform }) => platform),
      ["linux/arm64/v8"],
    );
  });

  it("is not there after a registry that fails more often than --retry allows", async () => {
    const call = ["-r", `${watched.host}/app`, "-i", "small-oci-v1", "-o", "retried", "-d", scratch.join("tmp"), "--db-type=none"];
    const failing = (times: number): void =>
      watched.inject(({ url }) => (url.includes("/manifests/small-oci-v1") ? { kind: "answer", status: 503 } : undefined), times);
    failing(2);
    const refused = await convertorInProcess([...call, "--retry", "0"], inScratch({}));
    assert.match(refused.stderr, /503/);
    assert.equal(refused.status, 1);
    watched.reset();
    failing(1);
    const patient = await convertorInProcess([...call, "--retry", "1"], inScratch({}));
    assert.match(patient.stderr, /503.*; trying again in .* s\n/);
    assert.equal(patient.status, 0, patient.stderr);
    assert.deepEqual(await readdir(scratch.path), []);
  });
});
