import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { openLayoutStore } from "../../src/image-layout/layout-store.ts";
import { encodeJson } from "../../src/oci/json.ts";
import { parseManifest } from "../../src/oci/manifest.ts";
import { OCI_INDEX } from "../../src/oci/media-types.ts";
import { openRegistryStore } from "../../src/registry/registry-store.ts";
import type { CommandResult } from "../support/command.ts";
import { convertLayout } from "../support/convert.ts";
import { startDockerRegistry } from "../support/docker-registry.ts";
import { copyImage, layerOf, writeImage } from "../support/image-builder.ts";
import { convertor, lazylayer } from "../support/programs.ts";
import type { TarMember } from "../support/tar-builder.ts";
import { TemporaryDirectory } from "../support/temporary-directory.ts";

const WITHOUT_DATABASE = { LAZYLAYER_DB_TYPE: "none" };

let scratch: TemporaryDirectory;
before(async () => (scratch = await TemporaryDirectory.create()));
after(async () => await scratch[Symbol.asyncDispose]());

/** Texts that would leave `marker` behind if a shell, a path or a format string took them for more than text. */
function commands(marker: string): string[] {
  return [
    `$(touch ${marker})`,
    `\`touch ${marker}\``,
    `; touch ${marker} #`,
    `x\n touch ${marker}`,
    `' || touch ${marker} || '`,
    "%s%n",
    "../../../x",
  ];
}

function succeeded({ status, stdout, stderr }: CommandResult): string {
  assert.equal(status, 0, stderr);
  return stdout.toString();
}

test("labels, commands, volumes, users and annotations of an image are data: they are kept, and never run", async () => {
  const marker = scratch.join("marker");
  const texts = commands(marker);
  const labels = Object.fromEntries(texts.map((text, at) => [`${text}-${at}`, text]));
  const User = `4294967296:${texts[0]}`;
  const config = {
    User,
    Cmd: texts,
    Entrypoint: texts,
    Env: [`A=${texts[0]}`],
    Labels: labels,
    Volumes: { [`/../../..${marker}`]: {} },
    WorkingDir: texts[0],
  };
  const [directory, name] = [scratch.join("in"), scratch.join("out")];
  const layers = [layerOf([{ name: "f", data: "content" }])];
  await writeImage(directory, "x", { layers, config: { config, author: texts[0] }, manifest: { annotations: labels } });
  const [cwd, env] = [scratch.join("cwd"), { ...WITHOUT_DATABASE, TMPDIR: scratch.join("tmp") }];
  await Promise.all([cwd, env.TMPDIR].map(async (path) => await mkdir(path)));
  succeeded(await lazylayer(["convert", `oci:${directory}:x`, `oci:${name}:x`], { cwd, env }));
  assert.equal(succeeded(await lazylayer(["cat", `oci:${name}:x`, "/f"], { cwd, env })), "content");
  succeeded(await lazylayer(["ls", `oci:${name}:x`], { cwd, env }));
  succeeded(await lazylayer(["verify", `oci:${directory}:x`, `oci:${name}:x`], { cwd, env }));
  const store = await openLayoutStore(name);
  const { bytes, descriptor } = await store.resolve({ tag: "x" });
  const manifest = parseManifest(bytes, descriptor.mediaType, "x");
  const converted = JSON.parse(Buffer.from(await store.blob(manifest.config)).toString()) as { config: unknown };
  await store.close();
  assert.deepEqual(converted.config, config);
  assert.equal(existsSync(marker), false, "nothing was run");
  assert.deepEqual([readdirSync(cwd), readdirSync(env.TMPDIR)], [[], []]);
});

test("a platform's name is no path: what is kept of a conversion stays in its directory", async () => {
  await using registry = await startDockerRegistry();
  const [directory, cwd] = [scratch.join("platforms"), scratch.join("platforms-cwd")];
  await mkdir(cwd);
  const image = await writeImage(directory, "one", { layers: [layerOf([{ name: "f", data: "x" }])] });
  const manifests = commands(scratch.join("marker")).map((text) => ({
    ...image,
    platform: { os: "linux", architecture: text, variant: "../.." },
  }));
  const layout = await openLayoutStore(directory);
  await layout.putManifest(encodeJson({ schemaVersion: 2, mediaType: OCI_INDEX, manifests }), OCI_INDEX, { tag: "all" });
  const store = openRegistryStore({ kind: "registry", host: registry.host, repository: "app" });
  await copyImage(layout, { tag: "all" }, store, "all");
  await store.close();
  const args = ["-r", `${registry.host}/app`, "-i", "all", "-o", "converted", "-d", "kept", "--reserve", "--dump-manifest"];
  const { status, stderr } = await convertor(args, { cwd, env: WITHOUT_DATABASE });
  assert.equal(status, 0, stderr);
  assert.deepEqual(
    readdirSync(cwd).filter((name) => name !== "kept"),
    [],
  );
  assert.equal(existsSync(scratch.join("marker")), false, "nothing was run");
});

test("members that would climb out of an image end up inside of it, and nothing outside is touched", async () => {
  const [directory, out, victim] = [scratch.join("climb"), scratch.join("climb-out"), scratch.join("victim")];
  const climb = "../".repeat(12);
  const members: TarMember[] = [
    { name: `${climb}${victim.slice(1)}`, data: "climbed" },
    { name: `${victim}-absolute`, data: "climbed" },
    { name: "out", type: "symlink", link: "/" },
    { name: "up", type: "symlink", link: `${climb}tmp` },
    { name: `out/${victim.slice(1)}-through-link`, data: "climbed" },
  ];
  await writeImage(directory, "x", { layers: [layerOf(members)] });
  await convertLayout(directory, "x", out);
  for (const path of [victim, `${victim}-absolute`, `${victim}-through-link`]) {
    assert.equal(existsSync(path), false, "nothing is outside");
    assert.equal(succeeded(await lazylayer(["cat", `oci:${out}:x`, path], { env: WITHOUT_DATABASE })), "climbed");
  }
});

test("a hard link to a file outside of an image is refused", async () => {
  const [directory, out, secret] = [scratch.join("hard"), scratch.join("hard-out"), join(import.meta.dirname, "../../package.json")];
  assert.ok(readFileSync(secret).length > 0);
  for (const target of [secret, `${"../".repeat(12)}${secret.slice(1)}`]) {
    const layer = layerOf([{ name: "stolen", type: "hardlink", link: target }]);
    await writeImage(directory, "x", { layers: [layer] });
    await assert.rejects(convertLayout(directory, "x", out), { code: "CORRUPT", message: /stolen/ });
    assert.equal(existsSync(out), false);
  }
});
