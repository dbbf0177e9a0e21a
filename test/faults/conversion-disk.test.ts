import assert from "node:assert/strict";
import { createCipheriv } from "node:crypto";
import { existsSync, readdirSync } from "node:fs";
import { cp, mkdir } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { z } from "zod";
import { openLayoutStore } from "../../src/image-layout/layout-store.ts";
import { openRegistryStore } from "../../src/registry/registry-store.ts";
import { run, type CommandResult } from "../support/command.ts";
import { convertStores } from "../support/convert.ts";
import { startDockerRegistry, type DockerRegistry } from "../support/docker-registry.ts";
import { copyImage, layerOf, writeImage } from "../support/image-builder.ts";
import { convertor, lazylayer } from "../support/programs.ts";
import { TemporaryDirectory } from "../support/temporary-directory.ts";

/** More than blobs may take of memory. */
const IMAGE_BYTES = 72_000_000;
const TAG = "converted";
/** How far a conversion gets: to its first write, into the payload, to the last bytes, and to no file at all. */
const TOO_SMALL = ["size=4m", "size=16m", "size=70300k", "size=160m,nr_inodes=2"];
const LARGE_ENOUGH = "size=160m,nr_inodes=1000";
const WITHOUT_DATABASE = { LAZYLAYER_DB_TYPE: "none" };

const MANY_LAYERS = 20;

const document = z.object({ digest: z.string(), images: z.array(z.object({ outcome: z.string() })) });

let scratch: TemporaryDirectory;
let registry: DockerRegistry;
let disk = "";
let layout = "";
let expected = "";

before(async () => {
  assert.equal(process.geteuid?.(), 0, "this test mounts filesystems: run it as root");
  scratch = await TemporaryDirectory.create();
  registry = await startDockerRegistry();
  [disk, layout] = [scratch.join("disk"), scratch.join("source")];
  const noise = createCipheriv("aes-256-ctr", Buffer.alloc(32), Buffer.alloc(16)).update(Buffer.alloc(IMAGE_BYTES));
  await writeImage(layout, "v1", { layers: [layerOf([{ name: "noise", data: noise }])] });
  const many = Array.from({ length: MANY_LAYERS }, (_, at) => layerOf([{ name: `file-${at}`, data: "x" }]));
  await writeImage(layout, "many", { layers: many });
  const [source, store] = [
    await openLayoutStore(layout),
    openRegistryStore({ kind: "registry", host: registry.host, repository: "source" }),
  ];
  await copyImage(source, { tag: "v1" }, store, "v1");
  await store.close();
  const undisturbed = await openLayoutStore(scratch.join("undisturbed"), { create: true });
  expected = (await convertStores(source, undisturbed, "v1", { directory: scratch.join("work") })).descriptor.digest;
  await mkdir(disk);
  await run("mount", ["-t", "tmpfs", "-o", LARGE_ENOUGH, "lazylayer-test", disk]);
});

after(async () => {
  await run("umount", [disk]);
  await registry.stop();
  await scratch[Symbol.asyncDispose]();
});

function assertFull({ status, stdout, stderr }: CommandResult): void {
  assert.match(stderr.trimEnd(), new RegExp(`^(?:convertor|lazylayer): [^\\n]*${disk}/[^\\n]*ENOSPC[^\\n]*$`));
  assert.deepEqual([status, stdout.toString()], [1, ""]);
}

/** Runs on a disk of that size, then on a larger one. */
async function checkSize(size: string, call: () => Promise<CommandResult>, checkLeft: () => void | Promise<void>): Promise<void> {
  await run("mount", ["-o", `remount,${size}`, disk]);
  assertFull(await call());
  await checkLeft();
  await run("mount", ["-o", `remount,${LARGE_ENOUGH}`, disk]);
  const { status, stderr } = await call();
  assert.equal(status, 0, stderr);
}

async function makeRepository(name: string): Promise<string> {
  const repositories = join(registry.directory, "docker/registry/v2/repositories");
  await cp(join(repositories, "source"), join(repositories, name), { recursive: true });
  return name;
}

function tags(repository: string): string[] {
  return readdirSync(join(registry.directory, "docker/registry/v2/repositories", repository, "_manifests/tags"));
}

