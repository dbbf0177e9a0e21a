import assert from "node:assert/strict";
import { after, before, beforeEach, test } from "node:test";
import { zstdCompressSync } from "node:zlib";
import { z } from "zod";
import { digestOf } from "../../src/oci/digest.ts";
import { OCI_LAYER_ZSTD } from "../../src/oci/media-types.ts";
import { startDockerRegistry, type DockerRegistry } from "../support/docker-registry.ts";
import { writeImage, type BuiltImage } from "../support/image-builder.ts";
import { startHostileRegistry, type HostileRegistry } from "../support/hostile-registry.ts";
import { lazylayerInProcess } from "../support/in-process.ts";
import { tarArchive } from "../support/tar-builder.ts";
import { TemporaryDirectory } from "../support/temporary-directory.ts";
import { gzipImage, noise, succeeded, TREE } from "./turbo-support.ts";

const document = z.object({
  digest: z.string(),
  images: z.array(z.object({ outcome: z.string(), layers: z.array(z.object({ digest: z.string(), outcome: z.string() })) })).length(1),
  bytes: z.object({ read: z.int(), sent: z.int() }),
});

interface Converted {
  readonly digest: string;
  readonly image: string;
  /** Of the layers. */
  readonly outcomes: readonly string[];
  readonly digests: readonly string[];
  readonly bytes: { readonly read: number; readonly sent: number };
}

const TARS = TREE.map((members) => tarArchive(members));
const MORE = tarArchive([{ name: "d/.wh.replaced" }, { name: "more", data: "more" }]);

let scratch: TemporaryDirectory;
let registry: DockerRegistry;
let watched: HostileRegistry;

before(async () => {
  registry = await startDockerRegistry();
  watched = await startHostileRegistry(registry.host);
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
});

/** Converts an image to tags of a repository, in the order of the formats; the database is the scratch directory's. */
async function convert(image: BuiltImage, formats: string, repository: string, ...tags: string[]): Promise<Converted[]> {
  return await convertWith([], image, formats, repository, ...tags);
}

async function convertWith(
  options: readonly string[],
  image: BuiltImage,
  formats: string,
  repository: string,
  ...tags: string[]
): Promise<Converted[]> {
  await writeImage(scratch.join("source"), "v1", image);
  const targets = tags.map((tag) => `${watched.host}/${repository}:${tag}`);
  const call = ["convert", `oci:${scratch.join("source")}:v1`, ...targets, "--to", formats, "--output", "json"];
  const place = { cacheDirectory: scratch.join("cache"), temporaryDirectory: scratch.path };
  const { stdout } = succeeded(await lazylayerInProcess([...call, "--db-type", "sqlite", ...options], place));
  for (const target of targets) {
    const verified = await lazylayerInProcess(["verify", `oci:${scratch.join("source")}:v1`, target]);
    assert.deepEqual([verified.status, verified.stdout.toString()], [0, ""], verified.stderr);
  }
  return stdout
    .trimEnd()
    .split("\n")
    .map((line) => {
      const { digest, images, bytes } = document.parse(JSON.parse(line));
      const [{ outcome, layers }] = images;
      return {
        digest,
        image: outcome,
        outcomes: layers.map((layer) => layer.outcome),
        digests: layers.map((layer) => layer.digest),
        bytes,
      };
    });
}

test("a second conversion to turboOCI takes everything from the first", async () => {
  const [first] = await convert(gzipImage(TARS), "turbo", "again", "a");
  assert.deepEqual([first.image, first.outcomes], ["converted", ["uploaded", "uploaded", "uploaded"]]);
  watched.reset();
  const [second] = await convert(gzipImage(TARS), "turbo", "again", "b");
  assert.deepEqual([second.image, second.digest, second.bytes], ["reused", first.digest, { read: 0, sent: 0 }]);
  const sent = watched.seen.filter(({ method, url }) => method === "PUT" && url.includes("/manifests/")).map(({ url }) => url);
  assert.deepEqual(sent, ["/v2/again/manifests/b-layers", "/v2/again/manifests/b"], "the layers are held for this tag, too");
});

