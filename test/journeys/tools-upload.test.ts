import assert from "node:assert/strict";
import { readdir, readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { createCommitTool } from "../../src/cli/tools/overlaybd-commit.ts";
import { createMergeTool } from "../../src/cli/tools/overlaybd-merge.ts";
import { digestOf, hexOf } from "../../src/oci/digest.ts";
import type { CommandOptions, CommandResult } from "../support/command.ts";
import { REGISTRY_USER, startDockerRegistry, type DockerRegistry } from "../support/docker-registry.ts";
import { lsmtBytes } from "../support/lsmt-files.ts";
import { TemporaryDirectory } from "../support/temporary-directory.ts";
import { tlsFile } from "../support/tls-registry.ts";
import { runLauncher, runTool } from "./tools-support.ts";

const BASIC = Buffer.from(`${REGISTRY_USER.username}:${REGISTRY_USER.password}`).toString("base64");

let registry: DockerRegistry;
let scratch: TemporaryDirectory;
let url: string;

before(async () => {
  registry = await startDockerRegistry({ basicAuth: true });
  scratch = await TemporaryDirectory.create();
  url = `http://${registry.host}/v2/some/app/blobs/uploads`;
  await writeFile(scratch.join("data"), lsmtBytes("append/writable_data.zst"));
  await writeFile(scratch.join("index"), lsmtBytes("append/writable_index"));
  await writeFile(scratch.join("cred.json"), JSON.stringify({ auths: { [registry.host]: { auth: BASIC } } }));
  await writeFile(scratch.join("broken.json"), "{");
});

after(async () => {
  await registry[Symbol.asyncDispose]();
  await scratch[Symbol.asyncDispose]();
});

function commitArgs(target: string, ...more: string[]): string[] {
  return [scratch.join("data"), scratch.join("index"), scratch.join(target), "-z", "--upload", url, ...more];
}

async function fetchBlob(digest: string): Promise<Buffer> {
  const answer = await fetch(`http://${registry.host}/v2/some/app/blobs/${digest}`, { headers: { authorization: `Basic ${BASIC}` } });
  assert.equal(answer.status, 200);
  return Buffer.from(await answer.arrayBuffer());
}

test("overlaybd-commit --upload sends what it makes in pieces, and says its digest on standard error", async () => {
  const { status, stdout, stderr } = await runTool(
    createCommitTool,
    commitArgs("made", "--upload_bs", "16", "--cred_file_path", scratch.join("cred.json")),
  );
  assert.equal(status, 0, stderr);
  assert.equal(stdout, "overlaybd-commit has committed files SUCCESSFULLY\n");
  const made = await readFile(scratch.join("made"));
  assert.equal(stderr, `${digestOf(made)}\n`);
  assert.ok((await fetchBlob(digestOf(made))).equals(made));
  const whole = lsmtBytes("append/lz4-4k.commit");
  assert.ok(made.subarray(512).equals(whole.subarray(512)), "it differs in the header alone, which is never written over");
});

test("overlaybd-merge --upload sends what it makes", async () => {
  await writeFile(scratch.join("image.json"), JSON.stringify({ upper: { data: scratch.join("data"), index: scratch.join("index") } }));
  const args = [scratch.join("image.json"), scratch.join("merged"), "--upload", url, "--cred_file_path", scratch.join("cred.json")];
  const { status, stderr } = await runTool(createMergeTool, args);
  assert.equal(status, 0, stderr);
  const made = await readFile(scratch.join("merged"));
  assert.equal(stderr, `${digestOf(made)}\n`);
  assert.ok((await fetchBlob(digestOf(made))).equals(made));
});

test("overlaybd-merge reads layers from the registry, with the credentials and the cache of the service's configuration", async () => {
  await runTool(createCommitTool, commitArgs("remote", "--cred_file_path", scratch.join("cred.json")));
  const layer = await readFile(scratch.join("remote"));
  const lowers = [{ dir: "", digest: digestOf(layer), size: layer.length }];
  await writeFile(scratch.join("image.json"), JSON.stringify({ repoBlobUrl: `http://${registry.host}/v2/some/app/blobs`, lowers }));
  const service = { credentialFilePath: scratch.join("cred.json"), cacheConfig: { cacheType: "file", cacheDir: scratch.join("cache") } };
  await writeFile(scratch.join("service.json"), JSON.stringify(service));
  const args = [
    scratch.join("image.json"),
    scratch.join("plain"),
    "--compress=false",
    "--service_config_path",
    scratch.join("service.json"),
  ];
  const { status, stderr } = await runTool(createMergeTool, args);
  assert.equal(status, 0, stderr);
  assert.ok((await readFile(scratch.join("plain"))).equals(lsmtBytes("append/plain.commit.zst")));
  assert.notEqual((await readdir(scratch.join("cache"))).length, 0);
});

test("an upload goes to a registry over TLS, which knows its client by a certificate", async () => {
  const [certificate, key, clientAuthority] = [tlsFile("server"), tlsFile("server-key"), tlsFile("ca")];
  await using secured = await startDockerRegistry({ tls: { certificate, key, clientAuthority } });
  const place = ["--upload", `https://${secured.host}/v2/some/app/blobs/uploads`];
  const own = ["--tls_cert_path", tlsFile("client"), "--tls_key_path", tlsFile("client-key")];
  const trusting = { env: { SSL_CERT_FILE: clientAuthority } };
  const commit = async (target: string, more: readonly string[], options: CommandOptions): Promise<CommandResult> =>
    await runLauncher("overlaybd-commit", [scratch.join("data"), scratch.join("index"), scratch.join(target), "-z", ...more], options);
  const { status, stderr } = await commit("secured", [...place, ...own], trusting);
  const made = await readFile(scratch.join("secured"));
  assert.deepEqual({ status, stderr }, { status: 0, stderr: `${digestOf(made)}\n` });
  const hex = hexOf(digestOf(made));
  assert.ok((await readFile(join(secured.directory, "docker/registry/v2/blobs/sha256", hex.slice(0, 2), hex, "data"))).equals(made));

  await writeFile(scratch.join("image.json"), JSON.stringify({ upper: { data: scratch.join("data"), index: scratch.join("index") } }));
  const merged = await runLauncher(
    "overlaybd-merge",
    [scratch.join("image.json"), scratch.join("secured-merge"), ...place, ...own],
    trusting,
  );
  assert.deepEqual([merged.status, merged.stderr], [0, `${digestOf(await readFile(scratch.join("secured-merge")))}\n`]);

  const stranger = await commit("stranger", place, trusting);
  assert.equal(stranger.status, 255);
  assert.match(stranger.stderr, /failed to upload: .*certificate/);
  const wary = await commit("wary", [...place, ...own], {});
  assert.equal(wary.status, 255);
  assert.match(wary.stderr, /failed to upload: .*certificate/);
});

test("an upload that cannot be is told, and nothing is said to have been committed", async () => {
  const rows: readonly [args: string[], message: RegExp][] = [
    [commitArgs("a", "-t"), /--upload and -t contradict each other/],
    [commitArgs("b", "--cred_file_path", scratch.join("broken.json")), /failed to read upload cred file/],
    [commitArgs("c"), /401|denied|unauthorized/i],
    [[...commitArgs("d"), "--upload", `http://${registry.host}/some/app`], /expected a URL like/],
    [commitArgs("e", "--tls_key_path", scratch.join("cred.json")), /belong together/],
  ];
  for (const [args, message] of rows) {
    const { status, stdout, stderr } = await runTool(createCommitTool, args);
    assert.equal(status, 255, args.join(" "));
    assert.equal(stdout, "");
    assert.match(stderr, message);
  }
  await assert.rejects(stat(scratch.join("a")), { code: "ENOENT" });
});

test("a layer whose upload failed is complete and stays, and what the message says to run uploads it", async () => {
  const args = commitArgs("kept");
  const refused = await runTool(createCommitTool, args);
  assert.equal(refused.status, 255);
  const kept = await readFile(scratch.join("kept"));
  assert.match(
    refused.stderr,
    new RegExp(`^failed to upload: .*kept is complete, ${digestOf(kept)}, and stays; .* the same command with -f\n$`),
  );
  assert.match((await runTool(createCommitTool, args)).stderr, /File exists/);
  const { status, stderr } = await runTool(createCommitTool, [...args, "-f", "--cred_file_path", scratch.join("cred.json")]);
  assert.deepEqual({ status, stderr }, { status: 0, stderr: `${digestOf(kept)}\n` });
  assert.ok((await fetchBlob(digestOf(kept))).equals(kept));

  await writeFile(scratch.join("image.json"), JSON.stringify({ upper: { data: scratch.join("data"), index: scratch.join("index") } }));
  const merge = [scratch.join("image.json"), scratch.join("kept-merge"), "--upload", url];
  assert.match((await runTool(createMergeTool, merge)).stderr, /kept-merge is complete, sha256:.* or run the same command again\n$/);
  assert.equal((await runTool(createMergeTool, [...merge, "--cred_file_path", scratch.join("cred.json")])).status, 0);
});
