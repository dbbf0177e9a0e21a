import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { mountAt } from "../../src/native/mounts.ts";
import { run } from "../support/command.ts";
import { DaemonBench } from "../support/daemon-bench.ts";

/** Runs a shell script; its arguments are `$1`, `$2`, … */
async function shell(script: string, ...args: string[]): Promise<string> {
  return await run("sh", ["-euc", script, "sh", ...args]);
}

/** All that a tree holds, but for what overlayfs says otherwise of directories: their size and their links. */
async function contentOf(directory: string): Promise<string> {
  const entries = String.raw`find . -type d -printf '%P %m %U %G %T@\n' -o -printf '%P %y %m %U %G %s %n %T@ %l\n' | sort`;
  return await shell(`cd "$1"; ${entries}; find . -type f -print0 | sort -z | xargs -0 sha256sum`, directory);
}

/** Runs something with a directory as its working directory, until it is killed; answers how to do that. */
async function use(directory: string): Promise<() => Promise<void>> {
  const user = spawn("sleep", ["60"], { cwd: directory });
  await once(user, "spawn");
  return async () => {
    user.kill("SIGKILL");
    await once(user, "exit");
  };
}

interface Overlaid {
  readonly mnt: string;
  readonly config: Awaited<ReturnType<DaemonBench["stackConfig"]>>;
  readonly expose: { readonly kind: "mount"; readonly directory: string; readonly overlay: string };
}

async function prepare(bench: DaemonBench): Promise<Overlaid> {
  const mnt = bench.join("mnt");
  await mkdir(mnt);
  const config = await bench.stackConfig();
  return { mnt, config, expose: { kind: "mount", directory: mnt, overlay: bench.join("changes") } };
}

test("an image without an upper layer is written to through an overlay, which keeps what was written", async () => {
  await using bench = await DaemonBench.start();
  const { mnt, config, expose } = await prepare(bench);
  const [path, changes] = [bench.join("config.json"), bench.join("changes")];
  await writeFile(path, JSON.stringify(config));
  await bench.create({ id: "base", config, expose: { kind: "mount", directory: mnt } });
  const image = await contentOf(mnt);
  await bench.remove("base");
  const created = await bench.device("create", "--id=app", `--expose=mount=${mnt}`, "--overlay", changes, path);
  assert.deepEqual([created.stderr, created.stdout.toString()], ["", `${mnt}\n`]);
  assert.equal(await contentOf(mnt), image);
  assert.equal((await stat(changes)).mode & 0o777, 0o700);
  assert.match(await run("findmnt", ["--noheadings", "--output=OPTIONS", mnt]), /^rw,nosuid,nodev,/);
  const lower = bench.join("d.devices", "app", "lower");
  assert.equal(mountAt(lower), undefined, "the overlay alone holds the file system");
  await shell('cd "$1"; head -c 5000000 /dev/urandom >new; sha256sum new >sum; rm -r bin; chmod 700 .', mnt);
  const changed = await contentOf(mnt);

  const leave = await use(mnt);
  await assert.rejects(bench.remove("app"), /device app is in use/);
  await leave();
  assert.equal(await contentOf(mnt), changed);
  await bench.remove("app");
  await bench.allGone();

  await bench.create({ id: "base", config, expose: { kind: "mount", directory: mnt } });
  assert.equal(await contentOf(mnt), image);
  await bench.remove("base");
  await bench.create({ id: "app", config, expose });
  assert.equal(await contentOf(mnt), changed);
  await shell('cd "$1"; sha256sum --quiet -c sum', mnt);
  await run("umount", [mnt]);
  await bench.allGone();
});

/** A configuration of an image with an empty file system. */
async function formatted(bench: DaemonBench): Promise<object> {
  const upper = await bench.newUpper("formatted", 64 << 20);
  const { access } = await bench.create({ id: "formatted", config: { upper }, expose: { kind: "loop" } });
  assert.ok(access?.kind === "loop");
  await run("mkfs.ext4", ["-q", access.device]);
  await bench.remove("formatted");
  const layer = bench.join("formatted.layer");
  await run(join(import.meta.dirname, "../../bin/overlaybd-commit"), [upper.data, upper.index, layer]);
  return { lowers: [{ file: layer }] };
}

