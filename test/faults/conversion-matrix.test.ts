import assert from "node:assert/strict";
import { createCipheriv, createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { cp } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, it, test } from "node:test";
import { LazyError } from "../../src/errors.ts";
import { openLayoutStore } from "../../src/image-layout/layout-store.ts";
import { encodeJson } from "../../src/oci/json.ts";
import { OCI_INDEX } from "../../src/oci/media-types.ts";
import { openRegistryStore } from "../../src/registry/registry-store.ts";
import type { Pause } from "../../src/registry/retry.ts";
import { FAULT_ROWS, FREE_TEXT, type FaultRow, type Outcome, type RequestKind } from "../support/conversion-faults.ts";
import { convertStores } from "../support/convert.ts";
import { startDockerRegistry, type DockerRegistry } from "../support/docker-registry.ts";
import { startHostileRegistry, type HostileRegistry, type SeenRequest } from "../support/hostile-registry.ts";
import { copyImage, layerOf, writeImage } from "../support/image-builder.ts";
import { TemporaryDirectory } from "../support/temporary-directory.ts";

type ImageName = "image" | "index";

/** A moment of a conversion: one of the requests that it makes. */
interface Stage {
  readonly name: string;
  readonly image: ImageName;
  readonly kind: RequestKind;
  /** As `requestClass` names it. */
  readonly requests: string;
  /** Which one, of several of a class. */
  readonly which: "first" | "last";
  /** Whether the repository has an image already; undefined if that makes no difference. */
  readonly isUsed: boolean | undefined;
}

const STAGES: readonly Stage[] = [
  stage("the manifest is read", "image", "read document", "GET by tag"),
  stage("the config is read", "image", "read document", "GET config"),
  stage("the first layer is read", "image", "read layer", "GET layer"),
  stage("the last layer is read", "image", "read layer", "GET layer", "last"),
  stage("the registry is asked for tags", "image", "look for tags", "GET tags"),
  stage("the registry is asked for a layer", "image", "look for blob", "HEAD blob", "first", true),
  stage("the registry is asked for the config", "image", "look for blob", "HEAD blob", "last"),
  stage("the upload of a layer starts", "image", "start upload", "POST upload"),
  stage("the upload of the config starts", "image", "start upload", "POST upload", "last"),
  stage("a layer is uploaded", "image", "upload", "PUT upload", "first", true),
  stage("a layer is uploaded that nobody has hashed", "image", "send content", "PATCH upload", "first", false),
  stage("the digest of a layer is sent", "image", "send digest", "PUT upload", "first", false),
  stage("the config is uploaded", "image", "upload", "PUT upload", "last"),
  stage("the tag is set", "image", "store document", "PUT by tag"),
  stage("the first manifest of an index is read", "index", "read document", "GET by digest"),
  stage("the last manifest of an index is read", "index", "read document", "GET by digest", "last"),
  stage("the last layer of an index is read", "index", "read layer", "GET layer", "last"),
  stage("the last blob of an index is uploaded", "index", "upload", "PUT upload", "last", true),
  stage("the first manifest of an index is stored", "index", "store document", "PUT by digest"),
  stage("the last manifest of an index is stored", "index", "store document", "PUT by digest", "last"),
  stage("the tag of an index is set", "index", "store document", "PUT by tag"),
];
const FOREVER = Number.MAX_SAFE_INTEGER;
/** Conversions at once: most of the time one of them waits. */
const CONCURRENCY = 16;
const SHORT_MS = 600;
const LONG_MS = 30_000;

let scratch: TemporaryDirectory;
let registry: DockerRegistry;
let configs: ReadonlySet<string>;
let previous = "";
let cases = 0;
const expected: Record<ImageName, string> = { image: "", index: "" };
/** What is asked of a repository with an image, and of one without. */
const recorded: Record<ImageName, Record<"used" | "vacant", string[]>> = {
  image: { used: [], vacant: [] },
  index: { used: [], vacant: [] },
};

function stage(
  name: string,
  image: ImageName,
  kind: RequestKind,
  requests: string,
  which: Stage["which"] = "first",
  isUsed?: boolean,
): Stage {
  return { name, image, kind, requests, which, isUsed };
}

before(async () => {
  scratch = await TemporaryDirectory.create();
  registry = await startDockerRegistry();
  configs = await pushSources();
  await using front = await startHostileRegistry(registry.host);
  previous = await convert(front, "other", "previous");
  for (const image of ["image", "index"] as const) {
    for (const state of ["used", "vacant"] as const) {
      const repository = `undisturbed-${state}-${image}`;
      if (state === "used") await useRepository(repository);
      front.reset();
      expected[image] = await convert(front, image, repository);
      recorded[image][state] = front.seen.map(requestClass);
    }
  }
});

after(async () => {
  await registry.stop();
  await scratch[Symbol.asyncDispose]();
});

