import assert from "node:assert/strict";
import { createCipheriv } from "node:crypto";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { z } from "zod";
import { LazyError } from "../../src/errors.ts";
import { TARGET_LAYERS } from "../../src/formats/trace/layout.ts";
import { parseTrace } from "../../src/formats/trace/trace-reader.ts";
import { openLayoutStore } from "../../src/image-layout/layout-store.ts";
import { MemorySource } from "../../src/bytes/source.ts";
import { parseMountInfo } from "../../src/native/mounts.ts";
import { digestOf } from "../../src/oci/digest.ts";
import { run, type CommandResult } from "../support/command.ts";
import { startDockerRegistry, type DockerRegistry } from "../support/docker-registry.ts";
import { layerOf, writeImage } from "../support/image-builder.ts";
import { lazylayerInProcess } from "../support/in-process.ts";
import { tarArchive } from "../support/tar-builder.ts";
import { TemporaryDirectory } from "../support/temporary-directory.ts";

const MAIN = join(import.meta.dirname, "../../src/cli/main.ts");
const ODD_NAME = `data/<b>&"odd"'`;

/** Bytes that do not compress. */
function noise(seed: number, bytes: number): Buffer {
  return createCipheriv("aes-256-ctr", Buffer.alloc(32, seed), Buffer.alloc(16)).update(Buffer.alloc(bytes));
}

let scratch: TemporaryDirectory;
let registry: DockerRegistry;
/** The image in both forms. */
let images: Readonly<Record<"overlaybd" | "turbo", string>>;

before(async () => {
  assert.equal(process.geteuid?.(), 0, "this test mounts file systems: run it as root");
  scratch = await TemporaryDirectory.create();
  registry = await startDockerRegistry();
  await mkdir(scratch.join("tmp"));
  const lower = layerOf([
    { name: "etc/motd", data: "hello\n" },
    { name: "data/first", data: noise(1, 3_000_000) },
    { name: "data/unread", data: noise(2, 8_000_000) },
    { name: "ldconfig", data: await readFile("/sbin/ldconfig"), mode: 0o755 }, // linked with nothing, so it runs alone
  ]);
  const upper = layerOf([
    { name: "data/second", data: noise(3, 2_000_000) },
    { name: ODD_NAME, data: noise(4, 100_000) },
  ]);
  await writeImage(scratch.join("source"), "v1", { layers: [lower, upper] });
  images = { overlaybd: `${registry.host}/app:obd`, turbo: `${registry.host}/app:turbo` };
  const destinations = ["--to", "overlaybd,turbo", `oci:${scratch.join("source")}:v1`, images.overlaybd, images.turbo];
  succeeds(await lazylayer("convert", ...destinations));
});

after(async () => {
  await registry?.stop();
  const left = parseMountInfo(readFileSync("/proc/self/mountinfo", "utf8")).filter(({ directory }) => directory.startsWith(scratch.path));
  assert.deepEqual([left, readdirSync(scratch.join("tmp"))], [[], []], "nothing is left behind");
  await scratch?.[Symbol.asyncDispose]();
});

async function lazylayer(...args: string[]): Promise<CommandResult> {
  return await lazylayerUntil(new AbortController().signal, ...args);
}

async function lazylayerUntil(signal: AbortSignal, ...args: string[]): Promise<CommandResult> {
  return await lazylayerInProcess(args, {
    signal,
    stateDirectory: scratch.join("state"),
    cacheDirectory: scratch.join("cache"),
    temporaryDirectory: scratch.join("tmp"),
    launcher: [process.execPath, "--disable-warning=ExperimentalWarning", MAIN],
    variables: process.env,
  });
}

function succeeds({ status, stdout, stderr }: CommandResult): string {
  assert.equal(status, 0, stderr);
  return stdout.toString();
}

const READ_ALL = `cat data/second etc/motd data/first '${ODD_NAME.replace("'", "'\\''")}' >/dev/null`;

/** What reading some of the image's files takes; recorded once. */
const recordings = new Map<string, Promise<string>>();
async function recorded(kind: "overlaybd" | "turbo"): Promise<string> {
  const recording = recordings.get(kind) ?? record(kind);
  recordings.set(kind, recording);
  return await recording;
}

async function record(kind: "overlaybd" | "turbo"): Promise<string> {
  const trace = scratch.join(`${kind}.trace`);
  const options = ["-o", trace, "--times", `${trace}.times`, "--cache-dir", scratch.join(`${kind}-recording`)];
  const { status, stdout, stderr } = await lazylayer("trace", "record", ...options, images[kind], "--", "sh", "-c", READ_ALL);
  assert.deepEqual([status, stdout.toString()], [0, ""], stderr);
  assert.match(stderr, /^\S+\.trace: \d+ reads of 5\.\d MB\n$/);
  return trace;
}

