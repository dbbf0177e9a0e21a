import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { mkdir, statfs } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { z } from "zod";
import { deviceReportSchema, type DeviceReport } from "../../../src/daemon/device-report.ts";
import type { Exposure } from "../../../src/daemon/exposure-schema.ts";
import { LazyError, messageOf } from "../../../src/errors.ts";
import { execute, run, type CommandResult } from "../../support/command.ts";
import { DaemonBench } from "../../support/daemon-bench.ts";
import { startDockerRegistry, type DockerRegistry } from "../../support/docker-registry.ts";
import { startHostileRegistry, type HostileRegistry } from "../../support/hostile-registry.ts";
import { TemporaryDirectory } from "../../support/temporary-directory.ts";
import { Journal } from "./journal.ts";

/** Less than the images have: the cache is always full. */
const CACHE_BYTES = 24 << 20;
const UPPERS_BYTES = 4 * 2 ** 30;
/** A device that does not come up is tried again after up to 30 s. */
const PATIENCE_MS = 120_000;

const devicesSchema = z.object({ devices: z.array(deviceReportSchema) });

export interface DeviceRequest {
  readonly id: string;
  /** Path of the image's configuration. */
  readonly config: string;
  readonly expose: Exposure;
}

/**
 * A daemon, a registry behind a faulty proxy, and two small disks, one for the cache and one for writable layers. What is asked of the
 * daemon here is asked again until it is so, because the daemon may be killed at any time.
 */
export class SoakBench implements AsyncDisposable {
  readonly daemon: DaemonBench;
  readonly registry: DockerRegistry;
  readonly proxy: HostileRegistry;
  readonly #disks: TemporaryDirectory;
  readonly journal = new Journal();
  #cleanup = new AsyncDisposableStack();

  private constructor(daemon: DaemonBench, registry: DockerRegistry, proxy: HostileRegistry, disks: TemporaryDirectory) {
    this.daemon = daemon;
    this.registry = registry;
    this.proxy = proxy;
    this.#disks = disks;
  }

  static async start(): Promise<SoakBench> {
    await using stack = new AsyncDisposableStack();
    const disks = stack.use(await TemporaryDirectory.create());
    const mountDisk = async (name: string, bytes: number): Promise<void> => {
      await mkdir(disks.join(name));
      await run("mount", ["-t", "tmpfs", "-o", `size=${bytes}`, "lazylayer-soak", disks.join(name)]);
      stack.defer(async () => void (await run("umount", ["--lazy", disks.join(name)])));
    };
    await mountDisk("cache", CACHE_BYTES);
    await mountDisk("uppers", UPPERS_BYTES);
    const registry = stack.use(await startDockerRegistry());
    const proxy = stack.use(await startHostileRegistry(registry.host));
    // Small blocks make small segments, of which some are evicted all the time.
    const cacheConfig = { cacheType: "file", cacheDir: disks.join("cache"), cacheSizeGB: 1, refillSize: 16_384 };
    const daemon = stack.use(await DaemonBench.start({ cacheConfig }));
    const bench = new SoakBench(daemon, registry, proxy, disks);
    bench.#cleanup = stack.move();
    return bench;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#cleanup.disposeAsync();
  }

  get cacheDirectory(): string {
    return this.#disks.join("cache");
  }

  get uppersDirectory(): string {
    return this.#disks.join("uppers");
  }

  /** Lets so many bytes more be written to the disk of writable layers; undefined: as many as anybody wants. */
  async leaveRoom(bytes: number | undefined): Promise<void> {
    const resize = async (size: number): Promise<CommandResult> =>
      await execute("mount", ["-o", `remount,size=${size}`, this.uppersDirectory]);
    for (let tries = 0; ; tries++) {
      const { status, stderr } = await resize(bytes === undefined ? UPPERS_BYTES : (await this.#usedBytes()) + bytes);
      if (status === 0) return;
      // A disk does not become smaller than what has been written to it meanwhile.
      assert.ok(bytes !== undefined && tries < 50, stderr);
    }
  }

  async #usedBytes(): Promise<number> {
    const { blocks, bfree, bsize } = await statfs(this.uppersDirectory);
    return (blocks - bfree) * bsize;
  }

  /** Notes what is done. */
  note(who: string, what: string): void {
    this.journal.note(who, what);
  }

  /** The last that was done, and what the daemon and the devices said. */
  story(): string {
    const devices = this.daemon.join("d.devices");
    const ids = readdirSync(devices).filter((name) => !name.startsWith("."));
    const logs = ids.map((id) => `${id} said:\n${tailOf(`${devices}/${id}/device.log`)}`);
    return [this.journal.steps(), `the daemon said:\n${this.daemon.said.slice(-3000)}`, ...logs].join("\n");
  }

  /** Makes a device if it is not there, and waits until it runs, in another process than `before`. */
  async present({ id, config, expose }: DeviceRequest, before?: number): Promise<DeviceReport> {
    let last = "";
    for (const end = performance.now() + PATIENCE_MS; performance.now() < end; await sleep(50)) {
      const report = await this.#find(id);
      if (report === "unknown") continue;
      if (report?.state === "running" && report.pid !== before) return report;
      last = JSON.stringify(report);
      if (report !== undefined) continue;
      try {
        return deviceReportSchema.parse(await this.daemon.call("POST", "/devices", { id, config, expose }));
      } catch (error) {
        last = mayPass(error);
        this.note(id, `creating failed: ${last}`);
      }
    }
    return assert.fail(`device ${id} does not come up: ${last}`);
  }

  /** Removes a device; without `force` nobody may use it. */
  async gone(id: string, force = false): Promise<void> {
    let last = "";
    for (const end = performance.now() + PATIENCE_MS; performance.now() < end; await sleep(50)) {
      const report = await this.#find(id);
      if (report === undefined) return;
      if (report === "unknown") continue;
      try {
        await this.daemon.remove(id, force);
      } catch (error) {
        last = mayPass(error);
        this.note(id, `removing failed: ${last}`);
      }
    }
    assert.fail(`device ${id} cannot be removed: ${last}`);
  }

  /** Takes a live snapshot; the new configuration's file is gone once it has been taken. */
  async snapshot(id: string, newConfig: string, isThere: () => boolean): Promise<void> {
    let last = "";
    for (const end = performance.now() + PATIENCE_MS; performance.now() < end; await sleep(50)) {
      if (!isThere()) return;
      try {
        await this.daemon.call("POST", `/devices/${id}/snapshot`, { config: newConfig });
      } catch (error) {
        last = mayPass(error);
        this.note(id, `snapshot failed: ${last}`);
      }
    }
    assert.fail(`no snapshot of device ${id} can be taken: ${last}`);
  }

  /** Undefined: there is none. Unknown: there is no daemon just now. */
  async #find(id: string): Promise<DeviceReport | "unknown" | undefined> {
    try {
      const { devices } = devicesSchema.parse(await this.daemon.call("GET", "/devices"));
      return devices.find((report) => report.id === id);
    } catch (error) {
      mayPass(error);
      return "unknown";
    }
  }
}

/** The message of an error of the kinds that a killed daemon, a bad registry and a full disk lead to. Throws all others. */
function mayPass(error: unknown): string {
  if (error instanceof LazyError && error.code !== "UNSUPPORTED") return messageOf(error);
  throw error;
}

function tailOf(path: string): string {
  try {
    return readFileSync(path, "utf8").slice(-1500);
  } catch (error) {
    return messageOf(error);
  }
}
