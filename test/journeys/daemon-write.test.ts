import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { z } from "zod";
import { deviceStatsSchema } from "../../src/daemon/device-stats.ts";
import { run } from "../support/command.ts";
import { DaemonBench } from "../support/daemon-bench.ts";
import { unusedPort } from "../support/server-process.ts";
import { listTree, stackTree } from "./mount-support.ts";

const DEVICE_BYTES = 128 << 20;

/** Runs a shell script; its arguments are `$1`, `$2`, … */
async function shell(script: string, ...args: string[]): Promise<string> {
  return await run("sh", ["-euc", script, "sh", ...args]);
}

for (const form of ["append-only", "sparse"]) {
  test(`a new ${form} device is formatted through its loop device, and has everything after it was removed and made again`, async () => {
    await using bench = await DaemonBench.start();
    const config = { upper: await bench.newUpper("upper", DEVICE_BYTES, form === "sparse") };
    const mnt = bench.join("mnt");
    await mkdir(mnt);
    const { access, readOnly } = await bench.create({ id: "disk", config, expose: { kind: "loop" } });
    assert.ok(access?.kind === "loop" && readOnly === false);
    await shell('mkfs.ext4 -q "$1"; mount "$1" "$2"', access.device, mnt);
    const sums = await shell(
      `cd "$1"; mkdir -p a/b; for i in 1 2 3 4 5 6 7 8; do head -c "$((i * 300000))" /dev/urandom >"a/b/$i"; done; sync a/b/8
     rm a/b/3; truncate -s 100 a/b/4; fallocate -p -o 4096 -l 8192 a/b/5; ln a/b/6 six; find . -type f | sort | xargs sha256sum`,
      mnt,
    );
    await shell('fstrim "$1"; umount "$1"', mnt);
    await run("e2fsck", ["-fn", access.device]);
    const { writes } = deviceStatsSchema.parse(await bench.call("GET", "/devices/disk/stats"));
    assert.ok(writes.requests > 0 && writes.discards > 0 && writes.flushes > 0, JSON.stringify(writes));
    await bench.remove("disk");

    await bench.create({ id: "disk", config, expose: { kind: "mount", directory: mnt } });
    assert.equal(await shell('cd "$1"; find . -type f | sort | xargs sha256sum', mnt), sums);
    await shell('echo more >"$1/a/more"', mnt);
    await bench.remove("disk");

    await bench.create({ id: "disk", config, expose: { kind: "mount", directory: mnt, readOnly: true } });
    assert.equal(await readFile(bench.join("mnt", "a", "more"), "utf8"), "more\n");
    await assert.rejects(shell('echo no >"$1/a/more"', mnt), /Read-only file system/);
    await bench.remove("disk");
    await bench.allGone();
  });
}

test("an image is written to through its upper layer, and stays as it was below", async () => {
  await using bench = await DaemonBench.start();
  const lower = await bench.stackConfig();
  const config = { ...lower, upper: await bench.newUpper("upper", 0) };
  const mnt = bench.join("mnt");
  await mkdir(mnt);
  await bench.create({ id: "app", config, expose: { kind: "mount", directory: mnt } });
  assert.deepEqual(await listTree(mnt), stackTree());
  await shell('cd "$1"; head -c 5000000 /dev/urandom >new; sha256sum new >sum; rm -r bin; sync', mnt);

  const taken = bench.create({ id: "other", config, expose: { kind: "fuse" } });
  await assert.rejects(taken, /another process writes to .*upper\.data/);
  await bench.remove("app");
  await bench.create({ id: "app", config, expose: { kind: "mount", directory: mnt } });
  await shell('cd "$1"; sha256sum --quiet -c sum; ! test -e bin', mnt);
  await bench.remove("app");

  await bench.create({ id: "base", config: lower, expose: { kind: "mount", directory: mnt } });
  assert.deepEqual(await listTree(mnt), stackTree());
  await bench.remove("base");
  await bench.allGone();
});