/** Pushes `source:image`, `source:index` and `source:other`, with nothing in common. Gives the configs' digests. */
async function pushSources(): Promise<Set<string>> {
  const noise = createCipheriv("aes-256-ctr", Buffer.alloc(32), Buffer.alloc(16));
  const layer = (name: string) => layerOf([{ name, data: noise.update(Buffer.alloc(5000)) }]);
  const directory = scratch.join("sources");
  const [author, annotations] = [FREE_TEXT, { "example.text": FREE_TEXT }];
  await writeImage(directory, "image", { layers: [layer("bottom"), layer("top")], config: { author }, manifest: { annotations } });
  await writeImage(directory, "other", { layers: [layer("other")] });
  const manifests = [];
  for (const architecture of ["amd64", "arm64"]) {
    const image = await writeImage(directory, architecture, {
      layers: [layer(architecture)],
      config: { architecture, author },
      manifest: { annotations },
    });
    manifests.push({ ...image, platform: { os: "linux", architecture } });
  }
  const layout = await openLayoutStore(directory);
  await layout.putManifest(encodeJson({ schemaVersion: 2, mediaType: OCI_INDEX, manifests, annotations }), OCI_INDEX, { tag: "index" });
  const store = openStore(registry.host, "source");
  const digests = new Set<string>();
  for (const tag of ["image", "index", "other", "amd64", "arm64"]) {
    await copyImage(layout, { tag }, store, tag);
    const { config } = JSON.parse(Buffer.from((await layout.resolve({ tag })).bytes).toString()) as { config?: { digest: string } };
    if (config) digests.add(config.digest);
  }
  await store.close();
  return digests;
}

function requestClass({ method, url }: SeenRequest): string {
  const path = url.split("?")[0];
  const name = path.slice(path.lastIndexOf("/") + 1);
  if (path.endsWith("/tags/list")) return `${method} tags`;
  if (path.includes("/manifests/")) return `${method} by ${name.startsWith("sha256:") ? "digest" : "tag"}`;
  if (path.includes("/blobs/uploads/")) return `${method} upload`;
  if (method === "GET" && path.includes("/blobs/")) return configs.has(name) ? "GET config" : "GET layer";
  return path.includes("/blobs/") ? `${method} blob` : `${method} ${path}`;
}

interface ConvertHow {
  readonly timeouts?: Readonly<Record<"answerMs" | "commitMs" | "stallMs", number>> | undefined;
  readonly pauses?: Pause[];
}

function openStore(host: string, repository: string, { timeouts, pauses = [] }: ConvertHow = {}): ReturnType<typeof openRegistryStore> {
  return openRegistryStore(
    { kind: "registry", host, repository },
    {
      retry: { tries: 3, firstDelayMs: 1, maxDelayMs: 5, maxRetryAfterMs: 2000 },
      timeouts: { connectMs: LONG_MS, answerMs: LONG_MS, commitMs: LONG_MS, stallMs: LONG_MS, ...timeouts },
      observer: { waiting: (pause) => pauses.push(pause) },
    },
  );
}

/** Converts `source:TAG` to `REPOSITORY:v1`, and leaves no temporary data behind, however it ends. */
async function convert(front: HostileRegistry, tag: string, repository: string, how?: ConvertHow): Promise<string> {
  const [source, destination] = [openStore(front.host, "source", how), openStore(front.host, repository, how)];
  const directory = scratch.join(`${repository}.work`);
  try {
    return (await convertStores(source, destination, tag, { directory, to: "v1", virtualSize: 2 ** 30 })).descriptor.digest;
  } finally {
    await Promise.all([source.close(), destination.close()]);
    assert.equal(existsSync(directory), false, "temporary data is gone");
  }
}

function storage(...names: string[]): string {
  return join(registry.directory, "docker/registry/v2", ...names);
}

/** The digest under the tag, as the registry keeps it; undefined if there is none. No other tag may be there. */
function tagged(repository: string): string | undefined {
  const tags = storage("repositories", repository, "_manifests/tags");
  if (!existsSync(tags)) return undefined;
  assert.deepEqual(readdirSync(tags), ["v1"]);
  return readFileSync(join(tags, "v1/current/link"), "utf8");
}

test("the stages are all that conversions ask registries for", () => {
  for (const image of ["image", "index"] as const) {
    const known = new Set(STAGES.filter((one) => image === "index" || one.image === image).map((one) => one.requests));
    assert.deepEqual(new Set([...recorded[image].used, ...recorded[image].vacant]), known, image);
  }
});

/** All at once, for while one waits for a time limit others can go on. */
describe("a conversion", { concurrency: CONCURRENCY }, () => {
  for (const one of STAGES) {
    for (const row of isFirstOfItsSort(one) ? FAULT_ROWS : FAULT_ROWS.filter(({ isTypical }) => isTypical)) {
      for (const [at, outcome] of row.outcomes[one.kind]?.entries() ?? []) {
        if (outcome === undefined) continue;
        const times = at === 0 ? 1 : FOREVER;
        const end = outcome === "right" ? "comes right" : `ends with ${outcome.code}`;
        const what = `${row.name}${times === 1 ? "" : " again and again"} when ${one.name}`;
        it(`${end} after ${what}`, async () => await checkFault(one, row, times, outcome));
      }
    }
  }
});

