import assert from "node:assert/strict";
import { mkdir, open, readFile, stat, symlink, writeFile } from "node:fs/promises";
import { request } from "node:http";
import { test } from "node:test";
import { once } from "node:events";
import { z } from "zod";
import { deviceStatsSchema } from "../../src/daemon/device-stats.ts";
import { MemorySource } from "../../src/bytes/source.ts";
import { openLayer } from "../../src/formats/lsmt/lsmt-reader.ts";
import { stackLayers } from "../../src/formats/lsmt/stack.ts";
import { openZFile } from "../../src/formats/zfile/zfile-reader.ts";
import { digestOf, hexOf } from "../../src/oci/digest.ts";
import { openTarPayload } from "../../src/tar/payload.ts";
import { execute, run } from "../support/command.ts";
import { DaemonBench } from "../support/daemon-bench.ts";
import { startDockerRegistry } from "../support/docker-registry.ts";
import { AS_NOBODY } from "../support/nobody.ts";
import { CLEAN_ENVIRONMENT, LAZYLAYER } from "../support/programs.ts";
import { unusedPort } from "../support/server-process.ts";
import { pushStack } from "../support/stack-registry.ts";
import { listTree, stackLayerBlobs, stackTree } from "./mount-support.ts";

/** The device of the image in testdata is 64 GiB; what differs from zeros is at its front. */
const COMPARED_MIB = 24;
const FRONT_BYTES = 4_000_000;

async function frontOf(path: string): Promise<string> {
  return await run("sh", ["-c", `dd if="$1" bs=1M count=${COMPARED_MIB} iflag=fullblock status=none | sha256sum`, "sh", path]);
}

async function treeOn(bench: DaemonBench, device: string, ...options: string[]): Promise<unknown[]> {
  await mkdir(bench.join("tree"), { recursive: true });
  await run("mount", ["-o", ["ro", ...options].join(","), device, bench.join("tree")]);
  try {
    return await listTree(bench.join("tree"));
  } finally {
    await run("umount", [bench.join("tree")]);
  }
}

test("an image is shown as a file, a block device, over NBD and mounted, and is the same everywhere", async () => {
  await using bench = await DaemonBench.start();
  const config = await bench.stackConfig();
  const path = bench.join("config.json");
  await writeFile(path, JSON.stringify(config));
  await mkdir(bench.join("mnt"));
  await symlink(bench.join("mnt"), bench.join("link"));

  const created = await bench.device("create", path, "--id", "file");
  assert.deepEqual([created.status, created.stderr], [0, ""]);
  const file = created.stdout.toString().trimEnd();
  assert.equal(await readFile(bench.join("result"), "utf8"), "success");
  assert.deepEqual(await treeOn(bench, file, "loop"), stackTree());

  const loop = await bench.create({ id: "loop", config: path, expose: { kind: "loop" } });
  assert.ok(loop.access?.kind === "loop");
  assert.deepEqual(await treeOn(bench, loop.access.device), stackTree());
  assert.equal(await frontOf(loop.access.device), await frontOf(file));

  const nbd = await bench.device("create", "--id=nbd", "--expose=nbd", path, "--output=json");
  const { access } = z.object({ access: z.object({ uri: z.string() }) }).parse(JSON.parse(nbd.stdout.toString()));
  assert.match(access.uri, /^nbd\+unix:/);
  const port = await bench.device("create", "--id=port", "--expose=nbd=127.0.0.1:0", path);
  const uri = port.stdout.toString().trimEnd();
  assert.match(uri, /^nbd:\/\/127\.0\.0\.1:[1-9]\d*\/port$/);
  const copy = `nbdcopy "$1" - | dd bs=1M count=${COMPARED_MIB} iflag=fullblock status=none | sha256sum`;
  for (const each of [access.uri, uri]) assert.equal(await run("sh", ["-c", copy, "sh", each]), await frontOf(file));

  const mounted = await bench.device("create", "--id", "mount", "--expose", `mount=${bench.join("link")}`, path);
  assert.equal(mounted.stdout.toString(), `${bench.join("mnt")}\n`);
  assert.deepEqual(await listTree(bench.join("mnt")), stackTree());

  const list = (await bench.device("list")).stdout.toString();
  assert.deepEqual(
    list
      .trimEnd()
      .split("\n")
      .map((line) => line.split("\t").slice(0, 2).join(" ")),
    ["file running", "loop running", "nbd running", "port running", "mount running"],
  );
  for (const id of ["file", "loop", "nbd", "port", "mount"]) assert.equal((await bench.device("remove", id)).stderr, "");
  await bench.allGone();
});

