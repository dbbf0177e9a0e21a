import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { DiskFile } from "../../src/bytes/file.ts";
import { MemorySource } from "../../src/bytes/source.ts";
import { clearDevice, devicePlaces } from "../../src/daemon/device-places.ts";
import { exposeDevice } from "../../src/daemon/exposed-device.ts";
import { AppendLayer } from "../../src/formats/lsmt/append-layer.ts";
import { openWritableStack } from "../../src/formats/lsmt/writable-stack.ts";
import { attachNbd } from "../../src/native/nbd.ts";
import { execute, run } from "../support/command.ts";
import { GUEST_MODULES, HOST_ADDRESS } from "../support/guest.ts";

/*
 * What nbd-kernel.test.ts has a guest do: the kernel's NBD client, first with a server on the machine that runs the guest, then with a
 * device of the guest's own, as a process of the daemon shows it. Arguments: the directory that both share; the server's port, or
 * `serve` for the process that shows the device, and is killed.
 */

const [directory, port] = process.argv.slice(2);
const MOUNT = "/mnt/nbd";
const DEVICE_DIRECTORY = "/run/disk";
const EXPOSE = { kind: "nbd-disk" } as const;
const DISK_BYTES = 32 * 2 ** 20;
const PATIENCE_MS = 60_000;

/** Has the other machine kill the server, and waits until it has. */
async function killServer(): Promise<void> {
  writeFileSync(join(directory, "asked"), "kill");
  const end = performance.now() + PATIENCE_MS;
  while (!existsSync(join(directory, "done"))) {
    assert.ok(performance.now() < end, "the server is killed");
    await sleep(50);
  }
}

function told(device: string, attribute: string): string | undefined {
  const path = join(device.replace("/dev", "/sys/block"), attribute);
  return existsSync(path) ? readFileSync(path, "utf8").trim() : undefined;
}

async function sha256(path: string, mebibytes: number): Promise<string> {
  return (await run("sh", ["-c", `head -c ${mebibytes}M "$1" | sha256sum`, "sh", path])).slice(0, 64);
}

/** What is in memory need not be what is on the disk. */
async function forget(): Promise<void> {
  await run("sh", ["-c", "echo 3 >/proc/sys/vm/drop_caches"]);
}

async function writeFile(name: string, mebibytes: number): Promise<void> {
  await run("dd", ["if=/dev/urandom", `of=${MOUNT}/${name}`, "bs=1M", `count=${mebibytes}`, "conv=fsync", "status=none"]);
}

async function mounted(device: string, options: string, use: () => Promise<void>): Promise<void> {
  await run("mount", ["-o", options, device, MOUNT]);
  try {
    await use();
  } finally {
    await run("umount", [MOUNT]);
  }
}

/** Shows the writable layer that lies in the directory. Whoever calls it leaves the disk to other processes: it would wait for itself. */
async function showDisk(): Promise<{ device: string; stop: () => Promise<void> }> {
  await mkdir(DEVICE_DIRECTORY, { recursive: true });
  const [data, index] = await Promise.all(["upper.data", "upper.index"].map(async (name) => await DiskFile.open(join(directory, name))));
  const layer = await AppendLayer.open(data, index);
  const content = await openWritableStack(new MemorySource(new Uint8Array(DISK_BYTES)), layer);
  const failures: string[] = [];
  const onFailure = (error: unknown, what: string): void => void failures.push(`${what}: ${String(error)}`);
  const shown = { id: "disk", content, reader: undefined, extentsOf: undefined, onFailure, notice: () => {} };
  const exposed = await exposeDevice(shown, EXPOSE, devicePlaces(DEVICE_DIRECTORY));
  const { access } = exposed;
  assert.ok(access.kind === "nbd-disk");
  return {
    device: access.device,
    stop: async () => {
      await exposed.stop("plain");
      await content.close();
      assert.deepEqual(failures, []);
    },
  };
}

async function nameWhatIsMissing(): Promise<void> {
  await assert.rejects(attachNbd("/run/none", "disk", 512), { code: "UNSUPPORTED", message: /load its module \(modprobe nbd\)/ });
  await run("busybox", ["insmod", `${GUEST_MODULES}/nbd.ko`, "nbds_max=2"]);
  await run("mount", ["--bind", "/dev/null", "/usr/sbin/nbd-client"]);
  await assert.rejects(attachNbd("/run/none", "disk", 512), { code: "UNSUPPORTED", message: /install nbd-client/ });
  await run("umount", ["/usr/sbin/nbd-client"]);
}

/** An image that the other machine serves over TCP, by four connections. */
async function readImage(): Promise<void> {
  const device = "/dev/nbd1";
  await run("nbd-client", ["-C", "4", "-block-size", "4096", HOST_ADDRESS, port, device]);
  assert.deepEqual([told(device, "ro"), told(device, "queue/logical_block_size"), told(device, "size")], ["1", "4096", `${2 ** 21}`]);
  writeFileSync(join(directory, "front"), await sha256(device, 32));
  await mounted(device, "ro", async () => {
    writeFileSync(join(directory, "file"), await sha256(`${MOUNT}/big`, 5));
    await killServer();
    await forget();
    assert.notEqual((await execute("cat", [`${MOUNT}/big`])).status, 0);
    await run("nbd-client", ["-d", device]);
  });
  assert.deepEqual([told(device, "pid"), told(device, "size")], [undefined, "0"]);
}

async function writeDisk(): Promise<void> {
  const victim = spawn(process.execPath, [...process.execArgv, import.meta.filename, directory, "serve"], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const [line] = (await once(victim.stdout, "data")) as [Buffer];
  const first = line.toString().trim();
  assert.deepEqual([told(first, "ro"), told(first, "queue/fua"), told(first, "queue/write_cache")], ["0", "1", "write back"]);
  await run("mkfs.ext4", ["-q", first]);
  let second: Awaited<ReturnType<typeof showDisk>>;
  let kept = "";
  await mounted(first, "rw", async () => {
    await writeFile("kept", 4);
    await writeFile("removed", 4);
    await run("rm", [`${MOUNT}/removed`]);
    await run("fstrim", [MOUNT]);
    await run("sync", []);
    kept = await sha256(`${MOUNT}/kept`, 4);
    victim.kill("SIGKILL");
    await once(victim, "exit");
    await forget();
    assert.notEqual((await execute("cat", [`${MOUNT}/kept`])).status, 0);
    await clearDevice(DEVICE_DIRECTORY, EXPOSE, "lazy");
    second = await showDisk();
    assert.notEqual(second.device, first, "the mount holds the old disk");
  });
  assert.equal(told(first, "pid"), undefined, "the old disk is free again");
  const { device, stop } = second!;
  await mounted(device, "rw", async () => {
    assert.equal(await sha256(`${MOUNT}/kept`, 4), kept);
    await assert.rejects(stop(), /device disk is in use: .*nbd/);
    await writeFile("later", 1);
  });
  await forget();
  writeFileSync(join(directory, "disk"), await sha256(device, 32));
  await stop();
  assert.deepEqual([told(device, "pid"), told(device, "size")], [undefined, "0"]);
}

async function main(): Promise<void> {
  if (port === "serve") {
    console.log((await showDisk()).device);
    return;
  }
  await mkdir(MOUNT);
  for (const step of [nameWhatIsMissing, readImage, writeDisk]) {
    const begin = performance.now();
    await step();
    console.log(
      `${step.name}: ${((performance.now() - begin) / 1000).toFixed(1)} s, up ${readFileSync("/proc/uptime", "utf8").split(" ")[0]} s`,
    );
  }
}

if (import.meta.main) await main();