/** Puts the image into it that was converted before all others. */
async function useRepository(repository: string): Promise<void> {
  await cp(storage("repositories/previous"), storage("repositories", repository), { recursive: true });
}

function isFirstOfItsSort(one: Stage): boolean {
  return one === STAGES.find(({ requests, kind }) => requests === one.requests && kind === one.kind);
}

async function checkFault(one: Stage, row: FaultRow, times: number, outcome: Outcome): Promise<void> {
  const repository = `case-${++cases}`;
  // Every other repository has an image under the tag already.
  const before = (one.isUsed ?? cases % 2 === 1) ? previous : undefined;
  if (before !== undefined) await useRepository(repository);
  await using front = await startHostileRegistry(registry.host);
  const hit = injectAt(front, one, row, times, before === undefined ? "vacant" : "used");
  const pauses: Pause[] = [];
  const result = await convert(front, one.image, repository, { timeouts: timeoutsFor(one, row), pauses }).catch((error: unknown) => error);
  assert.notEqual(hit.length, 0, "the fault has happened");
  if (outcome === "right") {
    assert.equal(result, expected[one.image], String(result));
    const longest = Math.max(0, ...pauses.map((pause) => pause.milliseconds));
    // Who is not told at once whether there are tags does without.
    const least = one.kind === "look for tags" ? 0 : (row.pauseMs ?? 0);
    assert.ok(longest >= least, `paused for ${longest} ms at most`);
  } else {
    assertFailure(result, outcome, front.host, hit);
    const isTriedAgain = pauses.some(({ reason }) => outcome.cause.test(reason));
    assert.equal(isTriedAgain, times > 1, "only what may pass is tried again");
    const isMoved = outcome.isStored === true && one.requests === "PUT by tag";
    assert.equal(tagged(repository), isMoved ? expected[one.image] : before, "the tag is where it was");
    front.reset();
    assert.equal(await convert(front, one.image, repository), expected[one.image], "the next conversion is not disturbed");
  }
  assert.equal(tagged(repository), expected[one.image]);
}

/** Injects the fault at the stage's request; gives where that request will be. */
function injectAt(front: HostileRegistry, one: Stage, row: FaultRow, times: number, state: "used" | "vacant"): SeenRequest[] {
  const hit: SeenRequest[] = [];
  const count = recorded[one.image][state].filter((name) => name === one.requests).length;
  let before = one.which === "first" ? 0 : count - 1;
  front.inject((request) => {
    if (requestClass(request) !== one.requests || before-- > 0) return undefined;
    hit.push(request);
    return row.fault;
  }, times);
  return hit;
}

/** Short where the fault is that nothing comes; elsewhere a busy machine must not look like a fault. */
function timeoutsFor({ kind }: Stage, { isSilent }: FaultRow): ConvertHow["timeouts"] {
  const ms = isSilent === true ? SHORT_MS : LONG_MS;
  const isPut = kind === "upload" || kind === "store document";
  return { answerMs: isPut ? LONG_MS : ms, commitMs: isPut ? ms : LONG_MS, stallMs: ms };
}

function assertFailure(error: unknown, { code, cause }: Exclude<Outcome, "right">, host: string, hit: readonly SeenRequest[]): void {
  assert.ok(error instanceof LazyError, String(error));
  assert.equal(error.code, code, error.message);
  assert.match(error.message, cause);
  const names = hit.map((request) => `${host}/${subjectOf(request)}`);
  const said = error.message.replace("http://", "").replace("/v2/", "/");
  assert.ok(
    names.some((name) => name.split(" ").every((part) => said.includes(part))),
    `${error.message}\nnames none of ${names.join(", ")}`,
  );
  assert.doesNotMatch(error.message, /\n/);
}

/** What an error must name of a request: the repository, and the digest of what is read. */
function subjectOf({ method, url }: SeenRequest): string {
  const [, repository, name] = /^\/v2\/([^/]+)\/(?:manifests|blobs)\/([^/?]+)/.exec(url) ?? [];
  assert.ok(repository !== undefined && name !== undefined, url);
  return method !== "HEAD" && name.startsWith("sha256:") ? `${repository} ${name}` : repository;
}

test("every blob in the registry is what its digest says", () => {
  const directory = storage("blobs/sha256");
  const digests = readdirSync(directory).flatMap((prefix) => readdirSync(join(directory, prefix)));
  assert.ok(digests.length > 10);
  for (const digest of digests) {
    const bytes = readFileSync(join(directory, digest.slice(0, 2), digest, "data"));
    assert.equal(createHash("sha256").update(bytes).digest("hex"), digest);
  }
});
