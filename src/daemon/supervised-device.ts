import { existsSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { LazyError, messageOf } from "../errors.ts";
import { callControl, type ControlCall } from "./control-client.ts";
import type { DeviceProcesses } from "./device-child.ts";
import { readState } from "./device-directory.ts";
import { clearDevice, devicePlaces, removeDeviceDirectory } from "./device-places.ts";
import type { DeviceReport } from "./device-report.ts";
import { deviceStatsSchema, type DeviceStats } from "./device-stats.ts";
import type { DeviceSpec, DeviceState } from "./exposure-schema.ts";
import type { Log } from "./log/log.ts";
import { isAlive, type ProcessIdentity } from "./process-identity.ts";

const POLL_MS = 200;
const FIRST_DELAY_MS = 250;
const MAX_DELAY_MS = 30_000;
/** A process that lived so long is not the cause of the next end. */
const STEADY_MS = 60_000;
const STATS_TIMEOUT_MS = 5_000;
/** Stopping writes what has not been written yet. */
const STOP_TIMEOUT_MS = 120_000;
const END_TIMEOUT_MS = 10_000;
const SETTLE_MS = 250;

export interface Supervision {
  readonly parent: string;
  readonly processes: DeviceProcesses;
  /** Told what happens to devices. */
  readonly log: Log;
  /** Called when a process is started in place of one that has ended. */
  readonly onRestart: () => void;
}

/** A device whose process is watched, and started again when it ends without having been told to. */
export class SupervisedDevice {
  readonly spec: DeviceSpec;
  readonly directory: string;
  /** Resolves when there is nothing to watch any more: the device ended, or its watching was stopped. */
  readonly over: Promise<void>;
  readonly #supervision: Supervision;
  readonly #stop = new AbortController();
  #phase: DeviceReport["state"] = "starting";
  /** The process that serves the device. */
  #server: ProcessIdentity | undefined;
  #state: DeviceState | undefined;
  #error: string | undefined;
  #restarts = 0;
  #delayMs = FIRST_DELAY_MS;
  #startedMs = performance.now();
  #removing = false;
  #starting: Promise<void> = Promise.resolve();

  /** `server`: the process that serves the device; undefined when there is none. */
  constructor(spec: DeviceSpec, server: ProcessIdentity | undefined, supervision: Supervision) {
    this.spec = spec;
    this.directory = join(supervision.parent, spec.id);
    this.#supervision = supervision;
    this.#server = server;
    this.#look();
    this.over = this.#watch();
  }

  report(): DeviceReport {
    this.#look();
    const { pid: _, ...state } = this.#state ?? {};
    const { id, configPath, expose } = this.spec;
    return {
      id,
      state: this.#phase,
      ...(this.#server !== undefined && { pid: this.#server.pid }),
      config: configPath,
      expose,
      ...(this.#phase === "running" && state),
      restarts: this.#restarts,
      ...(this.#error !== undefined && { error: this.#error }),
    };
  }

  /** Whether its directory is: a device that has ended in good order has none. */
  isThere(): boolean {
    return existsSync(this.directory);
  }

  async stats(): Promise<DeviceStats> {
    return deviceStatsSchema.parse(await this.#control({ call: "stats" }, STATS_TIMEOUT_MS));
  }

  async snapshot(config: string): Promise<void> {
    await this.#control({ call: "snapshot", config }, STOP_TIMEOUT_MS);
  }

  /** Takes the device down; nothing is left of it. Throws `UNAVAILABLE`, and the device goes on, while it is in use, unless `force`. */
  async remove(force: boolean): Promise<void> {
    if (this.#removing) throw new LazyError("UNAVAILABLE", `device ${this.spec.id} is being removed already`);
    this.#removing = true;
    try {
      await this.#starting;
      await this.#end(force);
      // A process that was killed meanwhile has not done it itself.
      if (this.isThere()) {
        await clearDevice(this.directory, this.spec.expose, "lazy");
        removeDeviceDirectory(this.directory);
      }
      this.unwatch();
      await this.over;
    } finally {
      this.#removing = false;
    }
  }

  /** Stops watching; the device goes on. */
  unwatch(): void {
    this.#stop.abort();
  }

  async #end(force: boolean): Promise<void> {
    const server = this.#server;
    if (server === undefined || !isAlive(server)) return;
    try {
      await this.#control({ call: "stop", force }, STOP_TIMEOUT_MS);
    } catch (error) {
      // One that was killed a moment ago does not answer any more, and may be there for a little longer.
      if (!force && !(await ends(server, SETTLE_MS))) throw error;
      kill(server, "SIGTERM");
    }
    if (await ends(server, END_TIMEOUT_MS)) return;
    kill(server, "SIGKILL");
    if (!(await ends(server, END_TIMEOUT_MS)))
      throw new LazyError("UNAVAILABLE", `device process ${server.pid} does not end, although it was killed; the kernel holds it`);
  }

  async #control(call: ControlCall, timeoutMs: number): Promise<unknown> {
    if (this.report().state !== "running") {
      throw new LazyError("UNAVAILABLE", `device ${this.spec.id} is ${this.#phase}${this.#error === undefined ? "" : `: ${this.#error}`}`);
    }
    return await callControl(devicePlaces(this.directory).controlSocket, call, timeoutMs);
  }

  /** What is known changes when the process says that it is ready, or ends. */
  #look(): void {
    if (this.#server === undefined) return;
    if (!isAlive(this.#server)) {
      this.#server = undefined;
      this.#phase = "restarting";
      return;
    }
    if (this.#phase === "running") return;
    const state = readState(this.directory);
    if (state?.pid !== this.#server.pid) return;
    this.#state = state;
    this.#phase = "running";
  }

  async #watch(): Promise<void> {
    const { signal } = this.#stop;
    while (!signal.aborted) {
      this.#look();
      if (this.#server === undefined && !this.#removing) {
        if (!this.isThere()) return; // it ended in good order
        await this.#startAgain();
      }
      await pause(POLL_MS, signal);
    }
  }

  async #startAgain(): Promise<void> {
    const { log } = this.#supervision;
    if (performance.now() - this.#startedMs > STEADY_MS) this.#delayMs = FIRST_DELAY_MS;
    log("warn", `device ${this.spec.id}: its process has ended; starting another in ${this.#delayMs / 1000} s`);
    await pause(this.#delayMs, this.#stop.signal);
    this.#delayMs = Math.min(2 * this.#delayMs, MAX_DELAY_MS);
    if (this.#stop.signal.aborted || this.#removing) return;
    this.#restarts++;
    this.#supervision.onRestart();
    this.#startedMs = performance.now();
    this.#starting = this.#start();
    await this.#starting;
  }

  /** Never rejects. */
  async #start(): Promise<void> {
    const { processes, log } = this.#supervision;
    try {
      await clearDevice(this.directory, this.spec.expose, "lazy");
      this.#server = await processes.start(this.spec, this.directory);
      this.#error = undefined;
      this.#phase = "starting";
      log("info", `device ${this.spec.id}: process ${this.#server.pid} serves it`);
    } catch (error) {
      this.#error = messageOf(error);
      log("error", `device ${this.spec.id}: ${this.#error}`);
    }
  }
}

async function ends(server: ProcessIdentity, timeoutMs: number): Promise<boolean> {
  for (let waitedMs = 0; isAlive(server); waitedMs += POLL_MS / 4) {
    if (waitedMs > timeoutMs) return false;
    await sleep(POLL_MS / 4);
  }
  return true;
}

function kill(server: ProcessIdentity, signal: NodeJS.Signals): void {
  if (isAlive(server)) process.kill(server.pid, signal);
}

/** Shorter when the signal is aborted. */
async function pause(milliseconds: number, signal: AbortSignal): Promise<void> {
  await sleep(milliseconds, undefined, { signal }).catch(() => {});
}
