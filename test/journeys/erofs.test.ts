import assert from "node:assert/strict";
import { mkdir } from "node:fs/promises";
import { after, before, test } from "node:test";
import { openLayoutStore } from "../../src/image-layout/layout-store.ts";
import { parseManifest } from "../../src/oci/manifest.ts";
import { run } from "../support/command.ts";
import { startDockerRegistry, type DockerRegistry } from "../support/docker-registry.ts";
import { copyImage, layerOf, writeImage } from "../support/image-builder.ts";
import { copyImages, type ImagesLayout } from "../support/images.ts";
import { convertor, lazylayer } from "../support/programs.ts";
import { TemporaryDirectory } from "../support/temporary-directory.ts";
import { openRegistryStore } from "../../src/registry/registry-store.ts";
import { parseReference } from "../../src/oci/reference.ts";

const FILESYSTEM = "containerd.io/snapshot/overlaybd/blob-fs-type";
/** Layers that change, replace and hide what is below; with what EROFS keeps in its own way: holes, attributes, many names. */
const LAYERS = [
  layerOf([
    { name: "etc/", mode: 0o750 },
    { name: "etc/passwd", data: "root:x:0:0\n" },
    { name: "data/large", data: Buffer.alloc(300_000, "some text ") },
    ...Array.from({ length: 700 }, (_, at) => ({ name: `many/file-${at}`, data: `${at}` })),
  ]),
  layerOf([
    { name: "etc/passwd", data: "root:x:0:0:changed\n" },
    { name: "many/.wh.file-3" },
    { name: "data/link", type: "hardlink", link: "data/large" },
  ]),
  layerOf([{ name: "data/.wh..wh..opq" }, { name: "data/new", data: "new" }]),
];

let registry: DockerRegistry;
let images: ImagesLayout;
let scratch: TemporaryDirectory;

before(async () => {
  [registry, images, scratch] = await Promise.all([startDockerRegistry(), copyImages(), TemporaryDirectory.create()]);
});

after(async () => {
  await registry.stop();
  await images[Symbol.asyncDispose]();
  await scratch[Symbol.asyncDispose]();
});

async function push(name: string, from: string, tag: string): Promise<string> {
  const reference = parseReference(`${registry.host}/${name}`);
  assert.ok(reference.kind === "registry");
  const store = openRegistryStore(reference, {});
  await copyImage(await openLayoutStore(from), { tag }, store, "src");
  await store.close();
  return `${registry.host}/${name}`;
}

async function succeeds(args: readonly string[]): Promise<string> {
  const { status, stdout, stderr } = await lazylayer(args);
  assert.equal(status, 0, stderr);
  return stdout.toString();
}

test("an image becomes EROFS in both forms, says so, holds the same tree and mounts", async () => {
  const repository = await push("small", images.directory, "small-oci-v1");
  const { status, stderr } = await convertor(
    ["-r", repository, "-i", "src", "--overlaybd", "obd", "--turboOCI", "turbo", "--fstype", "erofs"],
    { cwd: scratch.path },
  );
  assert.equal(status, 0, stderr);
  for (const tag of ["obd", "turbo"]) {
    const answer = await fetch(`http://${repository.replace("/", "/v2/")}/manifests/${tag}`, {
      headers: { accept: "application/vnd.docker.distribution.manifest.v2+json" },
    });
    const { layers } = parseManifest(Buffer.from(await answer.arrayBuffer()), answer.headers.get("content-type") ?? "", tag);
    for (const { annotations } of layers) assert.equal(annotations?.[FILESYSTEM], "erofs");
    await succeeds(["verify", `${repository}:src`, `${repository}:${tag}`]);
    const directory = scratch.join(`mnt-${tag}`);
    await mkdir(directory);
    await succeeds(["mount", "--cache-dir", scratch.join(`cache-${tag}`), `${repository}:${tag}`, directory]);
    try {
      assert.equal((await run("findmnt", ["--noheadings", "--output", "FSTYPE", directory])).trim(), "erofs");
      const listed = (await succeeds(["ls", `${repository}:${tag}`, "/"])).trim().split("\n");
      assert.deepEqual((await run("ls", ["-A", directory], { env: { LC_ALL: "C" } })).trim().split("\n"), listed);
    } finally {
      await succeeds(["umount", directory]);
    }
  }
});

for (const format of ["overlaybd", "turbo"]) {
  test(`EROFS is continued on ${format} layers of an earlier conversion, with the same result as anew`, async () => {
    const layout = scratch.join(`layers-${format}`);
    for (const count of [1, 2, 3]) await writeImage(layout, `${count}`, { layers: LAYERS.slice(0, count) });
    const repository = `${registry.host}/${format}`;
    const convert = async (count: number, tag: string, database: readonly string[]): Promise<string> => {
      await push(`${format}-${count}`, layout, `${count}`);
      const options = ["--to", format, "--fs", "erofs", ...database, `${registry.host}/${format}-${count}:src`, `${repository}:${tag}`];
      return await succeeds(["convert", ...options]);
    };
    const database = ["--db-type", "sqlite", "--db-str", scratch.join(`${format}.sqlite`)];
    for (const count of [1, 2, 3]) await convert(count, `${count}`, database);
    const continued = await succeeds([
      "convert",
      "--output",
      "json",
      "--to",
      format,
      "--fs",
      "erofs",
      ...database,
      `${registry.host}/${format}-3:src`,
      `${repository}:again`,
    ]);
    assert.match(continued, /"outcome":"reused"/);
    assert.equal(await convert(3, "anew", ["--db-type", "none"]), `${(JSON.parse(continued) as { digest: string }).digest}\n`);
    await succeeds(["verify", `oci:${layout}:3`, `${repository}:3`]);
  });
}

test("there is no EROFS on the base layer, which is ext4", async () => {
  const { status, stderr } = await convertor(["-r", `${registry.host}/none`, "-i", "x", "-o", "y", "--fstype", "erofs", "--mkfs=false"]);
  assert.equal(status, 2);
  assert.match(stderr, /the base layer is ext4/);
});
