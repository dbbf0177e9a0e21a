import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { after, before, beforeEach, test } from "node:test";
import { LazyError } from "../../src/errors.ts";
import { openLayoutStore } from "../../src/image-layout/layout-store.ts";
import { parseReference } from "../../src/oci/reference.ts";
import { openRegistryStore } from "../../src/registry/registry-store.ts";
import { convertInto, convertOptions } from "../support/convert.ts";
import { startDockerRegistry, type DockerRegistry } from "../support/docker-registry.ts";
import { startHostileRegistry, type Fault, type HostileRegistry, type SeenRequest } from "../support/hostile-registry.ts";
import { copyImage } from "../support/image-builder.ts";
import { copyImages } from "../support/images.ts";
import { lazylayer } from "../support/programs.ts";
import { TemporaryDirectory } from "../support/temporary-directory.ts";

const LAYER = "a0f179cc75f0484b3eeb5352bfc557b399f88061320cbecaaeb41a5187ec6abb";
const CONFIG = "cb9619edff106cca0eada1c95ece23662d7a494f15c4c9bc5e24aaa385a8329d";
const FOREVER = 1000;

let scratch: TemporaryDirectory;
let registry: DockerRegistry;
let hostile: HostileRegistry;
let expected = "";

before(async () => {
  scratch = await TemporaryDirectory.create();
  registry = await startDockerRegistry();
  hostile = await startHostileRegistry(registry.host);
  await using images = await copyImages();
  const store = openStore(registry.host, "source");
  await copyImage(await openLayoutStore(images.directory), { tag: "small-oci-v1" }, store, "v1");
  await store.close();
  expected = await convert("plain");
});

beforeEach(() => hostile.reset());

after(async () => {
  await hostile.stop();
  await registry.stop();
  await scratch[Symbol.asyncDispose]();
});

function openStore(host: string, repository: string): ReturnType<typeof openRegistryStore> {
  const reference = parseReference(`${host}/${repository}`);
  assert.ok(reference.kind === "registry");
  const timeouts = { connectMs: 2000, answerMs: 1000, stallMs: 300 };
  return openRegistryStore(reference, { retry: { tries: 4, firstDelayMs: 1, maxRetryAfterMs: 2000 }, timeouts });
}

/** Converts the image in this process, from and to the hostile registry, into a repository of its own. */
async function convert(repository: string): Promise<string> {
  const [source, destination] = [openStore(hostile.host, "source"), openStore(hostile.host, repository)];
  const directory = scratch.join(repository);
  try {
    const result = await convertInto(source, { tag: "v1" }, destination, "v1", convertOptions(directory));
    return result.descriptor.digest;
  } finally {
    assert.equal(existsSync(directory), false, "temporary data is gone");
    await Promise.all([source.close(), destination.close()]);
  }
}

async function isTagged(repository: string): Promise<boolean> {
  const store = openStore(registry.host, repository);
  try {
    await store.resolve({ tag: "v1" });
    return true;
  } catch (error) {
    assert.ok(error instanceof LazyError && error.code === "NOT_FOUND", String(error));
    return false;
  } finally {
    await store.close();
  }
}

function on(method: string, part: string, fault: Fault): (request: SeenRequest) => Fault | undefined {
  return (request) => (request.method === method && request.url.includes(part) ? fault : undefined);
}

const PASSING: readonly (readonly [name: string, fault: (request: SeenRequest) => Fault | undefined, times?: number])[] = [
  ["asks to wait", on("GET", LAYER, { kind: "answer", status: 429, headers: { "retry-after": "0" } })],
  ["has a bad moment", on("GET", LAYER, { kind: "answer", status: 503 }), 2],
  ["fails at the manifest", on("GET", "/manifests/v1", { kind: "answer", status: 500 })],
  ["cuts a layer off", on("GET", LAYER, { kind: "truncate", afterBytes: 100_000 })],
  ["cuts a layer off again and again", on("GET", LAYER, { kind: "truncate", afterBytes: 400_000 }), 3],
  ["resets the connection", on("GET", LAYER, { kind: "reset" })],
  ["stops in the middle", on("GET", LAYER, { kind: "stall", afterBytes: 50_000 })],
  ["fails when the upload starts", on("POST", "/uploads/", { kind: "answer", status: 502 })],
  ["fails when the upload ends", on("PUT", "/uploads/", { kind: "answer", status: 500 })],
  ["breaks an upload", on("PUT", "/uploads/", { kind: "resetUpload", afterBytes: 10_000 })],
  ["fails when the tag is set", on("PUT", "/manifests/v1", { kind: "answer", status: 503 })],
];

for (const [at, [name, fault, times]] of PASSING.entries()) {
  test(`a registry that ${name} holds a conversion up, no more`, async () => {
    hostile.inject(fault, times);
    assert.equal(await convert(`passing-${at}`), expected);
    assert.ok(await isTagged(`passing-${at}`));
  });
}