test("an image comes from a registry, and what was read is counted", async () => {
  await using registry = await startDockerRegistry();
  const config = await pushStack(registry.host);
  const port = await unusedPort();
  await using bench = await DaemonBench.start({ exporterConfig: { enable: true, port, uriPrefix: "/metrics" } });
  await mkdir(bench.join("mnt"));
  await bench.create({ id: "remote", config, expose: { kind: "mount", directory: bench.join("mnt") } });
  assert.deepEqual(await listTree(bench.join("mnt")), stackTree());

  const stats = deviceStatsSchema.parse(await bench.call("GET", "/devices/remote/stats"));
  assert.ok(stats.downloads.bytes > 0 && stats.downloads.bytes <= 3 * stats.blobBytes, JSON.stringify(stats));
  assert.ok(stats.reads.cached > 0, "what is cached is read without waiting");
  assert.match((await bench.device("stats", "remote")).stdout.toString(), /^downloads +\d+, \d+ bytes$/m);

  const response = await fetch(`http://127.0.0.1:${port}/metrics`);
  assert.equal(response.headers.get("content-type"), "text/plain; version=0.0.4");
  const page = await response.text();
  assert.match(page, new RegExp(`^OverlayBD_Count\\{node="download",type=""\\}  ${stats.downloads.bytes}\\.000000 \\d+$`, "m"));
  assert.match(page, /^lazylayer_devices\{state="running"\} 1$/m);
  assert.equal((await fetch(`http://127.0.0.1:${port}/`)).status, 404);
  await bench.remove("remote");
  const afterwards = await (await fetch(`http://127.0.0.1:${port}/metrics`)).text();
  assert.match(afterwards, new RegExp(`^lazylayer_downloaded_bytes_total ${stats.downloads.bytes}$`, "m"), "what it had stays");
  assert.match(afterwards, /^lazylayer_devices\{state="running"\} 0$/m);
  await bench.allGone();
});

test("what cannot be done is refused with a reason, and leaves nothing behind", async () => {
  await using bench = await DaemonBench.start();
  const config = await bench.stackConfig();
  await bench.create({ id: "taken", config });
  assert.deepEqual(await refusal(bench, "POST", "/devices", { id: "taken", config }), [409, "USAGE", "duplicated dev id: taken"]);
  assert.equal(await readFile(bench.join("result"), "utf8"), "failed:duplicated dev id: taken");

  const missing = { lowers: [{ file: bench.join("nothing"), digest: digestOf(Buffer.from("nothing")) }], resultFile: bench.join("result") };
  assert.equal((await refusal(bench, "POST", "/devices", { id: "missing", config: missing }))[0], 400);
  assert.equal(await readFile(bench.join("result"), "utf8"), "failed:empty repoBlobUrl");
  await mkdir(bench.join("mnt"));
  const writable = { kind: "mount", directory: bench.join("tree"), readOnly: false };
  for (const [status, method, path, body] of [
    [404, "GET", "/devices/none", undefined],
    [404, "DELETE", "/devices/none", undefined],
    [404, "GET", "/nothing", undefined],
    [405, "DELETE", "/devices", undefined],
    [400, "DELETE", "/devices/taken?force=perhaps", undefined],
    [400, "POST", "/devices", { id: "../up", config }],
    [400, "POST", "/devices", { id: "a", config: "relative.json" }],
    [404, "POST", "/devices", { id: "a", config: bench.join("missing.json") }],
    [400, "POST", "/devices", { id: "a", config, expose: { kind: "tcmu" } }],
    [404, "POST", "/devices", { id: "a", config, expose: writable }],
    [400, "POST", "/devices", { id: "a", config, expose: { ...writable, directory: bench.join("mnt") } }],
    [400, "POST", "/devices", { id: "a", config, expose: { kind: "mount", directory: "/proc" } }],
    [400, "POST", "/devices", { id: "a", config, more: 1 }],
    [400, "POST", "/devices/taken/snapshot", { config: bench.join("missing.json") }],
  ] as const) {
    assert.equal((await refusal(bench, method, path, body))[0], status, `${method} ${path} ${JSON.stringify(body)}`);
  }
  const { status, stdout, stderr } = await bench.device("remove", "none");
  assert.deepEqual([status, stdout.toString()], [1, ""]);
  assert.match(stderr, /there is no device "none"/);
  await bench.remove("taken");
  await bench.allGone();
});

