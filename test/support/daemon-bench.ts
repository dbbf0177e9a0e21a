import assert from "node:assert/strict";
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { symlink, writeFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { stackLayerBlobs } from "../journeys/mount-support.ts";
import { DiskFile } from "../../src/bytes/file.ts";
import { deviceReportSchema, type DeviceReport } from "../../src/daemon/device-report.ts";
import { deviceStatsSchema, type DeviceStats } from "../../src/daemon/device-stats.ts";
import { callJson } from "../../src/daemon/json-client.ts";
import { AppendLayer } from "../../src/formats/lsmt/append-layer.ts";
import { SparseLayer } from "../../src/formats/lsmt/sparse-layer.ts";
import { parseMountInfo } from "../../src/native/mounts.ts";
import { run, type CommandResult } from "./command.ts";
import { CLEAN_ENVIRONMENT, LAZYLAYER, lazylayer } from "./programs.ts";
import { TemporaryDirectory } from "./temporary-directory.ts";

const PATIENCE_MS = 20_000;
/** Of the process that waits for the next device. */
const SPARE_PLACES: ReadonlySet<string> = new Set([".spare", ".spare.log"]);

export interface BenchOptions {
  /** The name of a symbolic link to the bench's directory, through which the daemon is to find its own. */
  readonly link?: string;
  /** Variables of the daemon. */
  readonly environment?: Readonly<Record<string, string>>;
  /** Starts the daemon, which it gets as its last arguments, in a world of its own. */
  readonly wrapper?: readonly string[];
}

/** A daemon with a directory of its own, in which it works. On disposal nothing may be left of its devices, and then nothing is left of it. */
export class DaemonBench implements AsyncDisposable {
  readonly #directory: TemporaryDirectory;
  readonly #options: BenchOptions;
  #daemon: ChildProcess | undefined;
  #standardError = "";

  private constructor(directory: TemporaryDirectory, options: BenchOptions) {
    this.#directory = directory;
    this.#options = options;
  }

  /** `service`: keys of the service's configuration besides the cache and the logs. */
  static async start(service: object = {}, options: BenchOptions = {}): Promise<DaemonBench> {
    assert.equal(process.geteuid?.(), 0, "this test mounts file systems: run it as root");
    const bench = new DaemonBench(await TemporaryDirectory.create(), options);
    if (options.link !== undefined) await symlink(".", bench.join(options.link));
    const cacheConfig = { cacheType: "file", cacheDir: bench.join("cache"), cacheSizeGB: 1 };
    const logs = { logConfig: { logPath: bench.log }, auditPath: bench.join("audit.log") };
    await writeFile(bench.join("service.json"), JSON.stringify({ cacheConfig, ...logs, credentialFilePath: "", ...service }));
    await bench.startDaemon();
    return bench;
  }

  join(...names: string[]): string {
    return this.#directory.join(...names);
  }

  get log(): string {
    return this.join("service.log");
  }

  /** What the daemon said on standard error, and what is in the log, where it is at its usual place. */
  get said(): string {
    return this.#standardError + readIfThere(this.log);
  }

  get socket(): string {
    return this.join(this.#options.link ?? ".", "d.sock");
  }

  /** Of the daemon. */
  get pid(): number {
    assert.ok(this.#daemon?.pid !== undefined, "the daemon runs");
    return this.#daemon.pid;
  }

  async startDaemon(): Promise<void> {
    const { environment, wrapper = [] } = this.#options;
    const [program, ...args] = [...wrapper, LAZYLAYER, "daemon", "--config", this.join("service.json"), "--socket", this.socket];
    const env = { ...process.env, ...CLEAN_ENVIRONMENT, ...environment };
    const daemon = spawn(program, args, { cwd: this.#directory.path, stdio: ["ignore", "pipe", "pipe"], env });
    daemon.stderr.on("data", (data: Buffer) => (this.#standardError += data.toString()));
    this.#daemon = daemon;
    const ready = await Promise.race([once(daemon.stdout, "data"), once(daemon, "exit")]);
    assert.equal(String(ready[0]), `${this.socket}\n`, this.said);
  }

  /** Ends the daemon. Its devices go on. */
  async endDaemon(signal: "SIGTERM" | "SIGKILL"): Promise<void> {
    const daemon = this.#daemon;
    this.#daemon = undefined;
    if (daemon === undefined || daemon.exitCode !== null || daemon.signalCode !== null) return;
    const exit = once(daemon, "exit");
    daemon.kill(signal);
    await exit;
  }

  async call(method: "GET" | "POST" | "DELETE", path: string, body?: object): Promise<unknown> {
    return await callJson({ socketPath: this.socket, method, path, body, timeoutMs: 60_000 });
  }

  async create(body: object): Promise<DeviceReport> {
    return deviceReportSchema.parse(await this.call("POST", "/devices", body));
  }

  async report(id: string): Promise<DeviceReport> {
    return deviceReportSchema.parse(await this.call("GET", `/devices/${id}`));
  }

  async stats(id: string): Promise<DeviceStats> {
    return deviceStatsSchema.parse(await this.call("GET", `/devices/${id}/stats`));
  }

  /** Waits until a device has nothing more to download; answers how that went. */
  async downloaded(id: string): Promise<DeviceStats["layerDownloads"]> {
    for (let waitedMs = 0; ; waitedMs += 50) {
      const { layerDownloads } = await this.stats(id);
      if (layerDownloads.done + layerDownloads.failed === layerDownloads.total) return layerDownloads;
      assert.ok(waitedMs < PATIENCE_MS, `${JSON.stringify(layerDownloads)}\n${this.saidBy(id)}`);
      await sleep(50);
    }
  }

  /** What the process of a device said, in the log and where it cannot write that. */
  saidBy(id: string): string {
    const lines = readIfThere(this.log).split(/(?<=\n)/);
    return lines.filter((line) => line.includes(`|device ${id}|`)).join("") + readIfThere(this.join("d.devices", id, "device.log"));
  }

  /** A digest of the part of a device, shown as a file, in which the image in testdata has something else than zeros. */
  async frontOf({ access }: DeviceReport): Promise<string> {
    assert.ok(access?.kind === "fuse");
    return await run("sh", ["-c", 'head -c 24M "$1" | sha256sum', "sh", access.path]);
  }

  async remove(id: string, force = false): Promise<void> {
    await this.call("DELETE", `/devices/${id}?force=${force}`);
  }

  /** `lazylayer device …` for this daemon. */
  async device(...args: string[]): Promise<CommandResult> {
    return await lazylayer(["device", ...args, "--socket", this.socket]);
  }

  /** Waits until a device runs, in another process than `before`. */
  async running(id: string, before?: number): Promise<DeviceReport> {
    for (let waitedMs = 0; ; waitedMs += 50) {
      const report = await this.report(id);
      if (report.state === "running" && report.pid !== before) return report;
      assert.ok(waitedMs < PATIENCE_MS, `${JSON.stringify(report)}\n${this.said}`);
      await sleep(50);
    }
  }

  /** Puts the layers of the image in testdata beside it, and answers the image's configuration. */
  async stackConfig(): Promise<{ lowers: { file: string }[]; resultFile: string }> {
    const lowers: { file: string }[] = [];
    for (const [index, blob] of stackLayerBlobs().entries()) {
      lowers.push({ file: this.join(`layer${index}`) });
      await writeFile(this.join(`layer${index}`), blob);
    }
    return { lowers, resultFile: this.join("result") };
  }

  /** Makes a new writable layer, and answers how a configuration names it. */
  async newUpper(name: string, virtualSize: number, isSparse = false): Promise<{ data: string; index: string }> {
    const upper = { data: this.join(`${name}.data`), index: this.join(`${name}.index`) };
    const [data, index] = [await DiskFile.create(upper.data), await DiskFile.create(upper.index)];
    const layer = isSparse ? await SparseLayer.create(data, { virtualSize }) : await AppendLayer.create(data, index, { virtualSize });
    await layer.close();
    if (isSparse) await index.close();
    return upper;
  }

  /** Device processes of this bench. */
  processes(): number[] {
    return readdirSync("/proc")
      .filter((name) => /^\d+$/.test(name))
      .map(Number)
      .filter((pid) => {
        return readIfThere(`/proc/${pid}/cmdline`).startsWith(`lazylayer serve-device ${this.#directory.path}/`);
      });
  }

  /** The process that waits for the next device. */
  async spare(): Promise<number> {
    for (let waitedMs = 0; ; waitedMs += 50) {
      const children = readIfThere(`/proc/${this.pid}/task/${this.pid}/children`).split(" ").filter(Boolean).map(Number);
      const spare = children.find((pid) => readIfThere(`/proc/${pid}/cmdline`).includes("\0serve-device\0"));
      if (spare !== undefined) return spare;
      assert.ok(waitedMs < PATIENCE_MS, `no process waits\n${this.said}`);
      await sleep(50);
    }
  }

  /** Mounts, loop devices' files, processes and devices' directories that belong to this bench. */
  leftovers(): string[] {
    const path = this.#directory.path;
    const mounts = parseMountInfo(readFileSync("/proc/self/mountinfo", "utf8")).filter(({ directory }) => directory.startsWith(`${path}/`));
    const loops = readdirSync("/sys/block")
      .map((name) => readIfThere(`/sys/block/${name}/loop/backing_file`))
      .filter((file) => file.startsWith(path));
    const devices = this.join("d.devices");
    return [
      ...mounts.map(({ directory }) => `mount ${directory}`),
      ...loops.map((file) => `loop ${file.trimEnd()}`),
      ...this.processes().map((pid) => `process ${pid}`),
      ...(existsSync(devices) ? readdirSync(devices) : []).filter((name) => !SPARE_PLACES.has(name)).map((name) => `directory ${name}`),
    ];
  }

  /** Waits until nothing is left; says what is. */
  async allGone(): Promise<void> {
    for (let waitedMs = 0; waitedMs < PATIENCE_MS && this.leftovers().length > 0; waitedMs += 50) await sleep(50);
    assert.deepEqual(this.leftovers(), [], this.said);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.endDaemon("SIGTERM");
    const left = this.leftovers();
    for (const pid of this.processes()) process.kill(pid, "SIGTERM");
    for (let waitedMs = 0; waitedMs < PATIENCE_MS && this.processes().length > 0; waitedMs += 50) await sleep(50);
    if (!this.leftovers().some((line) => line.startsWith("mount"))) await this.#directory[Symbol.asyncDispose]();
    assert.deepEqual(left, [], `the test leaves nothing behind\n${this.said}`);
  }
}

function readIfThere(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return ""; // gone meanwhile
  }
}
