import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { mkdir, readFile } from "node:fs/promises";
import { after, before, beforeEach, test } from "node:test";
import { gzipSync } from "node:zlib";
import { digestOf } from "../../src/oci/digest.ts";
import { startDockerRegistry, type DockerRegistry } from "../support/docker-registry.ts";
import { startHostileRegistry, type HostileRegistry, type SeenRequest } from "../support/hostile-registry.ts";
import { lazylayer } from "../support/programs.ts";
import { tarArchive } from "../support/tar-builder.ts";
import { TemporaryDirectory } from "../support/temporary-directory.ts";
import { noise, openRepository, pushImage, succeeded } from "./turbo-support.ts";

const FILES = 40;
const FILE_BYTES = 500_000;
const TAR = tarArchive([
  { name: "d/" },
  ...Array.from({ length: FILES }, (_, file) => ({ name: `d/${file}`, data: noise(`file ${file}`, FILE_BYTES + file) })),
]);
const LAYER = { blob: gzipSync(TAR, { level: 1 }), diffId: digestOf(TAR) };
const DIGEST = digestOf(LAYER.blob);

let scratch: TemporaryDirectory;
let registry: DockerRegistry;
let watched: HostileRegistry;
let mounts = 0;

before(async () => {
  [scratch, registry] = await Promise.all([TemporaryDirectory.create(), startDockerRegistry()]);
  watched = await startHostileRegistry(registry.host);
  await pushImage(scratch.join("source"), "v1", { layers: [LAYER] }, `${registry.host}/app`);
  succeeded(await lazylayer(["convert", "--to", "turbo", `${registry.host}/app:v1`, `${registry.host}/app:turbo`]));
});

beforeEach(() => watched.reset());

after(async () => {
  await watched.stop();
  await registry.stop();
  await scratch[Symbol.asyncDispose]();
});

/** Mounts the image, with what an earlier mount with the same cache has left, for as long as `use` takes. */
async function mounted(cache: string, use: (directory: string) => Promise<void>): Promise<void> {
  assert.equal(process.geteuid?.(), 0, "this test mounts file systems: run it as root");
  const directory = scratch.join(`mnt${mounts++}`);
  await mkdir(directory);
  succeeded(await lazylayer(["mount", `${watched.host}/app:turbo`, directory, "--cache-dir", scratch.join(cache)]));
  try {
    await use(directory);
  } finally {
    succeeded(await lazylayer(["umount", directory]));
  }
}

function rangesOfLayer(): SeenRequest[] {
  return watched.seen.filter(({ method, url }) => method === "GET" && url.endsWith(DIGEST));
}

/** Bytes that were asked for of the layer that the image refers to. */
function fetchedBytes(): number {
  return rangesOfLayer().reduce((sum, { headers }) => {
    const [, first, last] = /^bytes=(\d+)-(\d+)$/.exec(headers["range"] ?? "") ?? assert.fail("the layer was asked for as a whole");
    return sum + Number(last) - Number(first) + 1;
  }, 0);
}

test("a file of a mounted turboOCI image costs little more than itself, and nothing the second time", async () => {
  await mounted("cache", async (directory) => {
    assert.ok(fetchedBytes() < 100_000, `${fetchedBytes()} bytes to mount`);
    assert.deepEqual(await readFile(`${directory}/d/20`), noise("file 20", FILE_BYTES + 20));
    const forOne = fetchedBytes();
    assert.ok(forOne > FILE_BYTES && forOne < LAYER.blob.length / 3, `${forOne} of ${LAYER.blob.length} bytes`);
  });
  watched.reset();
  await mounted("cache", async (directory) => {
    const toMount = fetchedBytes();
    assert.deepEqual(await readFile(`${directory}/d/20`), noise("file 20", FILE_BYTES + 20));
    assert.equal(fetchedBytes(), toMount, "the content is on disk");
  });
});

test("all files read side by side are right, and the layer is fetched about once", async () => {
  await mounted("all", async (directory) => {
    const names = Array.from({ length: FILES }, (_, file) => file);
    const digests = await Promise.all(names.map(async (file) => await fileDigest(`${directory}/d/${file}`)));
    const expected = names.map((file) =>
      createHash("sha256")
        .update(noise(`file ${file}`, FILE_BYTES + file))
        .digest("hex"),
    );
    assert.deepEqual(digests, expected);
    assert.ok(fetchedBytes() < LAYER.blob.length * 1.5, `${fetchedBytes()} of ${LAYER.blob.length} bytes`);
  });
});

async function fileDigest(path: string): Promise<string> {
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(path)) hash.update(chunk as Buffer);
  return hash.digest("hex");
}

test("a range that comes damaged is fetched once more; if it stays so, reading fails and is no wrong byte", async () => {
  const isData = ({ method, url, headers }: SeenRequest): boolean =>
    method === "GET" && url.endsWith(DIGEST) && Number(/-(\d+)$/.exec(headers["range"] ?? "")?.[1]) > 100_000;
  await mounted("damaged", async (directory) => {
    watched.inject((request) => (isData(request) ? { kind: "corrupt", at: 5000 } : undefined), 1);
    assert.deepEqual(await readFile(`${directory}/d/5`), noise("file 5", FILE_BYTES + 5));
    const ranges = rangesOfLayer().map(({ headers }) => headers["range"]);
    assert.equal(ranges.length - new Set(ranges).size, 1, "one range was asked for twice");
    watched.inject((request) => (isData(request) ? { kind: "corrupt", at: 5000 } : undefined), Infinity);
    await assert.rejects(readFile(`${directory}/d/35`), { code: "EIO" });
    watched.reset();
    assert.deepEqual(await readFile(`${directory}/d/36`), noise("file 36", FILE_BYTES + 36));
  });
});

test("a mount whose layer goes away says so where it is mounted anew", async () => {
  await using store = openRepository(`${registry.host}/app`);
  assert.ok(await store.repository.hasBlob(DIGEST));
  const { status } = await fetch(`http://${registry.host}/v2/app/blobs/${DIGEST}`, { method: "DELETE" });
  assert.equal(status, 202);
  const directory = scratch.join("gone");
  await mkdir(directory);
  const refused = await lazylayer(["mount", `${watched.host}/app:turbo`, directory, "--cache-dir", scratch.join("cache")]);
  assert.equal(refused.status, 1);
  assert.match(refused.stderr, new RegExp(`its data is in blob ${DIGEST}.* does not have`));
});

test("relative directories mean where the command was called, also to the process that serves the mount", async () => {
  const directory = scratch.join("relative");
  await mkdir(scratch.join("here"), { recursive: true });
  await mkdir(directory);
  const options = { cwd: scratch.join("here") };
  succeeded(await lazylayer(["convert", "--to", "turbo", "--leave-data", "oci:../source:v1", "oci:converted:turbo"], options));
  const place = ["--data-repository", "oci:../source", "--cache-dir", scratch.join("relative-cache")];
  succeeded(await lazylayer(["mount", ...place, "oci:converted:turbo", directory], options));
  try {
    assert.deepEqual(await readFile(`${directory}/d/7`), noise("file 7", FILE_BYTES + 7));
  } finally {
    succeeded(await lazylayer(["umount", directory]));
  }
});