async function digestIn(repository: string): Promise<string> {
  const store = openRegistryStore({ kind: "registry", host: registry.host, repository });
  const { descriptor } = await store.resolve({ tag: TAG });
  await store.close();
  return descriptor.digest;
}

for (const [at, size] of TOO_SMALL.entries()) {
  for (const program of ["convertor", "lazylayer"] as const) {
    test(`${program} on a disk for temporary data with ${size} says that it is full, leaves nothing, and comes right with more`, async () => {
      const repository = await makeRepository(`${program}-${at}`);
      const image = `${registry.host}/${repository}`;
      const call = async (): Promise<CommandResult> =>
        program === "convertor"
          ? await convertor(["-r", image, "-i", "v1", "-o", TAG, "-d", join(disk, "work")], { env: WITHOUT_DATABASE })
          : await lazylayer(["convert", `${image}:v1`, `${image}:${TAG}`], { env: { ...WITHOUT_DATABASE, TMPDIR: disk } });
      const advised = async (): Promise<CommandResult> => {
        const result = await call();
        if (result.status !== 0) assert.match(result.stderr, /; (?:free space there, or )?name another directory for temporary data/);
        return result;
      };
      const isLeftAlone = (): void => {
        assert.deepEqual(readdirSync(disk), []);
        assert.deepEqual(tags(repository), ["v1"]);
      };
      await checkSize(size, advised, isLeftAlone);
      assert.equal(await digestIn(repository), expected);
      assert.deepEqual(readdirSync(disk), []);
    });
  }
}

for (const size of ["size=4k", "size=4m", "size=70300k", "size=160m,nr_inodes=6"]) {
  test(`a layout directory on a disk with ${size} gets no half blob and no tag, and the image with more`, async () => {
    const target = join(disk, "layout");
    const call = async (): Promise<CommandResult> =>
      await lazylayer(["convert", `oci:${layout}:v1`, `oci:${target}:${TAG}`], { env: { ...WITHOUT_DATABASE, TMPDIR: scratch.path } });
    await checkSize(size, call, async () => {
      const files = existsSync(target) ? readdirSync(target, { recursive: true }).map(String) : [];
      assert.deepEqual(
        files.filter((name) => /tmp/.test(name)),
        [],
      );
      const store = await openLayoutStore(target, { create: true });
      await assert.rejects(store.resolve({ tag: TAG }), { code: "NOT_FOUND" });
      await store.close();
    });
    const store = await openLayoutStore(target);
    assert.equal((await store.resolve({ tag: TAG })).descriptor.digest, expected);
    await store.close();
    await run("rm", ["-r", target]);
  });
}

/** From no file at all, over the making of the tables, to the rows. */
for (const size of ["size=4k", "size=16k", "size=44k", "size=64k", "size=64m,nr_inodes=3"]) {
  test(`a conversion database on a disk with ${size} is one warning, changes nothing else, and is used again with more`, async () => {
    const repository = `database-${size}`.replaceAll(/[=,_]/g, "-");
    const known = ["--db-type", "sqlite", "--db-str", join(disk, "known.sqlite"), "--output", "json"];
    const call = async (tag: string): Promise<CommandResult> =>
      await lazylayer(["convert", `oci:${layout}:many`, `${registry.host}/${repository}:${tag}`, ...known]);
    await run("mount", ["-o", `remount,${size}`, disk]);
    const full = await call("full");
    await run("mount", ["-o", `remount,${LARGE_ENOUGH}`, disk]);
    const [warning, summary, ...more] = full.stderr.trimEnd().split("\n");
    assert.match(warning, new RegExp(`^warning: ${disk}/known.sqlite: conversion database: .*; going on without the conversion database`));
    assert.match(summary, /^converted /);
    assert.deepEqual(more, []);
    const [first, second] = [await call("more"), await call("again")];
    for (const { status, stderr } of [full, first, second]) assert.equal(status, 0, stderr);
    for (const { stderr } of [first, second]) assert.match(stderr, /^converted [^\n]*\n$/);
    const documents = [full, first, second].map(({ stdout }) => document.parse(JSON.parse(stdout.toString())));
    assert.equal(new Set(documents.map(({ digest }) => digest)).size, 1);
    assert.equal(documents[2].images[0].outcome, "reused");
    await run("find", [disk, "-type", "f", "-delete"]);
  });
}
