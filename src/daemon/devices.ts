import { randomBytes } from "node:crypto";
import { mkdirSync, realpathSync } from "node:fs";
import { realpath } from "node:fs/promises";
import { join } from "node:path";
import { parseImageConfig, type ImageConfig } from "../device/image-config-schema.ts";
import { LazyError, messageOf } from "../errors.ts";
import { readConfigText } from "./config/config-file.ts";
import { DeviceProcesses, type Launcher } from "./device-child.ts";
import { createDeviceDirectory, findDevices, type NewDevice } from "./device-directory.ts";
import { clearDevice, removeDeviceDirectory } from "./device-places.ts";
import { exposureSchema, type DeviceSpec, type Exposure } from "./exposure-schema.ts";
import { beforeOpening, DuplicateDeviceError } from "./opening-result.ts";
import type { ProcessIdentity } from "./process-identity.ts";
import { SupervisedDevice, type Supervision } from "./supervised-device.ts";

export interface DeviceRequest {
  /** By default one is made up. */
  readonly id?: string | undefined;
  /** A path, or the configuration itself. */
  readonly config: string | object;
  readonly expose?: Exposure | undefined;
}

export interface DevicesOptions extends Omit<Supervision, "processes" | "onRestart"> {
  readonly serviceConfigPath: string | undefined;
  readonly launcher: Launcher;
}

const DEFAULT_EXPOSURE: Exposure = exposureSchema.parse({ kind: "fuse" });

/** All devices of a daemon. They go on without it, and it finds them again. */
export class Devices {
  readonly #options: DevicesOptions;
  readonly #processes: DeviceProcesses;
  readonly #devices = new Map<string, SupervisedDevice>();
  /** Ids of devices that are being created. */
  readonly #creating = new Set<string>();
  #restarts = 0;
  #isClosed = false;

  private constructor(options: DevicesOptions) {
    this.#options = options;
    this.#processes = new DeviceProcesses(options);
  }

  /** Finds the devices that an earlier daemon started; those whose process is gone are started again. */
  static open(wanted: DevicesOptions): Devices {
    mkdirSync(wanted.parent, { recursive: true, mode: 0o700 });
    // The kernel knows mounts, and files behind loop devices, by their real path.
    const options = { ...wanted, parent: realpathSync(wanted.parent) };
    const devices = new Devices(options);
    for (const { spec, server } of findDevices(options.parent, (message) => options.log("warn", message))) {
      if (server === undefined) options.log("warn", `device ${spec.id}: is there, but no process that serves it`);
      else options.log("info", `device ${spec.id}: is served by process ${server.pid}`);
      devices.#supervise(spec, server);
    }
    devices.#processes.prepare();
    return devices;
  }

  /** How often processes were started in place of others that had ended, those of devices that are gone among them. */
  get restarts(): number {
    return this.#restarts;
  }

  list(): SupervisedDevice[] {
    return [...this.#devices.values()].filter((device) => device.isThere());
  }

  /** Throws `NOT_FOUND`. */
  get(id: string): SupervisedDevice {
    const device = this.#devices.get(id);
    if (device?.isThere() !== true) throw new LazyError("NOT_FOUND", `there is no device ${JSON.stringify(id)}`);
    return device;
  }

  /** Starts a device and answers it when it can be used; when this fails nothing is left of it. */
  async create({
    id = `device-${randomBytes(4).toString("hex")}`,
    config,
    expose = DEFAULT_EXPOSURE,
  }: DeviceRequest): Promise<SupervisedDevice> {
    const { image, kept } = await readImage(config);
    const { serviceConfigPath, parent, log } = this.#options;
    await this.#forgetEnded(id);
    if (this.#devices.has(id) || this.#creating.has(id)) {
      return await beforeOpening(image, log, () => {
        throw new DuplicateDeviceError(id);
      });
    }
    this.#creating.add(id);
    try {
      const spec = await beforeOpening(
        image,
        log,
        async () => await createDeviceDirectory(parent, { id, config: kept, serviceConfigPath, expose: await atRealPath(expose) }),
      );
      return await this.#start(spec);
    } finally {
      this.#creating.delete(id);
    }
  }

  /** A device that has ended in good order, just now, gives its id free. */
  async #forgetEnded(id: string): Promise<void> {
    const device = this.#devices.get(id);
    if (device === undefined || device.isThere()) return;
    device.unwatch();
    await device.over;
    if (this.#devices.get(id) === device) this.#devices.delete(id);
  }

  async remove(id: string, force: boolean): Promise<void> {
    await this.get(id).remove(force);
    this.#devices.delete(id);
  }

  /** Stops watching; devices go on. */
  async close(): Promise<void> {
    this.#isClosed = true;
    for (const device of this.#devices.values()) device.unwatch();
    await this.#processes.close();
    await Promise.all([...this.#devices.values()].map(async ({ over }) => await over));
  }

  async #start(spec: DeviceSpec): Promise<SupervisedDevice> {
    const { parent, log } = this.#options;
    const directory = join(parent, spec.id);
    try {
      const server = await this.#processes.start(spec, directory);
      log("info", `device ${spec.id}: process ${server.pid} serves it`);
      return this.#supervise(spec, server);
    } catch (error) {
      await clearDevice(directory, spec.expose, "lazy");
      removeDeviceDirectory(directory);
      throw error;
    }
  }

  #supervise(spec: DeviceSpec, server: ProcessIdentity | undefined): SupervisedDevice {
    const device = new SupervisedDevice(spec, server, {
      ...this.#options,
      processes: this.#processes,
      onRestart: () => this.#restarts++,
    });
    this.#devices.set(spec.id, device);
    // Made while the daemon ends: the next one finds it.
    if (this.#isClosed) device.unwatch();
    device.over.then(
      () => {
        if (this.#devices.get(spec.id) === device && !device.isThere()) this.#devices.delete(spec.id);
      },
      (error: unknown) => this.#options.log("error", `device ${spec.id}: is not watched any more: ${messageOf(error)}`),
    );
    return device;
  }
}

/** The kernel knows mounts by their real path. */
async function atRealPath(expose: Exposure): Promise<Exposure> {
  if (expose.kind !== "mount") return expose;
  try {
    return { ...expose, directory: await realpath(expose.directory) };
  } catch (cause) {
    throw new LazyError("NOT_FOUND", `expose: ${expose.directory}: ${messageOf(cause)}`, { cause });
  }
}

/** The configuration, and how a device keeps it. */
async function readImage(config: string | object): Promise<{ readonly image: ImageConfig; readonly kept: NewDevice["config"] }> {
  if (typeof config !== "string") {
    const text = JSON.stringify(config, undefined, 2);
    return { image: parseImageConfig(text, "config").config, kept: { text } };
  }
  return { image: parseImageConfig(await readConfigText(config), config).config, kept: { path: config } };
}