test("a device that is in use goes on, unless its removal is forced", async () => {
  await using bench = await DaemonBench.start();
  const config = await bench.stackConfig();
  await mkdir(bench.join("mnt"));
  const loop = await bench.create({ id: "loop", config, expose: { kind: "loop" } });
  await bench.create({ id: "mount", config, expose: { kind: "mount", directory: bench.join("mnt") } });
  assert.ok(loop.access?.kind === "loop");
  await mkdir(bench.join("tree"));
  await run("mount", ["-o", "ro", loop.access.device, bench.join("tree")]);
  {
    const user = await open(bench.join("mnt", "bin"), "r");
    assert.equal((await refusal(bench, "DELETE", "/devices/mount"))[0], 409);
    await user.close();
  }
  assert.equal((await refusal(bench, "DELETE", "/devices/loop"))[0], 409);
  assert.deepEqual(await listTree(bench.join("tree")), stackTree());
  await bench.remove("loop", true);
  await assert.rejects(run("dd", [`if=${loop.access.device}`, "of=/dev/null", "bs=4096", "count=1", "iflag=direct"]));
  await run("umount", [bench.join("tree")]);
  // Unmounting by hand is an end like any other.
  await run("umount", [bench.join("mnt")]);
  await bench.allGone();
  for (let i = 0; i < 100 && (await bench.device("list")).stdout.length > 0; i++) await new Promise((resolve) => setTimeout(resolve, 50));
  assert.equal((await bench.device("list")).stdout.toString(), "");
});

test("a daemon whose directory is reached by a symbolic link finds what it has mounted there", async () => {
  await using bench = await DaemonBench.start({}, { link: "link" });
  const config = await bench.stackConfig();
  await mkdir(bench.join("mnt"));
  for (const expose of [{ kind: "fuse" }, { kind: "loop" }, { kind: "mount", directory: bench.join("mnt") }]) {
    await bench.create({ id: expose.kind, config, expose });
    await bench.remove(expose.kind);
    await bench.allGone();
  }
});

test("one daemon has a socket, which only its owner may use", async () => {
  await using bench = await DaemonBench.start();
  assert.equal((await stat(bench.socket)).mode & 0o777, 0o600);
  await run("chmod", ["755", bench.join(".")]);
  const listing = [process.execPath, bench.join("nobody.mjs")];
  await writeFile(
    bench.join("nobody.mjs"),
    `import { connect } from "node:net"; connect(${JSON.stringify(bench.socket)}).on("error", (e) => console.log(e.code)).on("connect", () => console.log("connected"));`,
  );
  const nobody = await execute("setpriv", [...AS_NOBODY, ...listing]);
  assert.equal(nobody.stdout.toString(), "EACCES\n", nobody.stderr);
  const second = await execute(LAZYLAYER, ["daemon", "--config", bench.join("service.json"), "--socket", bench.socket], {
    env: CLEAN_ENVIRONMENT,
  });
  assert.deepEqual([second.status, second.stdout.toString()], [1, ""]);
  assert.match(second.stderr, /another server listens there/);
  assert.equal((await bench.device("list")).status, 0);
});

test("fifty devices are there at once, and read what their layers hold", async () => {
  await using bench = await DaemonBench.start();
  const config = await bench.stackConfig();
  const ids = Array.from({ length: 50 }, (_, index) => `device-${index}`);
  const sums: string[] = [];
  const waiting = [...ids];
  const create = async (): Promise<void> => {
    for (let id = waiting.pop(); id !== undefined; id = waiting.pop()) {
      const { access } = await bench.create({ id, config });
      assert.ok(access?.kind === "fuse");
      sums.push(await run("sh", ["-c", `head -c ${FRONT_BYTES} "$1" | sha256sum | cut -d " " -f 1`, "sh", access.path]));
    }
  };
  await Promise.all(Array.from({ length: 5 }, create));
  assert.equal(bench.processes().length, ids.length);
  const layers = stackLayerBlobs().map(async (blob) => await openLayer(await openZFile(await openTarPayload(new MemorySource(blob)))));
  const expected = digestOf(await stackLayers(await Promise.all(layers)).read(0, FRONT_BYTES));
  assert.deepEqual(
    sums,
    ids.map(() => `${hexOf(expected)}\n`),
  );
  await Promise.all(ids.map(async (id) => await bench.remove(id)));
  await bench.allGone();
});

async function refusal(bench: DaemonBench, method: string, path: string, body?: object): Promise<[number | undefined, string, string]> {
  const sent = request({ socketPath: bench.socket, method, path, agent: false });
  sent.end(body === undefined ? undefined : JSON.stringify(body));
  const [response] = (await once(sent, "response")) as [AsyncIterable<Buffer> & { statusCode: number }];
  let text = "";
  for await (const chunk of response) text += chunk.toString();
  const schema = z.strictObject({ success: z.literal(false), code: z.string(), message: z.string().min(1) });
  const { code, message } = schema.parse(JSON.parse(text));
  return [response.statusCode, code, message];
}
