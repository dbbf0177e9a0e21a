import assert from "node:assert/strict";
import { mkdir, writeFile } from "node:fs/promises";
import { test } from "node:test";
import { run } from "../support/command.ts";
import { DaemonBench } from "../support/daemon-bench.ts";
import { runLauncher } from "./tools-support.ts";

const MIB = 2 ** 20;
/** Below it mkfs.xfs refuses. */
const XFS_BYTES = 320 * MIB;

/** Runs a shell script; its arguments are `$1`, `$2`, … */
async function shell(script: string, ...args: string[]): Promise<string> {
  return await run("sh", ["-euc", script, "sh", ...args]);
}

/** All that a tree holds, but for the time when it was read. */
async function contentOf(directory: string): Promise<string> {
  const entries = String.raw`find . -name lost+found -prune -o -printf '%P %y %m %U %G %s %n %T@ %l\n' | sort`;
  return await shell(`cd "$1"; ${entries}; find . -type f -print0 | sort -z | xargs -0 sha256sum; getfattr -Rhd . | sort`, directory);
}

async function tool(name: string, ...args: string[]): Promise<void> {
  const { status, stderr } = await runLauncher(name, args);
  assert.equal(status, 0, stderr);
}

async function showLoop(bench: DaemonBench, config: object): Promise<string> {
  const { access } = await bench.create({ id: "disk", config, expose: { kind: "loop" } });
  assert.ok(access?.kind === "loop");
  return access.device;
}

test("a file system that the kernel has written is committed, and is a lower layer from then on, also merged with the next", async () => {
  await using bench = await DaemonBench.start();
  const mnt = bench.join("mnt");
  await mkdir(mnt);
  const first = await bench.newUpper("first", 64 * MIB);
  const device = await showLoop(bench, { upper: first });
  await shell('mkfs.ext4 -q "$1"; mount "$1" "$2"', device, mnt);
  await shell(
    `cd "$1"; mkdir -p a/b; for i in 1 2 3 4 5; do head -c "$((i * 300001))" /dev/urandom >"a/b/$i"; done; ln a/b/1 one; ln -s a/b/2 two
     mkfifo pipe; mknod null c 1 3; chown 1000:1000 a; chmod 4755 a/b/3; setfattr -n user.note -v kept a/b/4; truncate -s 9M sparse; rm a/b/5`,
    mnt,
  );
  const written = await contentOf(mnt);
  await run("umount", [mnt]);
  await bench.remove("disk");
  const layers = ["first", "second", "both"].map((name) => bench.join(`${name}.layer`));
  await tool("overlaybd-commit", "-z", "-t", first.data, first.index, layers[0]);

  const second = await bench.newUpper("second", 0);
  await bench.create({ id: "disk", config: { lowers: [{ file: layers[0] }], upper: second }, expose: { kind: "mount", directory: mnt } });
  assert.equal(await contentOf(mnt), written);
  await shell('cd "$1"; rm -r a/b/1; echo more >>a/b/2; head -c 1000000 /dev/urandom >new', mnt);
  const changed = await contentOf(mnt);
  await bench.remove("disk");
  await tool("overlaybd-commit", "-z", "-t", second.data, second.index, layers[1]);

  const lowers = layers.slice(0, 2).map((file) => ({ file }));
  await writeFile(bench.join("image.json"), JSON.stringify({ lowers }));
  await tool("overlaybd-merge", bench.join("image.json"), layers[2]);
  for (const config of [{ lowers }, { lowers: [{ file: layers[2] }] }]) {
    const read = await showLoop(bench, config);
    await run("e2fsck", ["-fn", read]);
    await run("mount", ["-o", "ro,noload", read, mnt]);
    assert.equal(await contentOf(mnt), changed);
    await run("umount", [mnt]);
    await bench.remove("disk");
  }
  await bench.allGone();
});

