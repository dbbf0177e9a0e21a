import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createCipheriv } from "node:crypto";
import { once } from "node:events";
import { readdirSync } from "node:fs";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { gzipSync } from "node:zlib";
import { openLayoutStore } from "../../src/image-layout/layout-store.ts";
import { parseManifest } from "../../src/oci/manifest.ts";
import { execute, run, type CommandResult } from "../support/command.ts";
import { damageBlob, layerOf, writeImage } from "../support/image-builder.ts";
import { copyImages, type ImagesLayout } from "../support/images.ts";
import { CLEAN_ENVIRONMENT, LAZYLAYER, lazylayer } from "../support/programs.ts";
import { tarArchive } from "../support/tar-builder.ts";
import { TemporaryDirectory } from "../support/temporary-directory.ts";

const DIGEST_LINE = /^sha256:[0-9a-f]{64}\n$/;
const PATIENCE_MS = 30_000;

let images: ImagesLayout;
let scratch: TemporaryDirectory;
/** An image as skopeo writes it, and what it was converted to. */
let source = "";
let converted = "";

before(async () => {
  [images, scratch] = [await copyImages(), await TemporaryDirectory.create()];
  await mkdir(scratch.join("tmp"));
  source = scratch.join("source.tar");
  converted = scratch.join("converted.tar");
  await run("skopeo", ["copy", `oci:${images.directory}:small-oci-v1`, `oci-archive:${source}:v1`]);
  await convert(`oci-archive:${source}`, `oci-archive:${converted}:x`);
});

after(async () => {
  for (const thing of [images, scratch]) await thing[Symbol.asyncDispose]();
});

/** What a successful command printed. */
function printed({ status, stdout, stderr }: CommandResult): string {
  assert.equal(status, 0, stderr);
  return stdout.toString();
}

async function convert(
  from: string,
  to: string,
  { input, options = [] }: { input?: Uint8Array; options?: string[] } = {},
): Promise<string> {
  const env = { TMPDIR: scratch.join("tmp") };
  const digest = printed(await lazylayer(["convert", from, to, ...options], { env, ...(input && { input }) }));
  assert.match(digest, DIGEST_LINE);
  assert.deepEqual(readdirSync(scratch.join("tmp")), [], "temporary data is gone");
  return digest.trim();
}

async function verify(from: string, to: string): Promise<void> {
  const result = await lazylayer(["verify", from, to]);
  assert.equal(printed(result), "");
  assert.match(result.stderr, /^verified \d+ paths in .* all the same\n$/);
}

for (const [tag, kind, name, ...options] of [
  ["small-oci-v1", "docker-archive", ":app:v1"],
  ["mixed-nozstd", "docker-archive", ""],
  ["mixed-all", "oci-archive", ":v1"],
  ["multi-oci-v1", "oci-archive", ":docker.io/library/app:v1", "--all"],
] as const) {
  test(`${tag} in ${kind === "oci-archive" ? "an" : "a"} ${kind} of skopeo's is converted`, async () => {
    const from = `${kind}:${scratch.join(`${tag}.${kind}.tar`)}${name}`;
    await run("skopeo", ["copy", ...options, `oci:${images.directory}:${tag}`, from]);
    await convert(from, `oci:${scratch.join(tag)}:x`);
    await verify(`oci:${images.directory}:${tag}`, `oci:${scratch.join(tag)}:x`);
  });
}

test("an archive on standard input, of either kind and compressed, is converted as from a file, and verified against", async () => {
  const digests = new Map<string, string>();
  for (const kind of ["docker-archive", "oci-archive"]) {
    const file = scratch.join(`stdin.${kind}.tar`);
    await run("skopeo", ["copy", `oci:${images.directory}:small-oci-hardlink-lower`, `${kind}:${file}:app:v1`]);
    const image = gzipSync(await readFile(file), { level: 1 });
    const digest = await convert("-", `oci:${scratch.join("stdin")}:${kind}`, { input: image });
    assert.equal(await convert(`${kind}:${file}`, `oci:${scratch.join("stdin")}:file`), digest);
    printed(await lazylayer(["verify", "-", `oci:${scratch.join("stdin")}:${kind}`], { input: image }));
    digests.set(kind, digest);
  }
  assert.equal(new Set(digests.values()).size, 1, "the layers are the same in both");
});

