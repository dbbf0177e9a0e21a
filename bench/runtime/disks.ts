import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdir, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { execute, run } from "../../test/support/command.ts";
import type { DaemonBench } from "../../test/support/daemon-bench.ts";

const SERVER = "nbdkit";
const SHOWER = "nbdfuse";

/** A mounted disk image, however it is served. */
export interface Disk extends AsyncDisposable {
  readonly directory: string;
  /** Who serves it, outside of the kernel. */
  readonly pids: readonly number[];
  /** Files that what is read comes from, as far as they are there. */
  readonly backing: () => Promise<string[]>;
}

/** A device of the daemon, mounted. What a registry sends it keeps in the daemon's cache. */
export async function lazyDisk(bench: DaemonBench, config: object): Promise<Disk> {
  const directory = bench.join("lazy");
  await mkdir(directory, { recursive: true });
  const { pid } = await bench.create({ id: "lazy", config, expose: { kind: "mount", directory } });
  if (pid === undefined) throw new Error("the device has no process");
  return {
    directory,
    pids: [pid],
    backing: async () => [...(await filesOf(bench.join("cache"))), ...localFiles(config)],
    [Symbol.asyncDispose]: async () => await bench.remove("lazy"),
  };
}

/** A file as a loop device; `direct` reads it past the page cache. */
export async function plainDisk(image: string, directory: string, direct: boolean): Promise<Disk> {
  return await loopDisk(image, directory, direct, [], image);
}

/** The same file served by nbdkit, and shown by nbdfuse as a file, under a loop device. */
export async function nbdkitDisk(image: string, work: string, direct: boolean): Promise<Disk> {
  const [socket, shown] = [join(work, "nbdkit.sock"), join(work, "nbdfuse")];
  await mkdir(shown, { recursive: true });
  await rm(socket, { force: true }); // nbdkit leaves it behind
  const server = spawn(SERVER, ["--foreground", "--readonly", "--unix", socket, "file", image], { stdio: "ignore" });
  try {
    await untilDone(async () => (await execute("nbdinfo", ["--size", uriOf(socket)])).status === 0, server);
    const fuse = spawn(SHOWER, ["--readonly", shown, uriOf(socket)], { stdio: "ignore" });
    try {
      await untilDone(async () => (await readdir(shown)).length > 0, fuse);
      const pids = [server, fuse].map(({ pid }) => pid!);
      const disk = await loopDisk(join(shown, "nbd"), join(work, "nbdkit"), direct, pids, image);
      const stop = async (): Promise<void> => {
        await disk[Symbol.asyncDispose]();
        await run("fusermount3", ["-u", shown]);
        await ended(fuse);
        await ended(server);
      };
      return { ...disk, [Symbol.asyncDispose]: stop };
    } catch (error) {
      await execute("fusermount3", ["-u", "-z", shown]);
      await ended(fuse);
      throw error;
    }
  } catch (error) {
    await ended(server);
    throw error;
  }
}

async function loopDisk(file: string, directory: string, direct: boolean, pids: readonly number[], backing: string): Promise<Disk> {
  await mkdir(directory, { recursive: true });
  const device = (await run("losetup", ["--find", "--show", "--read-only", `--direct-io=${direct ? "on" : "off"}`, file])).trim();
  try {
    await run("mount", ["-i", "-t", "ext4", "-o", "ro", device, directory]);
  } catch (error) {
    await run("losetup", ["--detach", device]);
    throw error;
  }
  const stop = async (): Promise<void> => {
    await run("umount", [directory]);
    await run("losetup", ["--detach", device]);
    // The kernel lets go of the file a little later.
    await untilDone(async () =>
      (await run("losetup", ["--list", "--noheadings", "--output", "NAME"])).split("\n").every((name) => name !== device),
    );
  };
  return { directory, pids, backing: async () => [backing], [Symbol.asyncDispose]: stop };
}

function uriOf(socket: string): string {
  return `nbd+unix:///?socket=${socket}`;
}

async function untilDone(isDone: () => Promise<boolean>, server?: ChildProcess): Promise<void> {
  for (let tries = 0; !(await isDone()); tries++) {
    if (server !== undefined && server.exitCode !== null) throw new Error(`${server.spawnfile}: exit status ${server.exitCode}`);
    if (tries === 400) throw new Error(`${server?.spawnfile ?? "losetup"}: takes too long`);
    await sleep(25);
  }
}

async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exit = once(child, "exit");
  child.kill("SIGTERM");
  await exit;
}

async function filesOf(directory: string): Promise<string[]> {
  return (await readdir(directory)).map((name) => join(directory, name));
}

function localFiles(config: object): string[] {
  const lowers: unknown = "lowers" in config ? config.lowers : [];
  return (Array.isArray(lowers) ? lowers : []).flatMap((lower: unknown) =>
    typeof lower === "object" && lower !== null && "file" in lower && typeof lower.file === "string" ? [lower.file] : [],
  );
}