test("a snapshot is taken while files are written, by either API", async () => {
  const port = await unusedPort();
  const address = `http://127.0.0.1:${port}`;
  await using bench = await DaemonBench.start({ serviceConfig: { enable: true, address } });
  const mnt = bench.join("mnt");
  await mkdir(mnt);
  const uppers = [await bench.newUpper("upper0", DEVICE_BYTES), await bench.newUpper("upper1", 0), await bench.newUpper("upper2", 0)];
  const path = bench.join("config.json");
  await writeFile(path, JSON.stringify({ upper: uppers[0] }));
  const { access } = await bench.create({ id: "disk", config: path, expose: { kind: "loop" } });
  assert.ok(access?.kind === "loop");
  await shell('mkfs.ext4 -q "$1"; mount "$1" "$2"', access.device, mnt);
  const writing = new AbortController();
  const writer = (async () => {
    for (let i = 0; !writing.signal.aborted; i++) {
      await shell('cd "$1"; head -c 400000 /dev/urandom >"f$2"; sha256sum "f$2" >>sums; sync "f$2" sums', mnt, String(i % 40));
      if (i >= 39) await sleep(20);
    }
  })();
  await sleep(200);

  const next = [1, 2].map((count) => ({ lowers: uppers.slice(0, count).map(({ data }) => ({ file: data })), upper: uppers[count] }));
  await writeFile(bench.join("next.json"), JSON.stringify({ ...next[0], upper: uppers[0] }));
  assert.match((await bench.device("snapshot", "disk", bench.join("next.json"))).stderr, /upper\.data: expected another file/);
  await writeFile(bench.join("next.json"), JSON.stringify({ ...next[0], lowers: [] }));
  assert.match((await bench.device("snapshot", "disk", bench.join("next.json"))).stderr, /lowers: expected 1 layers/);
  await writeFile(bench.join("next.json"), JSON.stringify(next[0]));
  assert.deepEqual((await bench.device("snapshot", "disk", bench.join("next.json"))).stderr, "");
  assert.deepEqual(JSON.parse(await readFile(path, "utf8")), next[0]);
  assert.ok(!existsSync(bench.join("next.json")));
  await sleep(200);

  const ask = async (query: string): Promise<[number, unknown]> => {
    const response = await fetch(`${address}/snapshot?${query}`);
    return [response.status, await response.json()];
  };
  const failed = (message: string): object => ({ success: false, message });
  assert.deepEqual(await ask("dev_id=disk"), [400, failed("Missing dev_id or config in snapshot request")]);
  assert.deepEqual(await ask("dev_id=none&config=/nothing"), [404, failed("Image file not found")]);
  assert.deepEqual(await ask("dev_id=disk&config=/nothing"), [500, failed("Failed to create snapshot`")]);
  await writeFile(bench.join("next.json"), JSON.stringify(next[1]));
  // Where the daemon works, not the process that serves the device.
  assert.deepEqual(await ask("dev_id=disk&config=.%2Fnext.json"), [200, { success: true, message: "Snapshot created successfully" }]);
  await sleep(200);
  writing.abort();
  await writer;

  const sums = await shell('cd "$1"; find . -type f | sort | xargs sha256sum', mnt);
  await run("umount", [mnt]);
  await run("e2fsck", ["-fn", access.device]);
  await bench.remove("disk");
  await bench.create({ id: "disk", config: path, expose: { kind: "mount", directory: mnt } });
  assert.equal(await shell('cd "$1"; find . -type f | sort | xargs sha256sum', mnt), sums);
  await bench.remove("disk");
  await bench.allGone();
});