test("an overlay is refused where something else takes what is written, or where overlayfs cannot use it", async () => {
  await using bench = await DaemonBench.start();
  const { mnt, config, expose } = await prepare(bench);
  await mkdir(bench.join("other"));
  const writable = { ...config, upper: await bench.newUpper("upper", 0) };
  const create = async (more: object, image: object = config): Promise<unknown> =>
    await bench.create({ id: "app", config: image, expose: { ...expose, ...more } });
  await assert.rejects(create({}, writable), /expose: overlay: the image has an upper layer/);
  await assert.rejects(create({ readOnly: true }), /expose\.overlay: takes what is written, and readOnly keeps writes away/);
  await assert.rejects(create({ overlay: "changes" }), /expected an absolute path/);
  await assert.rejects(create({ kind: "loop" }), /[Uu]nrecognized keys/);
  for (const character of [",", ":", "\\", '"']) {
    await assert.rejects(create({ overlay: bench.join(`a${character}b`) }), /overlayfs takes no path with a comma/);
  }
  await assert.rejects(create({ overlay: bench.join("nowhere", "changes") }), /overlay: ENOENT.*nowhere/);
  await bench.allGone();
  const wrong = await bench.device("create", "--expose", "loop", "--overlay", bench.join("changes"), "config.json");
  assert.match(wrong.stderr, /--overlay is of use only with --expose mount=DIRECTORY, not with loop/);
  assert.match((await bench.device("create", "--overlay=a", "--read-only", "config.json")).stderr, /cannot be used with/);

  await create({});
  const other = { directory: bench.join("other") };
  await assert.rejects(bench.create({ id: "second", config, expose: { ...expose, ...other } }), /another overlay uses it/);
  const inside = { ...other, overlay: bench.join("mnt", "changes") };
  await assert.rejects(
    bench.create({ id: "second", config, expose: { ...expose, ...inside } }),
    /its file system cannot take an overlay's changes; name a directory on ext4/,
  );
  await bench.remove("app");
  await assert.rejects(create({}, await formatted(bench)), /it has the changes of another image/);
  await bench.allGone();
  await bench.create({ id: "app", config, expose });
  await shell('test -d "$1/changes"', mnt);
  await bench.remove("app");
  await bench.allGone();
});

test("a device with an overlay comes back with its changes after its process was killed, also when the daemon was", async () => {
  await using bench = await DaemonBench.start();
  const { mnt, config, expose } = await prepare(bench);
  const first = await bench.create({ id: "app", config, expose });
  assert.ok(first.pid !== undefined);
  await shell('echo changed >"$1/file"; sync "$1/file"', mnt);
  process.kill(first.pid, "SIGKILL");
  const second = await bench.running("app", first.pid);
  assert.equal(await readFile(bench.join("mnt", "file"), "utf8"), "changed\n");

  assert.ok(second.pid !== undefined);
  await bench.endDaemon("SIGKILL");
  await shell('echo more >>"$1/file"; sync "$1/file"', mnt);
  await bench.startDaemon();
  assert.equal((await bench.report("app")).pid, second.pid, "the next daemon finds it");
  await bench.endDaemon("SIGKILL");
  process.kill(second.pid, "SIGKILL");
  await bench.startDaemon();
  await bench.running("app", second.pid);
  assert.equal(await readFile(bench.join("mnt", "file"), "utf8"), "changed\nmore\n");
  await bench.remove("app");
  await bench.allGone();
});

test("a device whose overlay was in use when its process was killed comes back once nobody uses the old one", async () => {
  await using bench = await DaemonBench.start();
  const { mnt, config, expose } = await prepare(bench);
  const { pid } = await bench.create({ id: "app", config, expose });
  assert.ok(pid !== undefined);
  await shell('echo changed >"$1/file"; sync "$1/file"', mnt);
  const leave = await use(mnt);
  process.kill(pid, "SIGKILL");
  let report = await bench.report("app");
  while (report.restarts === 0 || report.error === undefined) report = await bench.report("app");
  assert.match(report.error, /another overlay uses it, or files of an earlier one are still open/);
  await leave();
  await bench.running("app", pid);
  assert.equal(await readFile(bench.join("mnt", "file"), "utf8"), "changed\n");

  const leaveAgain = await use(mnt);
  await bench.remove("app", true);
  await leaveAgain();
  await bench.allGone();
});
