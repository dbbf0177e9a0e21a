import assert from "node:assert/strict";
import { createCipheriv } from "node:crypto";
import { existsSync, readdirSync } from "node:fs";
import { chmod, chown, mkdir } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { execute, run, type CommandResult } from "../support/command.ts";
import { startDockerRegistry, type DockerRegistry } from "../support/docker-registry.ts";
import { layerOf, writeImage } from "../support/image-builder.ts";
import { CLEAN_ENVIRONMENT, convertor, LAZYLAYER, lazylayer } from "../support/programs.ts";
import { TemporaryDirectory } from "../support/temporary-directory.ts";
import { AS_NOBODY } from "../support/nobody.ts";

const NOBODY = 65_534;

let scratch: TemporaryDirectory;
let registry: DockerRegistry;
let small = "";
let source = "";

before(async () => {
  assert.equal(process.geteuid?.(), 0, "this test mounts filesystems: run it as root");
  scratch = await TemporaryDirectory.create();
  small = scratch.join("small");
  source = `oci:${scratch.join("source")}:v1`;
  const noise = createCipheriv("aes-256-ctr", Buffer.alloc(32), Buffer.alloc(16)).update(Buffer.alloc(72_000_000)); // more than blobs may take of memory
  await writeImage(scratch.join("source"), "v1", { layers: [layerOf([{ name: "big", data: noise }])] });
  registry = await startDockerRegistry();
  const pushed = await execute("skopeo", ["copy", "--dest-tls-verify=false", source, `docker://${registry.host}/app:v1`]);
  assert.equal(pushed.status, 0, pushed.stderr);
  await mkdir(small);
  await run("mount", ["-t", "tmpfs", "-o", "size=4m", "lazylayer-test", small]);
});

after(async () => {
  await run("umount", [small]);
  await registry.stop();
  await scratch[Symbol.asyncDispose]();
});

function assertFailed({ status, stdout, stderr }: CommandResult, expected: RegExp): void {
  assert.match(stderr, expected);
  assert.deepEqual([status, stdout.toString(), stderr.trimEnd().split("\n").length], [1, "", 1], stderr);
}

test("a full disk for temporary data ends a conversion with an error that names it, and is left empty", async () => {
  const target = scratch.join("target");
  assertFailed(await lazylayer(["convert", source, `oci:${target}:v1`], { env: { TMPDIR: small } }), new RegExp(`${small}/.*ENOSPC`));
  assert.deepEqual(readdirSync(small), []);
  assert.equal(existsSync(target), false);
  assertFailed(
    await convertor(["-r", `${registry.host}/app`, "-i", "v1", "-o", "x", "-d", join(small, "a/b")]),
    new RegExp(`${small}/.*ENOSPC`),
  );
  assert.deepEqual(readdirSync(small), []);
  const { status } = await execute("skopeo", ["inspect", "--tls-verify=false", "--raw", `docker://${registry.host}/app:x`]);
  assert.notEqual(status, 0, "there is no such tag");
});

test("a full disk for the result ends a conversion with an error, and leaves no half blob and no tag", async () => {
  assertFailed(
    await lazylayer(["convert", source, `oci:${join(small, "out")}:v1`], { env: { TMPDIR: scratch.path } }),
    new RegExp(`${small}/.*ENOSPC`),
  );
  assert.deepEqual(
    readdirSync(small, { recursive: true }).filter((name) => String(name).includes(".tmp") || /[0-9a-f]{64}/.test(String(name))),
    [],
  );
  assertFailed(await lazylayer(["ls", `oci:${join(small, "out")}:v1`]), /has no image "v1"/);
});

test("a directory that cannot be made or written to is named", async () => {
  const target = `oci:${scratch.join("never")}:v1`;
  assertFailed(await lazylayer(["convert", source, target], { env: { TMPDIR: scratch.join("missing") } }), /missing\/lazylayer-/);
  assertFailed(await lazylayer(["convert", source, "oci:/dev/null/x:v1"]), /\/dev\/null/);
  assertFailed(await convertor(["-r", `${registry.host}/app`, "-i", "v1", "-o", "x", "-d", "/dev/null/x"]), /\/dev\/null\/x.*ENOTDIR/);

  const locked = scratch.join("locked");
  await mkdir(locked);
  await chown(locked, NOBODY, NOBODY);
  await chmod(locked, 0o500);
  await chmod(scratch.path, 0o755);
  const nobody = [...AS_NOBODY, LAZYLAYER];
  const call = [...nobody, "convert", source, `oci:${locked}/out:v1`];
  assertFailed(await execute("setpriv", call, { env: { ...CLEAN_ENVIRONMENT, TMPDIR: locked } }), /EACCES: permission denied.*locked/);
  assertFailed(await execute("setpriv", call, { env: { ...CLEAN_ENVIRONMENT, TMPDIR: "/tmp" } }), /locked/);
});
