import assert from "node:assert/strict";
import { existsSync, readdirSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { test } from "node:test";
import { openLayoutStore } from "../../src/image-layout/layout-store.ts";
import { listImages } from "../../src/oci/image-selection.ts";
import { parseIndex } from "../../src/oci/index.ts";
import { DOCKER_INDEX, DOCKER_LAYER_TAR, DOCKER_MANIFEST, OCI_INDEX, OCI_LAYER_TAR, OCI_MANIFEST } from "../../src/oci/media-types.ts";
import type { CommandResult } from "../support/command.ts";
import { copyImages } from "../support/images.ts";
import { lazylayer } from "../support/programs.ts";
import { TemporaryDirectory } from "../support/temporary-directory.ts";

const DIGEST_LINE = /^sha256:[0-9a-f]{64}\n$/;

/** What a successful command printed. */
function printed({ status, stdout, stderr }: CommandResult): string {
  assert.equal(status, 0, stderr);
  return stdout.toString();
}

function assertRefused({ status, stdout, stderr }: CommandResult, expected: RegExp, code = 2): void {
  assert.match(stderr, expected);
  assert.equal(status, code, stderr);
  assert.equal(stdout.toString(), "");
  assert.doesNotMatch(stderr, /\n\s+at /, "no stack trace");
}

test("a converted image is the same tree, whatever its layers are compressed with and however odd it is", async () => {
  await using images = await copyImages();
  await using scratch = await TemporaryDirectory.create();
  await mkdir(scratch.join("tmp"));
  const tags = ["small-oci-hardlink-lower", "mixed-all", "mixed-nolayers", "mixed-zstd-as-gzip"];
  const env = { TMPDIR: scratch.join("tmp") };
  for (const tag of tags) {
    const [from, to] = [`oci:${images.directory}:${tag}`, `oci:${scratch.join("out")}:${tag}`];
    const digest = printed(await lazylayer(["convert", from, to], { env, cwd: "/" }));
    assert.match(digest, DIGEST_LINE, tag);
    const verified = await lazylayer(["verify", from, `${to}@${digest.trim()}`], { env });
    assert.equal(printed(verified), "", tag);
    assert.match(verified.stderr, /^verified \d+ paths in .* all the same\n$/, tag);
  }
  assert.deepEqual(readdirSync(scratch.join("tmp")), [], "temporary data is gone");
});

test("zstd or not, the same tree gives the same image", async () => {
  await using images = await copyImages();
  await using scratch = await TemporaryDirectory.create();
  const converted = await Promise.all(
    ["mixed-all", "mixed-nozstd"].map(async (tag) =>
      printed(await lazylayer(["convert", `oci:${images.directory}:${tag}`, `oci:${scratch.join(tag)}:x`])),
    ),
  );
  assert.equal(converted[0], converted[1]);
});

test("all images of an index are converted, or those for the platforms asked for", async () => {
  await using images = await copyImages();
  await using scratch = await TemporaryDirectory.create();
  const from = `oci:${images.directory}:multi-oci-attest`;
  const out = `oci:${scratch.join("out")}`;
  assert.match(printed(await lazylayer(["convert", from, `${out}:all`])), DIGEST_LINE);
  assert.match(printed(await lazylayer(["convert", from, `${out}:bare`, "--drop-attestations"])), DIGEST_LINE);
  const one = await lazylayer(["convert", from, `${out}:arm`, "--platform", "linux/arm64"]);
  assert.match(printed(one), DIGEST_LINE);
  const store = await openLayoutStore(scratch.join("out"));
  const platforms = async (tag: string): Promise<unknown[]> =>
    (await listImages(store, { tag })).map(({ descriptor }) => descriptor.platform?.architecture);
  assert.deepEqual(await platforms("all"), ["amd64", "arm64"]);
  const entries = async (tag: string): Promise<number> => {
    const { descriptor, bytes } = await store.resolve({ tag });
    return parseIndex(bytes, descriptor.mediaType, tag).manifests.length;
  };
  assert.deepEqual([await entries("all"), await entries("bare")], [3, 2], "attestations are kept, or not");
  assert.deepEqual(await platforms("arm"), ["arm64"]);
  printed(await lazylayer(["verify", from, `${out}:all`]));
  printed(await lazylayer(["verify", from, `${out}:arm`, "--platform", "linux/arm64"]));
  assertRefused(await lazylayer(["verify", from, `${out}:arm`]), /no image for linux\/amd64/, 1);
  assertRefused(
    await lazylayer(["convert", from, `${out}:no`, "--platform", "linux/s390x"]),
    /no image for linux\/s390x; it has linux\/amd64, linux\/arm64/,
    1,
  );
});

test("a platform that a single image is not for is refused", async () => {
  await using images = await copyImages();
  await using scratch = await TemporaryDirectory.create();
  const call = ["convert", `oci:${images.directory}:small-oci-v1`, `oci:${scratch.join("out")}:x`, "--platform"];
  assertRefused(await lazylayer([...call, "linux/s390x"]), /no image for linux\/s390x; it has linux\/amd64/, 1);
  assert.match(printed(await lazylayer([...call, "linux/amd64"])), DIGEST_LINE);
});

test("the result has docker's media types unless OCI's are asked for", async () => {
  await using images = await copyImages();
  await using scratch = await TemporaryDirectory.create();
  const rows: [source: string, flags: string[], index: string, manifest: string, layer: string][] = [
    ["multi-docker-v1", [], DOCKER_INDEX, DOCKER_MANIFEST, DOCKER_LAYER_TAR],
    ["multi-docker-v1", ["--oci"], OCI_INDEX, OCI_MANIFEST, OCI_LAYER_TAR],
    ["multi-oci-v1", [], OCI_INDEX, DOCKER_MANIFEST, DOCKER_LAYER_TAR],
    ["multi-oci-v1", ["--oci"], OCI_INDEX, OCI_MANIFEST, OCI_LAYER_TAR],
  ];
  for (const [source, flags, index, manifest, layer] of rows) {
    printed(await lazylayer(["convert", ...flags, `oci:${images.directory}:${source}`, `oci:${scratch.join("out")}:x`]));
    const store = await openLayoutStore(scratch.join("out"));
    assert.equal((await store.resolve({ tag: "x" })).descriptor.mediaType, index);
    for (const image of await listImages(store, { tag: "x" })) {
      assert.equal(image.descriptor.mediaType, manifest);
      assert.deepEqual([...new Set(image.manifest.layers.map((found) => found.mediaType))], [layer]);
    }
  }
});

test("an image is found by its digest", async () => {
  await using images = await copyImages();
  await using scratch = await TemporaryDirectory.create();
  const digest = "sha256:0da5ea15638d84985451ec3d570c9153edb121945591482ec78aa888aba87a6e";
  const by = async (reference: string, to: string): Promise<string> =>
    printed(await lazylayer(["convert", reference, `oci:${scratch.join(to)}:x`]));
  assert.equal(await by(`oci:${images.directory}@${digest}`, "a"), await by(`oci:${images.directory}:small-oci-v1`, "b"));
});

test("the same input gives the same bytes: on other days, in other directories, on one core", async () => {
  await using images = await copyImages();
  await using scratch = await TemporaryDirectory.create();
  await mkdir(scratch.join("elsewhere"));
  const source = `oci:${images.directory}:multi-oci-v1`;
  const convert = async (to: string, env: Record<string, string> = {}): Promise<string> =>
    printed(await lazylayer(["convert", source, `oci:${scratch.join(to)}:x`], { env, cwd: scratch.path }));
  const first = await convert("a");
  assert.equal(await convert("b", { TMPDIR: scratch.join("elsewhere"), UV_THREADPOOL_SIZE: "1", TZ: "Asia/Tokyo", LC_ALL: "C" }), first);
  assert.equal(await convert("a"), first, "over itself");
});

test("a wrong call is refused with status 2 before anything is made", async () => {
  await using images = await copyImages();
  await using scratch = await TemporaryDirectory.create();
  const source = `oci:${images.directory}:small-oci-v1`;
  const target = `oci:${scratch.join("out")}:x`;
  const rows: [args: string[], expected: RegExp][] = [
    [[], /Usage: lazylayer/],
    [["nope"], /unknown command 'nope'/],
    [["convert", source], /missing required argument 'destination'/],
    [["convert", source, `oci:${scratch.join("out")}`], /needs a tag/],
    [["convert", source, target, "--vsize", "0"], /from 1 to 16383/],
    [["verify", source], /missing required argument 'converted'/],
  ];
  for (const [args, expected] of rows) assertRefused(await lazylayer(args, { input: "" }), expected);
  assert.equal(existsSync(scratch.join("out")), false);
});

test("help is printed to standard output", async () => {
  for (const args of [["--help"], ["convert", "-h"]]) {
    assert.match(printed(await lazylayer(args)), /^Usage: lazylayer/, args.join(" "));
  }
  assert.match(printed(await lazylayer(["--version"])), /^\d+\.\d+\.\d+\n$/);
});

test("what cannot be converted is refused with status 1, and no tag appears", async () => {
  await using images = await copyImages();
  await using scratch = await TemporaryDirectory.create();
  await mkdir(scratch.join("tmp"));
  const source = (tag: string): string => `oci:${images.directory}:${tag}`;
  const env = { TMPDIR: scratch.join("tmp") };
  const rows: [source: string, expected: RegExp][] = [
    [source("mixed-badtar"), /layer 1 \(sha256:db5d3d7e.*tar header at 0: checksum is "l this i", expected an octal number/],
    [source("mixed-wrongdiffid"), /layer 1 \(sha256:7ab780ae.* diff ID sha256:5463b7fb.*, the config says sha256:1111/],
    [source("mixed-fewdiffids"), /the manifest has 2 layers, the config 1 diff IDs/],
    [source("missing"), /has no image "missing"/],
    [`oci:${scratch.join("none")}:x`, /does not exist/],
  ];
  for (const [from, expected] of rows) {
    const to = `oci:${scratch.join("bad")}:x`;
    assertRefused(await lazylayer(["convert", from, to], { env }), expected, 1);
    assert.equal(existsSync(scratch.join("bad")), false, "nothing was stored");
  }
  assert.deepEqual(readdirSync(scratch.join("tmp")), []);
});

test("an image that is converted already is copied as it is, with a warning", async () => {
  await using images = await copyImages();
  await using scratch = await TemporaryDirectory.create();
  const [once, twice] = [`oci:${scratch.join("once")}:x`, `oci:${scratch.join("twice")}:x`];
  const digest = printed(await lazylayer(["convert", `oci:${images.directory}:small-oci-v1`, once]));
  const again = await lazylayer(["convert", once, twice]);
  assert.equal(printed(again), digest);
  assert.match(again.stderr, /warning: .* is converted already; it stays as it is/);
});