const mountStats = z.object({
  fetched: z.object({ requests: z.number(), bytes: z.number() }),
  prefetch: z.object({ pieces: z.number(), failed: z.number(), ended: z.boolean() }).optional(),
  reads: z.object({ fetchedReads: z.number() }),
});

/** What the one mount there is has done so far. */
async function stats(): Promise<z.infer<typeof mountStats>> {
  const [name] = readdirSync(scratch.join("state"));
  return mountStats.parse(JSON.parse(await run("cat", [scratch.join("state", name, "export", "stats")])));
}

async function replayed(): Promise<void> {
  while ((await stats()).prefetch?.ended !== true) await sleep(20);
}

/** Mounts an image with an empty cache, and gives the directory to `use`. */
async function mounted(name: string, args: readonly string[], use: (directory: string) => Promise<void>): Promise<string> {
  const directory = scratch.join(`mnt-${name}`);
  await mkdir(directory);
  const { status, stderr } = await lazylayer("mount", "--cache-dir", scratch.join(`cache-${name}`), ...args, directory);
  assert.equal(status, 0, stderr);
  try {
    await use(directory);
  } finally {
    succeeds(await lazylayer("umount", directory));
  }
  return stderr;
}

for (const kind of ["overlaybd", "turbo"] as const) {
  test(`what was recorded is replayed, and then read again without a request: ${kind}`, async () => {
    const trace = await recorded(kind);
    const records = parseTrace(await readFile(trace), trace);
    assert.equal(
      records.some(({ layer }) => layer >= TARGET_LAYERS),
      kind === "turbo",
    );
    const optimized = scratch.join(`${kind}.optimized`);
    const { stderr } = await lazylayer("trace", "optimize", trace, "-o", optimized);
    assert.match(stderr, new RegExp(`^${records.length} records became \\d+\n$`));
    assert.ok(parseTrace(await readFile(optimized), "optimized").length <= records.length);
    const args = ["--trace", optimized, images[kind]];
    const warnings = await mounted(`replay-${kind}`, args, async (directory) => {
      await replayed();
      const found = await stats();
      assert.equal(found.prefetch?.failed, 0);
      assert.ok(found.fetched.bytes < 10_000_000, "what was not read is not fetched");
      await run("sh", ["-c", READ_ALL], { cwd: directory });
      assert.equal((await stats()).fetched.requests, found.fetched.requests);
    });
    assert.equal(warnings, "");
  });
}

test("a list of paths is fetched ahead too, and what it names wrongly is no obstacle", async () => {
  const list = scratch.join("app.list");
  await writeFile(list, "/data/second\nno/such/file\netc/\n");
  await mounted("list", ["--trace", list, images.overlaybd], async (directory) => {
    await replayed();
    const { prefetch, fetched } = await stats();
    assert.equal(prefetch?.failed, 1);
    await run("cat", [join(directory, "data/second"), join(directory, "etc/motd")]);
    assert.equal((await stats()).fetched.requests, fetched.requests);
  });
});

test("a trace is shown record by record, and by the files that it is of", async () => {
  const trace = await recorded("overlaybd");
  const plain = succeeds(await lazylayer("trace", "show", trace))
    .trimEnd()
    .split("\n");
  assert.equal(plain.length, parseTrace(await readFile(trace), trace).length);
  for (const line of plain) assert.match(line, /^\d+\t[01]\t\d+\t\d+$/);
  const parts = succeeds(await lazylayer("trace", "show", trace, images.overlaybd))
    .trimEnd()
    .split("\n");
  const bytesOf = (path: string): number =>
    parts.map((line) => line.split("\t")).reduce((sum, [, , , bytes, found]) => sum + (found === path ? Number(bytes) : 0), 0);
  assert.equal(bytesOf("/data/first"), Math.ceil(3_000_000 / 512) * 512);
  assert.equal(bytesOf("/data/second"), Math.ceil(2_000_000 / 512) * 512);
  assert.equal(bytesOf("/data/unread"), 0);
  assert.ok(bytesOf("(file system)") > 0);
  const order = parts.map((line) => line.split("\t")[4]);
  assert.ok(order.indexOf("/data/second") < order.indexOf("/data/first"), "first accesses come first");
});