test("an archive is converted to an archive, which is verified, listed and printed", async () => {
  await verify(`oci-archive:${source}:v1`, `oci-archive:${converted}:x`);
  const [from, to] = [`oci-archive:${converted}`, `docker-archive:${scratch.join("docker.tar")}:app:x`];
  assert.match(printed(await lazylayer(["ls", from])), /^etc$/m);
  const image = await readFile(converted);
  assert.equal(printed(await lazylayer(["ls", "-", "/etc"], { input: image })), printed(await lazylayer(["ls", from, "/etc"])));
  await convert(`oci-archive:${source}`, to);
  await verify(`oci-archive:${source}`, to);
});

test("the same image gives the same archive, byte for byte, also in place of another", async () => {
  const again = scratch.join("again.tar");
  for (let times = 0; times < 2; times++) {
    await convert(`oci-archive:${source}`, `oci-archive:${again}:x`);
    assert.ok((await readFile(again)).equals(await readFile(converted)));
  }
  assert.deepEqual(readdirSync(scratch.path).filter((name) => name.startsWith(".")), []); // prettier-ignore
});

test("skopeo reads what was written, and finds the same blobs in it", async () => {
  const docker = scratch.join("for-docker.tar");
  const digest = await convert(`oci-archive:${source}`, `docker-archive:${docker}:app:x`, { options: ["--oci"] });
  await run("skopeo", ["copy", "--preserve-digests", `oci-archive:${docker}:x`, `oci:${scratch.join("copied")}:x`]);
  const { descriptor, bytes } = await (await openLayoutStore(scratch.join("copied"))).resolve({ tag: "x" });
  assert.equal(descriptor.digest, digest);
  await verify(`oci-archive:${source}`, `oci:${scratch.join("copied")}:x`);
  const layers = parseManifest(bytes, descriptor.mediaType, "manifest").layers.map((layer) => layer.digest);
  for (const name of [`docker-archive:${docker}:app:x`, `docker-archive:${docker}`, `oci-archive:${converted}`]) {
    const inspected = JSON.parse(await run("skopeo", ["inspect", name])) as { Layers: string[]; Os: string };
    assert.deepEqual([inspected.Layers, inspected.Os], [layers, "linux"]);
  }
  await run("skopeo", ["copy", `docker-archive:${docker}:app:x`, `dir:${scratch.join("dir")}`]);
});

test("a reader that goes away ends a conversion to standard output quietly", async () => {
  const script = 'set -o pipefail; "$0" convert "oci-archive:$1" - | head -c 10 > /dev/null; echo "$?"';
  const result = await execute("bash", ["-c", script, LAZYLAYER, source], { env: { ...CLEAN_ENVIRONMENT, TMPDIR: scratch.join("tmp") } });
  assert.deepEqual([result.stdout.toString(), result.stderr], ["141\n", ""]);
  assert.deepEqual(readdirSync(scratch.join("tmp")), []);
});

