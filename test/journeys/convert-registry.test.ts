import assert from "node:assert/strict";
import { chmod, mkdir, writeFile } from "node:fs/promises";
import { delimiter } from "node:path";
import { after, before, test } from "node:test";
import { openLayoutStore } from "../../src/image-layout/layout-store.ts";
import { parseReference } from "../../src/oci/reference.ts";
import { FixedCredentials } from "../../src/registry/credentials.ts";
import { openRegistryStore } from "../../src/registry/registry-store.ts";
import type { CommandResult } from "../support/command.ts";
import { REGISTRY_USER, startDockerRegistry, type DockerRegistry } from "../support/docker-registry.ts";
import { copyImage } from "../support/image-builder.ts";
import { copyImages, type ImagesLayout } from "../support/images.ts";
import { lazylayer } from "../support/programs.ts";
import { TemporaryDirectory } from "../support/temporary-directory.ts";

const { username, password } = REGISTRY_USER;

let images: ImagesLayout;
let open: DockerRegistry;
let locked: DockerRegistry;
/** What a conversion of the image in the layout gives. */
let expected = "";

before(async () => {
  images = await copyImages();
  [open, locked] = await Promise.all([startDockerRegistry(), startDockerRegistry({ basicAuth: true })]);
  await push(`${open.host}/team/app:v1`, "small-oci-v1");
  await push(`${locked.host}/team/app:v1`, "small-oci-v1");
  const scratch = await TemporaryDirectory.create();
  expected = printed(await lazylayer(["convert", `oci:${images.directory}:small-oci-v1`, `oci:${scratch.join("out")}:x`]));
  await scratch[Symbol.asyncDispose]();
});

after(async () => {
  await Promise.all([open.stop(), locked.stop()]);
  await images[Symbol.asyncDispose]();
});

async function push(text: string, tag: string): Promise<void> {
  const reference = parseReference(text);
  assert.ok(reference.kind === "registry");
  const from = await openLayoutStore(images.directory);
  const to = openRegistryStore(reference, { credentials: new FixedCredentials(username, password) });
  await copyImage(from, { tag }, to, reference.tag ?? "latest");
  await to.close();
}

function printed({ status, stdout, stderr }: CommandResult): string {
  assert.equal(status, 0, stderr);
  return stdout.toString();
}

function assertRefused({ status, stdout, stderr }: CommandResult, pattern: RegExp): void {
  assert.match(stderr, pattern);
  assert.doesNotMatch(stderr, new RegExp(password));
  assert.deepEqual([status, stdout.toString()], [1, ""]);
}

test("an image goes from registry to registry: same repository, another one, another registry, a directory and back", async () => {
  await using scratch = await TemporaryDirectory.create();
  const source = `${open.host}/team/app:v1`;
  const layout = `oci:${scratch.join("out")}:x`;
  const rows: [from: string, to: string][] = [
    [source, `${open.host}/team/app:v1-obd`],
    [source, `${open.host}/other/app:v1`],
    [source, layout],
    [`oci:${images.directory}:small-oci-v1`, `${open.host}/from-layout:v1`],
  ];
  for (const [from, to] of rows) {
    assert.equal(printed(await lazylayer(["convert", from, to])), expected, `${from} to ${to}`);
    assert.equal(printed(await lazylayer(["verify", from, to])), "", to);
  }
  const elsewhere = ["-u", `${username}:${password}`, source, `${locked.host}/copy:v1`];
  assert.equal(printed(await lazylayer(["convert", ...elsewhere])), expected);
  assert.equal(printed(await lazylayer(["verify", ...elsewhere])), "");
  const converted = `${open.host}/team/app:v1-obd`;
  assert.match(printed(await lazylayer(["ls", converted])), /^app\nbin\ndev\n/);
  assert.match(printed(await lazylayer(["cat", converted, "/etc/passwd"])), /^root:/);
});

test("a digest names an image in a registry", async () => {
  const digest = "sha256:0da5ea15638d84985451ec3d570c9153edb121945591482ec78aa888aba87a6e";
  assert.equal(printed(await lazylayer(["convert", `${open.host}/team/app@${digest}`, `${open.host}/by-digest:x`])), expected);
  const missing = `${open.host}/team/app@sha256:${"0".repeat(64)}`;
  assertRefused(await lazylayer(["convert", missing, `${open.host}/by-digest:y`]), /team\/app@sha256:0000/);
  assertRefused(await lazylayer(["convert", `${open.host}/none:v1`, `${open.host}/by-digest:y`]), /none/);
});

test("credentials come from the command line, from standard input, or from where docker and podman keep them", async () => {
  await using scratch = await TemporaryDirectory.create();
  const auth = Buffer.from(`${username}:${password}`).toString("base64");
  const stored = JSON.stringify({ auths: { [locked.host]: { auth } } });
  await mkdir(scratch.join("docker"));
  await writeFile(scratch.join("docker/config.json"), stored);
  await writeFile(scratch.join("auth.json"), stored);
  await mkdir(scratch.join("helped"));
  await writeFile(scratch.join("helped/config.json"), JSON.stringify({ credHelpers: { [locked.host]: "testing" } }));
  const answer = JSON.stringify({ Username: username, Secret: password });
  await writeFile(scratch.join("docker-credential-testing"), `#!/bin/sh\n[ "$1" = get ] && echo '${answer}'\n`);
  await chmod(scratch.join("docker-credential-testing"), 0o755);

  const source = `${locked.host}/team/app:v1`;
  const ways: [name: string, args: string[], options: { input?: string; env?: Record<string, string> }][] = [
    ["user", ["-u", `${username}:${password}`], {}],
    ["stdin", ["-u", username, "--password-stdin"], { input: `${password}\n` }],
    ["docker", [], { env: { DOCKER_CONFIG: scratch.join("docker") } }],
    ["podman", [], { env: { REGISTRY_AUTH_FILE: scratch.join("auth.json") } }],
    ["helper", [], { env: { DOCKER_CONFIG: scratch.join("helped"), PATH: `${scratch.path}${delimiter}${process.env["PATH"]}` } }],
  ];
  for (const [name, args, options] of ways) {
    const result = await lazylayer(["convert", ...args, source, `${locked.host}/team/app:${name}`], options);
    assert.equal(printed(result), expected, name);
    assert.doesNotMatch(result.stderr, new RegExp(password), name);
  }
  assert.match(printed(await lazylayer(["ls", "-u", `${username}:${password}`, `${locked.host}/team/app:user`])), /^app\n/);
});

test("no or wrong credentials are refused, and nothing is converted", async () => {
  const call = ["convert", `${locked.host}/team/app:v1`, `${locked.host}/team/app:never`];
  assertRefused(await lazylayer(call), /401|credentials|log in/i);
  assertRefused(await lazylayer([...call, "-u", `${username}:wrong-${username}`]), /401|credentials|log in/i);
  assertRefused(await lazylayer(["ls", "-u", `${username}:${password}`, `${locked.host}/team/app:never`]), /never/);
});