test("the page about a trace names files as text, and needs nothing else", async () => {
  const trace = await recorded("turbo");
  const page = scratch.join("page.html");
  assert.equal(succeeds(await lazylayer("trace", "show", "--html", page, "--times", `${trace}.times`, trace, images.turbo)), "");
  const html = await readFile(page, "utf8");
  assert.ok(html.includes("<td>/data/&#60;b&#62;&#38;&#34;odd&#34;&#39;</td>"));
  assert.doesNotMatch(html, /<b>|<script|<link|<img|url\(|\bsrc=|href=/);
  assert.match(html, /<td>3\.0 MB<\/td><td>\d+\.\d %<\/td><td>100\.0 %<\/td><td>[^<]+<\/td><td>\/data\/first<\/td>/);
  assert.doesNotMatch(html, /data\/unread/);
  assert.match(html, /since the mount began \(0 to \d+\.\d{3} s\)/);
  const marks = [...html.matchAll(/M(\d+) (\d+)h(\d+)v(\d+)h-\d+z/g)].map(([, ...numbers]) => numbers.map(Number));
  assert.ok(marks.length > 3);
  for (const [x, y, width, height] of marks) assert.ok(x + width <= 1000 && y + height <= 420, `${x} ${y} ${width} ${height}`);
  assert.ok(html.length < 20_000);
});

test("an image that carries a trace is mounted without that layer, and replays it", async () => {
  const trace = await readFile(await recorded("overlaybd"));
  const layout = scratch.join("accelerated");
  const image = `oci:${layout}:v1`;
  succeeds(await lazylayer("convert", `oci:${scratch.join("source")}:v1`, image));
  await addAcceleration(layout, trace);
  assert.equal(succeeds(await lazylayer("cat", image, "etc/motd")), "hello\n");
  const warnings = await mounted("accelerated", [image], async (directory) => {
    await replayed();
    const { prefetch, fetched } = await stats();
    assert.ok(prefetch!.pieces > 3);
    await run("sh", ["-c", READ_ALL], { cwd: directory });
    assert.equal((await stats()).fetched.requests, fetched.requests);
  });
  assert.equal(warnings, "");
  await addAcceleration(layout, trace.fill(0xff, 100, 101));
  const warning = await mounted("damaged-acceleration", [image], async (directory) => {
    assert.equal(await run("cat", [join(directory, "etc/motd")]), "hello\n");
    assert.equal((await stats()).prefetch, undefined);
  });
  assert.match(warning, /^warning: .*: trace: records have the checksum .*; mounted without fetching ahead\n$/);
});

const documents = z.looseObject({
  mediaType: z.string(),
  layers: z.array(z.looseObject({ annotations: z.record(z.string(), z.string()) })),
});

/** Puts a trace on top of a layout's image, instead of the one that it has. */
async function addAcceleration(layout: string, trace: Uint8Array): Promise<void> {
  const key = "containerd.io/snapshot/overlaybd/acceleration-layer";
  const store = await openLayoutStore(layout, { create: true });
  const { bytes } = await store.resolve({ tag: "v1" });
  const manifest = documents.parse(JSON.parse(Buffer.from(bytes).toString()));
  const blob = tarArchive([{ name: "trace", data: trace, mode: 0o444 }]);
  const layer = { mediaType: "application/vnd.oci.image.layer.v1.tar", digest: digestOf(blob), size: blob.length };
  await store.putBlob(layer, new MemorySource(blob));
  const layers = [
    ...manifest.layers.filter(({ annotations }) => annotations[key] === undefined),
    { ...layer, annotations: { [key]: "yes" } },
  ];
  await store.putManifest(Buffer.from(JSON.stringify({ ...manifest, layers })), manifest.mediaType, { tag: "v1" });
  await store.close();
}

test("a damaged trace is a warning to a mount, and an error to those who look at it", async () => {
  const damaged = scratch.join("damaged.trace");
  await writeFile(damaged, (await readFile(await recorded("overlaybd"))).subarray(0, -1));
  const warning = await mounted("damaged", ["--trace", damaged, images.overlaybd], async (directory) => {
    assert.equal(await run("cat", [join(directory, "etc/motd")]), "hello\n");
  });
  assert.match(warning, /^warning: \S+damaged\.trace: a trace of \d+ bytes, its header says .*; mounted without fetching ahead\n$/);
  for (const args of [
    ["show", damaged],
    ["optimize", damaged, "-o", damaged],
  ]) {
    const { status, stderr } = await lazylayer("trace", ...args);
    assert.deepEqual([status, stderr.split(": ")[0]], [1, "lazylayer"]);
    assert.match(stderr, /damaged\.trace: a trace of \d+ bytes, its header says/);
  }
});

test("a mount that records writes its trace when it ends, over the one before", async () => {
  const trace = scratch.join("mounted.trace");
  await writeFile(trace, "before");
  await mounted("recording", ["--record-trace", trace, images.overlaybd], async (directory) => {
    await run("cat", [join(directory, "data/second")]);
    assert.equal(await readFile(trace, "utf8"), "before");
    assert.ok(existsSync(`${trace}.lock`));
  });
  const records = parseTrace(await readFile(trace), trace);
  assert.ok(records.reduce((sum, { length }) => sum + length, 0) > 2_000_000);
  assert.deepEqual(
    readdirSync(scratch.path).filter((name) => name.startsWith("mounted.trace.")),
    ["mounted.trace.ok"],
  );
});

test("removing the lock ends a recording, and the mount goes on", async () => {
  const trace = scratch.join("unlocked.trace");
  await mounted("unlocked", ["--record-trace", trace, images.overlaybd], async (directory) => {
    await run("cat", [join(directory, "data/second")]);
    await rm(`${trace}.lock`);
    while (!existsSync(`${trace}.ok`)) await sleep(20);
    const before = await readFile(trace);
    await run("cat", [join(directory, "data/first")]);
    assert.deepEqual(await readFile(trace), before);
  });
});

test("a command of the image runs inside of it, with its own status", async () => {
  const trace = scratch.join("chroot.trace");
  const args = ["trace", "record", "--chroot", "-o", trace, images.overlaybd, "--", "/ldconfig"];
  const version = await lazylayer(...args, "-p", "-C", "/etc/motd");
  assert.equal(version.status, 1, "there is no cache in that file");
  assert.match(version.stderr, /reads of .*; the command's status is 1\n$/);
  const parts = succeeds(await lazylayer("trace", "show", trace, images.overlaybd));
  assert.match(parts, /\t\/ldconfig\n/);
});

test("a command that does not end by itself is ended, and what it read is recorded", async () => {
  const trace = scratch.join("service.trace");
  const command = ["sh", "-c", "cat etc/motd >/dev/null; exec sleep 600"];
  const { status, stderr } = await lazylayer("trace", "record", "--time", "0.5", "-o", trace, images.overlaybd, "--", ...command);
  assert.equal(status, 0, stderr);
  assert.ok(parseTrace(await readFile(trace), trace).length > 0);
});

test("a command that cannot be run, or an image that is not there, writes no trace and leaves no mount", async () => {
  const trace = scratch.join("none.trace");
  const record = ["trace", "record", "-o", trace];
  for (const [image, command, expected, code] of [
    [images.overlaybd, "no-such-program", /no-such-program: cannot be run: spawn no-such-program ENOENT/, 2],
    [`${registry.host}/app:none`, "true", /app:none|MANIFEST|not found|does not/i, 1],
  ] as const) {
    const { status, stderr } = await lazylayer(...record, image, "--", command);
    assert.match(stderr, expected);
    assert.equal(status, code);
    assert.ok(!existsSync(trace));
  }
});

test("a recording that is interrupted ends its command and is written", async () => {
  const trace = scratch.join("interrupted.trace");
  const marker = scratch.join("reads-now");
  const aborted = new AbortController();
  const command = ["sh", "-c", `cat etc/motd >/dev/null; touch ${marker}; exec sleep 600`];
  const running = lazylayerUntil(aborted.signal, "trace", "record", "-o", trace, images.overlaybd, "--", ...command);
  while (!existsSync(marker)) await sleep(20);
  aborted.abort(new LazyError("UNAVAILABLE", "told to end"));
  const { status, stderr } = await running;
  assert.equal(status, 1);
  assert.match(stderr, /reads of .*; the command's status is 143\nlazylayer: told to end\n$/);
  assert.ok(parseTrace(await readFile(trace), trace).length > 0);
});

test("a trace for which there is no room leaves the one that was there", async () => {
  const disk = scratch.join("full");
  const trace = join(disk, "trace");
  await mkdir(disk);
  await run("mount", ["-t", "tmpfs", "-o", "size=8k", "lazylayer-test", disk]);
  try {
    await writeFile(trace, "what was there");
    await run("sh", ["-c", 'cat /dev/zero >"$1/ballast"; true', "sh", disk]);
    const { status, stderr } = await lazylayer("trace", "record", "-o", trace, images.overlaybd, "--", "sh", "-c", READ_ALL);
    assert.equal(status, 1);
    assert.match(stderr, /full\/trace: the trace cannot be written: ENOSPC/);
    assert.equal(await readFile(trace, "utf8"), "what was there");
    assert.deepEqual(readdirSync(disk).sort(), ["ballast", "trace"]);
  } finally {
    await run("umount", [disk]);
  }
});
