import assert from "node:assert/strict";
import { mkdir, statfs } from "node:fs/promises";
import { test } from "node:test";
import { mountAt } from "../../src/native/mounts.ts";
import { run } from "../support/command.ts";
import { DaemonBench } from "../support/daemon-bench.ts";
import { openAccess, type BlockAccess } from "./soak/block-access.ts";
import { sectorBytes, SectorModel, SECTOR_BYTES } from "./soak/sector-model.ts";

const DEVICE_BYTES = 32 << 20;
const DISK_BYTES = 4 << 20;
const PIECE_SECTORS = 64;

/** A daemon, and a small disk. */
class FullDisk implements AsyncDisposable {
  readonly bench: DaemonBench;
  readonly directory: string;

  private constructor(bench: DaemonBench, directory: string) {
    this.bench = bench;
    this.directory = directory;
  }

  /** `name`: of the disk's place in the bench's directory. */
  static async mount(name: string): Promise<FullDisk> {
    const bench = await DaemonBench.start();
    const directory = bench.join(name);
    await mkdir(directory, { recursive: true });
    await run("mount", ["-t", "tmpfs", "-o", `size=${DISK_BYTES}`, "lazylayer-test", directory]);
    return new FullDisk(bench, directory);
  }

  /** From now on there is room for nothing. */
  async fill(): Promise<void> {
    const { blocks, bfree, bsize } = await statfs(this.directory);
    // A size of 0 would be any.
    await run("mount", ["-o", `remount,size=${Math.max(blocks - bfree, 1) * bsize}`, this.directory]);
    await run("sh", ["-c", 'cat /dev/zero >"$1/ballast"; true', "sh", this.directory]);
  }

  async makeRoom(): Promise<void> {
    await run("mount", ["-o", `remount,size=${8 * DISK_BYTES}`, this.directory]);
  }