test("one more layer on top is the only one that is converted", async () => {
  const [first] = await convert(gzipImage(TARS), "turbo", "top", "a");
  const image = gzipImage([...TARS, MORE]);
  const [more] = await convert(image, "turbo", "top", "b");
  assert.deepEqual(more.outcomes, ["reused", "reused", "reused", "uploaded"]);
  assert.deepEqual(more.digests.slice(0, 3), first.digests);
  assert.equal(more.bytes.read, image.layers[3].blob.length);
});

test("layers of one format are not taken for those of the other", async () => {
  const [native] = await convert(gzipImage(TARS), "overlaybd", "formats", "obd");
  const [turbo] = await convert(gzipImage(TARS), "turbo", "formats", "turbo");
  assert.deepEqual(turbo.outcomes, ["uploaded", "uploaded", "uploaded"]);
  const both = await convert(gzipImage(TARS), "overlaybd,turbo", "formats", "obd2", "turbo2");
  assert.deepEqual(
    both.map(({ image, digest }) => [image, digest]),
    [
      ["reused", native.digest],
      ["reused", turbo.digest],
    ],
  );
  const [nativeMore, turboMore] = await convert(gzipImage([...TARS, MORE]), "overlaybd,turbo", "formats", "obd3", "turbo3");
  assert.deepEqual([nativeMore.digests.slice(0, 3), turboMore.digests.slice(0, 3)], [native.digests, turbo.digests]);
});

test("where one format is known, only the other is converted", async () => {
  const [native] = await convert(gzipImage(TARS), "overlaybd", "half", "obd");
  const [again, turbo] = await convert(gzipImage(TARS), "overlaybd,turbo", "half", "obd2", "turbo");
  assert.deepEqual([again.image, again.digest, turbo.image], ["reused", native.digest, "converted"]);
  const [nativeMore, turboMore] = await convert(gzipImage([TARS[0], MORE]), "overlaybd,turbo", "half", "obd3", "turbo3");
  assert.deepEqual(
    [nativeMore.outcomes, turboMore.outcomes],
    [
      ["reused", "uploaded"],
      ["reused", "uploaded"],
    ],
  );
});

test("the same tars in other blobs are other turboOCI layers, and the same overlaybd layers", async () => {
  const [native, turbo] = await convert(gzipImage(TARS, 1), "overlaybd,turbo", "levels", "obd", "turbo");
  const [nativeAgain, turboAgain] = await convert(gzipImage(TARS, 6), "overlaybd,turbo", "levels", "obd6", "turbo6");
  assert.deepEqual([nativeAgain.outcomes, nativeAgain.digests], [["reused", "reused", "reused"], native.digests]);
  assert.deepEqual(turboAgain.outcomes, ["uploaded", "uploaded", "uploaded"]);
  assert.ok(turboAgain.digests.every((digest) => !turbo.digests.includes(digest)));
});

test("a neighbour repository's turboOCI layers are mounted", async () => {
  const [first] = await convert(gzipImage(TARS), "turbo", "one", "a");
  const [second] = await convert(gzipImage(TARS), "turbo", "two", "a");
  assert.deepEqual([second.outcomes, second.digest], [["mounted", "mounted", "mounted"], first.digest]);
});

test("a layer that was compressed anew is converted again, and refers to what it is an index of", async () => {
  const tar = tarArchive([{ name: "large", data: noise("one frame", 5 << 20) }]);
  const frame = { blob: zstdCompressSync(tar), diffId: digestOf(tar), mediaType: OCI_LAYER_ZSTD };
  const image = { layers: [...gzipImage(TARS.slice(0, 1)).layers, frame, ...gzipImage([MORE]).layers] };
  const options = ["--recompress", "gzip"];
  const [first] = await convertWith(options, image, "turbo", "frames", "a");
  const [again] = await convertWith(options, image, "turbo", "frames", "b");
  assert.deepEqual([again.digest, again.outcomes], [first.digest, ["reused", "exists", "reused"]]);
  const [oci] = await convertWith([...options, "--oci"], image, "turbo", "frames", "c");
  assert.deepEqual(oci.digests, first.digests);
  const [neighbour] = await convertWith(options, image, "turbo", "frames-too", "a");
  assert.equal(neighbour.digest, first.digest);
});