test("what is no good archive is refused in one line, and leaves nothing behind", async () => {
  const damaged = scratch.join("damaged");
  const { digest } = await writeImage(damaged, "v1", { layers: [layerOf([{ name: "f", data: "x".repeat(5000) }])] });
  const manifest = parseManifest(
    await readFile(`${damaged}/blobs/sha256/${digest.slice(7)}`),
    "application/vnd.oci.image.manifest.v1+json",
    "m",
  );
  await damageBlob(damaged, manifest.layers[0].digest, "flip");
  await run("tar", ["-C", damaged, "-cf", scratch.join("damaged.tar"), "."]);
  const whole = await readFile(source);
  await writeFile(scratch.join("cut.tar"), whole.subarray(0, whole.length / 2));
  await writeFile(scratch.join("out.tgz"), gzipSync(whole).subarray(0, 5000));
  const outside = { Config: "config.json", RepoTags: null, Layers: ["layer"] };
  const link = { name: "layer", type: "symlink", link: "../../../../etc/passwd" } as const;
  const members = [{ name: "config.json", data: "{}" }, link, { name: "manifest.json", data: JSON.stringify([outside]) }];
  await writeFile(scratch.join("link.tar"), tarArchive(members));
  await mkdir(scratch.join("results"));
  const out = scratch.join("results/out.tar");
  for (const [from, to, status, message] of [
    [`oci-archive:${scratch.join("damaged.tar")}`, `oci-archive:${out}`, 1, /content has digest sha256:|compressed data is broken/],
    [`oci-archive:${scratch.join("cut.tar")}`, `oci-archive:${out}`, 1, /the tar archive stops in the middle/],
    [`docker-archive:${scratch.join("out.tgz")}`, `oci-archive:${out}`, 1, /compressed data ends in the middle/],
    [`docker-archive:${scratch.join("link.tar")}`, `oci-archive:${out}`, 1, /outside of the archive/],
    [`oci-archive:${source}`, "oci-archive:/dev/null", 2, /not a regular file/],
    ["-", `oci-archive:${out}`, 1, /standard input: is empty/],
  ] as const) {
    const result = await lazylayer(["convert", from, to], { input: "", env: { TMPDIR: scratch.join("tmp") } });
    assert.match(result.stderr, message);
    assert.deepEqual([result.status, result.stdout.length, result.stderr.trimEnd().split("\n").length], [status, 0, 1], result.stderr);
    assert.deepEqual([readdirSync(scratch.join("results")), readdirSync(scratch.join("tmp"))], [[], []], from);
  }
});

test("a disk that is too small for what is spooled or written is said to be, and left empty", async () => {
  assert.equal(process.geteuid?.(), 0, "this test mounts a filesystem: run it as root");
  const small = scratch.join("small");
  await mkdir(small);
  await run("mount", ["-t", "tmpfs", "-o", "size=1m", "lazylayer-test", small]);
  try {
    const bomb = gzipSync(Buffer.alloc(50_000_000));
    const spooled = await lazylayer(["convert", "-", `oci:${scratch.join("none")}:x`], { input: bomb, env: { TMPDIR: small } });
    assert.match(spooled.stderr, /standard input: cannot be held in .*small: more than the \d+ bytes that it may take there/);
    const written = await lazylayer(["convert", `oci-archive:${source}`, `oci-archive:${small}/a.tar`]);
    assert.match(written.stderr, new RegExp(`${small}/.*ENOSPC`));
    for (const { status, stderr } of [spooled, written]) assert.deepEqual([status, stderr.trimEnd().split("\n").length], [1, 1]);
    assert.deepEqual(readdirSync(small), []);
  } finally {
    await run("umount", [small]);
  }
});

test("an interrupted conversion leaves nothing where the archive was to be", async () => {
  const noise = createCipheriv("aes-256-ctr", Buffer.alloc(32), Buffer.alloc(16)).update(Buffer.alloc(24_000_000));
  await writeImage(scratch.join("big"), "v1", { layers: [layerOf([{ name: "big", data: noise }])] });
  await mkdir(scratch.join("interrupted"));
  const args = ["convert", `oci:${scratch.join("big")}:v1`, `oci-archive:${scratch.join("interrupted/a.tar")}`];
  const env = { ...process.env, ...CLEAN_ENVIRONMENT, TMPDIR: scratch.join("tmp") };
  const child = spawn(LAZYLAYER, args, { env, stdio: "ignore" });
  const ended = once(child, "close");
  for (const end = Date.now() + PATIENCE_MS; readdirSync(scratch.join("interrupted")).length === 0;) {
    assert.ok(Date.now() < end && child.exitCode === null);
    await sleep(5);
  }
  child.kill("SIGTERM");
  assert.deepEqual(await ended, [143, null]);
  assert.deepEqual([readdirSync(scratch.join("interrupted")), readdirSync(scratch.join("tmp"))], [[], []]);
});