  async unmount(): Promise<void> {
    await run("umount", [this.directory]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await using _ = this.bench;
    if (mountAt(this.directory) !== undefined) await this.unmount();
  }
}

/** Writes piece after piece until one fails; answers how, and where the first one is that was not written. */
async function writeUntilFull(
  device: BlockAccess,
  model: SectorModel,
  first: number,
  version: number,
): Promise<{ error: unknown; first: number }> {
  for (; first < model.sectors; first += PIECE_SECTORS) {
    const range = { first, count: PIECE_SECTORS };
    model.begin(range, version);
    try {
      await device.write(first * SECTOR_BYTES, sectorBytes(version, first, PIECE_SECTORS), true);
    } catch (error) {
      return { error, first };
    }
    model.done(range, version, true);
  }
  return assert.fail("the disk was not full");
}

async function check(device: BlockAccess, model: SectorModel, where: string): Promise<void> {
  for (let first = 0; first < model.sectors; first += 2048) {
    model.check(first, await device.read(first * SECTOR_BYTES, 2048 * SECTOR_BYTES, true), where);
  }
}

for (const form of ["an append-only", "a sparse"] as const) {
  for (const kind of ["fuse", "loop", "nbd"] as const) {
    test(`${form} layer on a full disk: writes over ${kind} say so, reads go on, and all is well when there is room`, async () => {
      await using disk = await FullDisk.mount("disk");
      const { bench } = disk;
      const upper = await bench.newUpper("disk/upper", DEVICE_BYTES, form === "a sparse");
      const request = { id: "device", config: { upper }, expose: { kind } };
      const model = new SectorModel(new Uint32Array(DEVICE_BYTES / SECTOR_BYTES));
      const created = await bench.create(request);
      let device = await openAccess(created.access!, false);

      const half = { first: 0, count: 4 * PIECE_SECTORS };
      model.begin(half, 1);
      await device.write(0, sectorBytes(1, half.first, half.count), true);
      model.done(half, 1, true);
      await device.flush();
      model.flushed();
      const full = await writeUntilFull(device, model, half.count, 3);
      assert.match(String(full.error), kind === "nbd" ? /error 28/ : /ENOSPC/);
      await check(device, model, "while the disk is full");
      await assert.rejects(writeUntilFull(device, model, full.first, 5).then(({ error }) => Promise.reject(error as Error)));

      // A process that is killed now comes back with what it has acknowledged, and the disk is still full.
      await disk.fill();
      process.kill(created.pid!, "SIGKILL");
      await device.close();
      model.killed();
      const { access } = await bench.running("device", created.pid);
      device = await openAccess(access!, false);
      for (const { first, count } of model.unsettled(2048)) {
        model.settle(first, await device.read(first * SECTOR_BYTES, count * SECTOR_BYTES, true), "after a crash");
      }
      const again = await writeUntilFull(device, model, full.first, 7);
      assert.match(String(again.error), kind === "nbd" ? /error 28/ : /ENOSPC/);

      await disk.makeRoom();
      const rest = { first: full.first, count: 8 * PIECE_SECTORS };
      model.begin(rest, 9);
      await device.write(rest.first * SECTOR_BYTES, sectorBytes(9, rest.first, rest.count), true);
      model.done(rest, 9, true);
      await device.flush();
      model.flushed();
      await check(device, model, "after there was room again");
      await device.close();
      await bench.remove("device");
      const reopened = await bench.create(request);
      device = await openAccess(reopened.access!, false);
      await check(device, model, "after it was opened anew");
      await device.close();
      await bench.remove("device");
    });
  }
}

test("a device is not removed while there is no room for what was written to it, unless that is forced", async () => {
  await using disk = await FullDisk.mount("disk");
  const { bench } = disk;
  const upper = await bench.newUpper("disk/upper", DEVICE_BYTES);
  const request = { id: "device", config: { upper }, expose: { kind: "fuse" } };
  const model = new SectorModel(new Uint32Array(DEVICE_BYTES / SECTOR_BYTES));
  const use = async (work: (device: BlockAccess) => Promise<unknown>): Promise<void> => {
    const { access } = await bench.report("device");
    const device = await openAccess(access!, false);
    try {
      await work(device);
    } finally {
      await device.close();
    }
  };
  await bench.create(request);
  await use(async (device) => await writeUntilFull(device, model, 0, 1));
  await disk.fill();
  for (let i = 0; i < 2; i++) await assert.rejects(bench.remove("device"), /upper\.index: cannot write.*ENOSPC/);
  await use(async (device) => await check(device, model, "after it was to be removed"));
  await disk.makeRoom();
  await bench.remove("device");

  await bench.create(request);
  await use(async (device) => await check(device, model, "after there was room"));
  await use(async (device) => await writeUntilFull(device, model, 0, 3));
  await disk.fill();
  await assert.rejects(bench.remove("device"), /ENOSPC/);
  await bench.remove("device", true);
  await disk.unmount();
  await bench.allGone();
});

test("a file system on a full disk fails whoever writes, keeps what was synced, and is whole when there is room", async () => {
  await using disk = await FullDisk.mount("disk");
  const { bench } = disk;
  const config = { upper: await bench.newUpper("disk/upper", DEVICE_BYTES) };
  const made = await bench.create({ id: "device", config, expose: { kind: "loop" } });
  assert.ok(made.access?.kind === "loop");
  await run("mkfs.ext4", ["-q", "-J", "size=4", made.access.device]);
  await bench.remove("device");
  const mnt = bench.join("mnt");
  await mkdir(mnt);
  const request = { id: "device", config, expose: { kind: "mount", directory: mnt } };
  await bench.create(request);
  await run("sh", ["-euc", 'head -c 300000 /dev/urandom >"$1/kept"; sha256sum "$1/kept" >"$1/sum"; sync -f "$1"', "sh", mnt]);
  await assert.rejects(run("sh", ["-euc", 'head -c 20000000 /dev/urandom >"$1/more"; sync "$1/more"', "sh", mnt]));
  await run("sha256sum", ["--quiet", "-c", `${mnt}/sum`]);
  await disk.makeRoom();
  await bench.remove("device", true);
  await bench.create(request);
  await run("sh", ["-euc", 'sha256sum --quiet -c "$1/sum"; rm -f "$1/more"; echo more >"$1/other"; sync -f "$1"', "sh", mnt]);
  await bench.remove("device");
  const last = await bench.create({ ...request, expose: { kind: "loop" } });
  assert.ok(last.access?.kind === "loop");
  await run("e2fsck", ["-fn", last.access.device]);
  await bench.remove("device");
});

test("with a full disk below the daemon's directory, devices go on, and none is made until there is room", async () => {
  await using disk = await FullDisk.mount("d.devices");
  const { bench } = disk;
  const config = await bench.stackConfig();
  const upper = await bench.newUpper("d.devices/upper", DEVICE_BYTES);
  // A writable layer on the same disk makes the device write to its log there.
  const report = await bench.create({ id: "device", config: { upper }, expose: { kind: "nbd" } });
  await disk.fill();
  const device = await openAccess(report.access!, false);
  const model = new SectorModel(new Uint32Array(DEVICE_BYTES / SECTOR_BYTES));
  for (const first of [0, 1000, 2000])
    await assert.rejects(device.write(first * 512, sectorBytes(1, first, PIECE_SECTORS), true), /error 28/);
  await assert.rejects(bench.create({ id: "other", config }), /ENOSPC|no space/);
  await check(device, model, "while the disk is full");
  assert.equal((await bench.report("device")).pid, report.pid);

  await disk.makeRoom();
  await device.write(0, sectorBytes(1, 0, PIECE_SECTORS), true);
  await device.flush();
  await device.close();
  await bench.create({ id: "other", config });
  for (const id of ["device", "other"]) await bench.remove(id);
  await disk.unmount();
  await bench.allGone();
});

test("a result file that has no room keeps no device from working", async () => {
  await using disk = await FullDisk.mount("disk");
  const { bench } = disk;
  await disk.fill();
  const config = { ...(await bench.stackConfig()), resultFile: bench.join("disk", "result") };
  await bench.create({ id: "device", config });
  assert.match(bench.saidBy("device"), /resultFile: ENOSPC.*was not written/);
  await bench.remove("device");
});