const FINAL: readonly (readonly [name: string, fault: (request: SeenRequest) => Fault | undefined, code: string, message: RegExp])[] = [
  ["has lost a layer", on("GET", LAYER, { kind: "answer", status: 404 }), "NOT_FOUND", /blob sha256:a0f179cc/],
  ["forbids a layer", on("GET", LAYER, { kind: "answer", status: 403 }), "DENIED", /403|denied|not allowed/i],
  ["sends a wrong layer", on("GET", LAYER, { kind: "corrupt", at: 5000 }), "CORRUPT", /a0f179cc/],
  ["sends a wrong config", on("GET", CONFIG, { kind: "corrupt", at: 50 }), "CORRUPT", /digest/],
  ["always fails", on("GET", LAYER, { kind: "answer", status: 500 }), "UNAVAILABLE", /500/],
  ["always stops", on("GET", LAYER, { kind: "stall", afterBytes: 0 }), "UNAVAILABLE", /a0f179cc/],
  ["vanishes", on("GET", "/", { kind: "reset" }), "UNAVAILABLE", /127\.0\.0\.1/],
  [
    "asks to wait for an hour",
    on("GET", LAYER, { kind: "answer", status: 429, headers: { "retry-after": "3600" } }),
    "UNAVAILABLE",
    /429|too many/i,
  ],
  ["forbids uploads", on("POST", "/uploads/", { kind: "answer", status: 403 }), "DENIED", /403|denied|not allowed/i],
  ["refuses blobs", on("PUT", "/uploads/", { kind: "answer", status: 400 }), "", /400/],
  [
    "finds every blob too large",
    (request) => (request.method === "PUT" || request.method === "PATCH" ? { kind: "answer", status: 413 } : undefined),
    "",
    /413/,
  ],
  ["has no room", on("PUT", "/uploads/", { kind: "answer", status: 507 }), "", /507/],
  ["refuses the manifest", on("PUT", "/manifests/", { kind: "answer", status: 400 }), "", /400/],
];

for (const [at, [name, fault, code, message]] of FINAL.entries()) {
  test(`a registry that ${name} ends a conversion with an error, and no tag appears`, async () => {
    hostile.inject(fault, FOREVER);
    await assert.rejects(convert(`final-${at}`), (error) => {
      assert.ok(error instanceof LazyError, String(error));
      assert.match(error.message, message);
      if (code !== "") assert.equal(error.code, code, error.message);
      return true;
    });
    assert.equal(await isTagged(`final-${at}`), false);
  });
}

test("a conversion that fails leaves a tag where it was", async () => {
  const before = await convert("moved");
  hostile.inject(on("PUT", "/uploads/", { kind: "answer", status: 500 }), FOREVER);
  hostile.inject(on("HEAD", "/blobs/", { kind: "answer", status: 404 }), FOREVER);
  await assert.rejects(convert("moved"));
  const store = openStore(registry.host, "moved");
  assert.equal((await store.resolve({ tag: "v1" })).descriptor.digest, before);
  await store.close();
});

test("the command says in a line what the registry did, and exits with 1", async () => {
  hostile.inject(on("GET", LAYER, { kind: "corrupt", at: 5000 }), FOREVER);
  const { status, stdout, stderr } = await lazylayer(["convert", `${hostile.host}/source:v1`, `${hostile.host}/command:v1`]);
  assert.match(stderr, /^lazylayer: .*a0f179cc.*\n$/);
  assert.deepEqual([status, stdout.toString()], [1, ""]);
});

test("ls, cat and verify refuse the whole blob in place of a range, damaged ranges and missing blobs", async () => {
  assert.equal(await convert("ranges"), expected);
  const image = `${hostile.host}/ranges:v1`;
  const ranges = (fault: Fault) => (request: SeenRequest) => (request.headers["range"] === undefined ? undefined : fault);
  const faults: [fault: Fault, expected: RegExp][] = [
    [{ kind: "ignoreRange" }, /range/i],
    [{ kind: "answer", status: 404 }, /blob sha256:/],
    [{ kind: "corrupt", at: 1600 }, /expected|is|crc/i],
  ];
  for (const [fault, pattern] of faults) {
    for (const args of [
      ["ls", image],
      ["cat", image, "/etc/passwd"],
      ["verify", `${registry.host}/source:v1`, image],
    ]) {
      hostile.reset();
      hostile.inject(ranges(fault), FOREVER);
      const { status, stdout, stderr } = await lazylayer(args);
      assert.match(stderr, pattern, args[0]);
      assert.doesNotMatch(stderr, /unexpected error/);
      assert.deepEqual([status, stdout.toString()], [1, ""], `${args[0]}: ${stderr}`);
    }
  }
});