test("sparse upper layers are snapshot, too, and each below holds what was there then", async () => {
  await using bench = await DaemonBench.start();
  const bytes = 24 << 20;
  const uppers = [await bench.newUpper("upper0", bytes, true), await bench.newUpper("upper1", 0, true), await bench.newUpper("upper2", 0)];
  const files = uppers.map(({ data }) => ({ file: data }));
  const [path, expected] = [bench.join("config.json"), bench.join("expected")];
  await shell('truncate -s "$2" "$1"', expected, String(bytes));
  await writeFile(path, JSON.stringify({ upper: uppers[0] }));
  const { access } = await bench.create({ id: "disk", config: path, expose: { kind: "loop" } });
  assert.ok(access?.kind === "loop");
  const { device } = access;
  for (const [turn, upper] of uppers.entries()) {
    if (turn > 0) {
      await writeFile(bench.join("next.json"), JSON.stringify({ lowers: files.slice(0, turn), upper }));
      const changing = shell(
        'head -c 3000000 /dev/urandom >"$1"; dd if="$1" of="$2" bs=64k conv=notrunc,fsync status=none',
        bench.join("front"),
        device,
      );
      assert.equal((await bench.device("snapshot", "disk", bench.join("next.json"))).stderr, "");
      await changing;
      await shell('dd if="$1" of="$2" conv=notrunc status=none', bench.join("front"), expected);
    }
    await shell(
      `head -c 4000000 /dev/urandom >"$1"; for file in "$2" "$3"; do dd if="$1" of="$file" bs=1M seek="$4" conv=notrunc,fsync status=none
       fallocate -n -z -o "$((($4 + 1) * 1048576))" -l 500736 "$file"; done; sync "$2"; cmp "$2" "$3"; cp --sparse=always "$3" "$3.$5"`,
      bench.join("piece"),
      device,
      expected,
      String(4 + 5 * turn),
      String(turn),
    );
  }
  await bench.remove("disk");
  for (const [turn, upper] of uppers.entries()) {
    const config = turn === 2 ? { lowers: files.slice(0, 2), upper } : { lowers: files.slice(0, turn + 1) };
    const below = await bench.create({ id: "below", config, expose: { kind: "loop" } });
    assert.ok(below.access?.kind === "loop");
    // The first bytes were written around the next snapshot.
    await shell('cmp -i 3145728 "$1" "$2"', below.access.device, `${expected}.${turn}`);
    await bench.remove("below");
  }
  await bench.allGone();
});

/** What a client is told of a disk: what each stretch is, where it begins, and its bytes. */
async function mapOf(uri: string): Promise<(readonly [what: string, offset: number, bytes: number])[]> {
  const schema = z.array(z.object({ offset: z.int(), length: z.int(), description: z.string() }));
  const map = schema.parse(JSON.parse(await run("nbdinfo", ["--map", "--json", uri])));
  return map.map(({ offset, length, description }) => [description, offset, length]);
}

test("a device is written over NBD, and read-only where that is asked for", async () => {
  await using bench = await DaemonBench.start();
  const config = { upper: await bench.newUpper("upper", 16 << 20) };
  const input = bench.join("input");
  await shell('head -c 8388608 /dev/urandom >"$1"; truncate -s 16777216 "$1"', input);
  const open = async (readOnly: boolean): Promise<string> => {
    const { access } = await bench.create({ id: "disk", config, expose: { kind: "nbd", readOnly } });
    assert.ok(access?.kind === "nbd");
    return access.uri;
  };
  const writable = await open(false);
  assert.deepEqual(await mapOf(writable), [["hole,zero", 0, 16 << 20]]);
  await run("nbdcopy", ["--flush", "--destination-is-zero", input, writable]);
  const half = 8 << 20;
  const written = [
    ["data", 0, half],
    ["hole,zero", half, half],
  ];
  assert.deepEqual(await mapOf(writable), written);
  await bench.remove("disk");
  const uri = await open(true);
  assert.deepEqual(await mapOf(uri), written);
  await run("nbdcopy", [uri, bench.join("output")]);
  await run("cmp", [input, bench.join("output")]);
  await assert.rejects(run("nbdcopy", [input, uri]), /read-only|permission/i);
  await bench.remove("disk");
  await bench.allGone();
});