for (const form of ["append-only", "sparse"]) {
  test(`an XFS on a new ${form} layer has everything after its device was removed, and after its process was killed`, async () => {
    await using bench = await DaemonBench.start();
    const mnt = bench.join("mnt");
    await mkdir(mnt);
    const config = { upper: await bench.newUpper("upper", XFS_BYTES, form === "sparse") };
    const device = await showLoop(bench, config);
    await shell('mkfs.xfs -q "$1"; mount -t xfs "$1" "$2"', device, mnt);
    await shell(
      `cd "$1"; mkdir -p a/b; for i in 1 2 3 4 5 6; do head -c "$((i * 700000))" /dev/urandom >"a/b/$i"; done; sync
       cp --reflink=always a/b/6 copy; fallocate -z -o 4096 -l 100000 a/b/5; fallocate -p -o 8192 -l 65536 a/b/6; fallocate -l 3M allocated
       rm a/b/2; truncate -s 100 a/b/3; sync; fstrim .`,
      mnt,
    );
    const written = await contentOf(mnt);
    await run("umount", [mnt]);
    await run("xfs_repair", ["-n", device]);
    await bench.remove("disk");

    const again = await showLoop(bench, config);
    await shell('mount -t xfs "$1" "$2"', again, mnt);
    assert.equal(await contentOf(mnt), written);
    await shell('cd "$1"; head -c 2000000 /dev/urandom >late; sync late; sync -f .', mnt);
    const synced = await contentOf(mnt);
    const { pid } = await bench.report("disk");
    assert.ok(pid !== undefined);
    process.kill(pid, "SIGKILL");
    const { access } = await bench.running("disk", pid);
    assert.ok(access?.kind === "loop");
    await run("umount", [mnt]);
    await shell('mount -t xfs "$1" "$2"', access.device, mnt);
    assert.equal(await contentOf(mnt), synced, "what was synced, by the journal");
    await run("umount", [mnt]);
    await run("xfs_repair", ["-n", access.device]);
    await bench.remove("disk");
    await bench.allGone();
  });

  test(`ranges of a new ${form} layer that are zeroed or punched out, on its file or its loop device, read as zeros`, async () => {
    await using bench = await DaemonBench.start();
    const config = { upper: await bench.newUpper("upper", 16 * MIB, form === "sparse") };
    const expected = bench.join("expected");
    await shell('head -c 16777216 /dev/urandom >"$1"', expected);
    /** The same on the device and on an ordinary file; of a block device, the kernel zeroes whole sectors. */
    const change = async (
      path: string,
      ranges: readonly (readonly [mode: "-z" | "-p", offset: number, length: number])[],
    ): Promise<void> => {
      for (const [mode, offset, length] of ranges) {
        const range = ["-o", String(offset), "-l", String(length)];
        await run("fallocate", [mode, "-n", ...range, path]);
        await run("fallocate", [mode, "-n", ...range, expected]);
      }
      await shell('sync "$1"; cmp "$1" "$2"', path, expected);
    };
    const { access } = await bench.create({ id: "disk", config, expose: { kind: "fuse" } });
    assert.ok(access?.kind === "fuse");
    await shell('dd if="$1" of="$2" bs=1M conv=notrunc,fsync status=none', expected, access.path);
    await change(access.path, [
      ["-z", 4096, 8192],
      ["-z", 100_000, 3 * MIB + 5],
      ["-p", 5 * MIB + 1, 70_000],
    ]);
    await bench.remove("disk");
    const device = await showLoop(bench, config);
    await shell('cmp "$1" "$2"', device, expected);
    await change(device, [
      ["-z", 6 * MIB, 512],
      ["-z", 7 * MIB + 1024, 2 * MIB],
      ["-p", 10 * MIB, MIB],
    ]);
    await run("blkdiscard", ["-z", "-o", String(12 * MIB), "-l", String(MIB), device]);
    await run("fallocate", ["-z", "-n", "-o", String(12 * MIB), "-l", String(MIB), expected]);
    await bench.remove("disk");
    await shell('cmp "$1" "$2"', await showLoop(bench, config), expected);
    await bench.remove("disk");
    await bench.allGone();
    const layer = bench.join("layer");
    await tool("overlaybd-commit", config.upper.data, config.upper.index, layer);
    await shell('cmp "$1" "$2"', await showLoop(bench, { lowers: [{ file: layer }] }), expected);
    await bench.remove("disk");
  });
}
