import { readFile, rm } from "node:fs/promises";
import type { Server } from "node:http";
import type { ByteSource } from "../bytes/source.ts";
import type { BlobPlace } from "../device/blob-place.ts";
import type { Device } from "../device/device.ts";
import { openImageConfig, type OpenedImage } from "../device/image-config.ts";
import type { ImagePlaces } from "../device/image-config-places.ts";
import { parseImageConfig, type ImageConfig } from "../device/image-config-schema.ts";
import { hasUpper } from "../device/image-config-upper.ts";
import { LazyError, messageOf } from "../errors.ts";
import type { Extent } from "../export/nbd/nbd-export.ts";
import { SECTOR_BYTES } from "../formats/lsmt/layout.ts";
import { ZEROS } from "../formats/lsmt/segment-table.ts";
import { parseServiceConfig, type ServiceConfig } from "./config/service-config.ts";
import { openServicePlaces, type ServiceMachine, type ServicePlaces } from "./config/service-places.ts";
import { controlRoutes, type ControlledDevice } from "./control-api.ts";
import { devicePlaces, readSpec, removeDeviceDirectory, writeState, type DevicePlaces } from "./device-directory.ts";
import type { DeviceStats } from "./device-stats.ts";
import { exposeDevice, type ExposedDevice, type Shown } from "./exposed-device.ts";
import type { DeviceSpec } from "./exposure-schema.ts";
import { createJsonServer } from "./json-server.ts";
import { takeSnapshot } from "./live-snapshot.ts";
import { countError, Stopwatch, TimedSource, type ErrorCounts } from "./stopwatch.ts";
import { listenOnSocket } from "./unix-listener.ts";
import { lockUpper, type UpperLock } from "./upper-lock.ts";

const ANSWER_TIMEOUT_MS = 1_000;

/**
 * Opens the device that a directory describes, shows it, and serves it until it is told to stop, or its file system is unmounted. When
 * it ends nothing is left of it, nor of its directory; when it cannot be opened, the directory stays.
 * `onReady` runs once the device can be used; the machine's signal takes it down, whoever uses it.
 */
export async function serveDevice(directory: string, machine: ServiceMachine, onReady: () => Promise<void>): Promise<void> {
  const spec = readSpec(directory);
  const places = devicePlaces(directory);
  const work = new AbortController();
  const abortWork = (): void => work.abort(machine.signal.reason);
  machine.signal.addEventListener("abort", abortWork);
  if (machine.signal.aborted) abortWork();
  const device = await ServedDevice.open(spec, places, { ...machine, signal: work.signal });
  const server = createJsonServer(controlRoutes(device));
  try {
    await rm(places.controlSocket, { force: true });
    await listenOnSocket(server, places.controlSocket);
    writeState(directory, { pid: process.pid, ...device.state() });
    await onReady();
    // From now on stopping means to write what is to be written, which may take reading what lies below.
    machine.signal.removeEventListener("abort", abortWork);
    await device.ended(machine.signal);
  } finally {
    await device.stop("lazy");
    await closeServer(server);
  }
  removeDeviceDirectory(directory);
}

/** Whoever asked for the end still gets the answer. */
async function closeServer(server: Server): Promise<void> {
  const closed = new Promise((resolve) => server.close(resolve));
  const late = setTimeout(() => server.closeAllConnections(), ANSWER_TIMEOUT_MS);
  await closed;
  clearTimeout(late);
}

/** What a device process serves. */
class ServedDevice implements ControlledDevice {
  readonly #spec: DeviceSpec;
  readonly #services: ServicePlaces;
  readonly #image: OpenedImage;
  readonly #meters: Meters;
  readonly #startMs = performance.now();
  readonly #stopped: PromiseWithResolvers<void> = Promise.withResolvers();
  #config: ImageConfig;
  #lock: UpperLock | undefined;
  readonly #exposed: ExposedDevice;
  #isHidden = false;
  #stopping: Promise<void> | undefined;
  #snapshots: Promise<unknown> = Promise.resolve();

  private constructor(opened: OpenedDevice, exposed: ExposedDevice) {
    this.#spec = opened.spec;
    this.#services = opened.services;
    this.#image = opened.image;
    this.#config = opened.config;
    this.#meters = opened.meters;
    this.#lock = opened.lock;
    this.#exposed = exposed;
  }

  static async open(spec: DeviceSpec, places: DevicePlaces, machine: ServiceMachine): Promise<ServedDevice> {
    await using cleanup = new AsyncDisposableStack();
    const services = await openServicePlaces(await readServiceConfig(spec, machine), machine);
    cleanup.defer(async () => await services.close());
    const config = await readImageConfig(spec.configPath, machine);
    const lock = hasUpper(config.upper) ? await lockUpper(config.upper.data) : undefined;
    cleanup.defer(() => void lock?.close());
    const meters: Meters = { reads: new Stopwatch(), downloads: new Stopwatch(), errors: {} };
    const image = await openImageConfig(config, withMeter(services, meters));
    cleanup.defer(async () => await image.device.close());
    const exposed = await exposeDevice(shownDevice(spec, image, meters, machine), spec.expose, places);
    cleanup.move();
    return new ServedDevice({ spec, services, config, meters, image, lock }, exposed);
  }

  state(): Pick<DeviceStats, "sizeBytes" | "readOnly" | "layers"> & { readonly access: ExposedDevice["access"] } {
    const { device } = this.#image;
    const readOnly = this.#image.isReadOnly || this.#spec.expose.readOnly === true;
    return { access: this.#exposed.access, sizeBytes: device.size, readOnly, layers: this.#layerCount() };
  }

  stats(): DeviceStats {
    const { reads, downloads, errors } = this.#meters;
    const lowers = this.#image.isReadOnly ? this.#image.device : this.#image.lowers;
    const counts = this.#exposed.counts();
    const { access: _, ...state } = this.state();
    return {
      id: this.#spec.id,
      pid: process.pid,
      upSeconds: Math.round((performance.now() - this.#startMs) / 1000),
      rssBytes: process.memoryUsage.rss(),
      ...state,
      blobBytes: lowers?.blobBytes ?? 0,
      reads: {
        cached: counts.cachedReads,
        cachedBytes: counts.cachedBytes,
        waited: reads.requests,
        waitedBytes: reads.bytes,
        latency: reads.latency(),
      },
      writes: { requests: counts.writes, bytes: counts.writtenBytes, discards: counts.discards, flushes: counts.flushes },
      fetches: { ...(lowers?.fetched ?? { requests: 0, bytes: 0 }) },
      downloads: { requests: downloads.requests, bytes: downloads.bytes, latency: downloads.latency() },
      errors: { ...errors },
    };
  }

  /** Resolves when the device was stopped, or has to be; rejects when serving it failed. */
  async ended(signal: AbortSignal): Promise<void> {
    const aborted = Promise.withResolvers<void>();
    const onAbort = (): void => aborted.resolve();
    signal.addEventListener("abort", onAbort);
    if (signal.aborted) onAbort();
    await Promise.race([this.#stopped.promise, this.#exposed.ended, aborted.promise]);
    signal.removeEventListener("abort", onAbort);
  }

  /**
   * Everything that was written is safe when it resolves. In mode `plain` it fails, and the device goes on, while it is in use and while
   * there is no room for what was written.
   */
  async stop(mode: "plain" | "lazy"): Promise<void> {
    this.#stopping ??= this.#takeDown(mode);
    const stopping = this.#stopping;
    try {
      await stopping;
    } catch (error) {
      if (this.#stopping === stopping) this.#stopping = undefined;
      throw error;
    }
    this.#stopped.resolve();
  }

  /** One at a time. */
  async snapshot(newConfigPath: string): Promise<void> {
    const mine = this.#snapshots.then(async () => await this.#takeSnapshot(newConfigPath));
    this.#snapshots = mine.catch(() => {});
    await mine;
  }

  async #takeSnapshot(newConfigPath: string): Promise<void> {
    if (this.#image.isReadOnly) throw new LazyError("USAGE", `device ${this.#spec.id} has no upper layer, so there is nothing to snapshot`);
    if (this.#stopping !== undefined) throw new LazyError("UNAVAILABLE", `device ${this.#spec.id} is being removed`);
    const { configPath } = this.#spec;
    const taken = await takeSnapshot(this.#image, { config: this.#config, configPath, newConfigPath }, this.#services);
    this.#lock?.close();
    [this.#config, this.#lock] = [taken.config, taken.lock];
  }

  async #takeDown(mode: "plain" | "lazy"): Promise<void> {
    if (mode === "plain") await this.#flush();
    if (!this.#isHidden) await this.#exposed.stop(mode);
    this.#isHidden = true;
    // The kernel may have written more before it let go; closing could not be tried again.
    if (mode === "plain") await this.#flush();
    await this.#image.device.close();
    await this.#services.close();
    this.#lock?.close();
  }

  async #flush(): Promise<void> {
    if (!this.#image.isReadOnly) await this.#image.device.flush();
  }

  #layerCount(): number {
    return this.#config.lowers.length + (this.#image.isReadOnly ? 0 : 1);
  }
}

interface OpenedDevice {
  readonly spec: DeviceSpec;
  readonly services: ServicePlaces;
  readonly image: OpenedImage;
  readonly config: ImageConfig;
  readonly meters: Meters;
  /** Of the upper layer. */
  readonly lock: UpperLock | undefined;
}

interface Meters {
  /** Reads that went through the main thread. */
  readonly reads: Stopwatch;
  /** Requests to registries. */
  readonly downloads: Stopwatch;
  readonly errors: ErrorCounts;
}

async function readServiceConfig({ serviceConfigPath: path }: DeviceSpec, { notice }: ServiceMachine): Promise<ServiceConfig> {
  const { config, notices } = path === undefined ? parseServiceConfig("{}", "defaults") : parseServiceConfig(await readText(path), path);
  notices.forEach(notice);
  return config;
}

async function readImageConfig(path: string, { notice }: ServiceMachine): Promise<ImageConfig> {
  const { config, notices } = parseImageConfig(await readText(path), path);
  notices.forEach(notice);
  return config;
}

async function readText(path: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (cause) {
    const code = cause instanceof Error && "code" in cause && cause.code === "ENOENT" ? "NOT_FOUND" : "UNAVAILABLE";
    throw new LazyError(code, `${path}: cannot be read: ${messageOf(cause)}`, { cause });
  }
}

/** What is asked of registries is timed, and counted when it fails: others try again, and nobody hears of it otherwise. */
function withMeter(places: ServicePlaces, { downloads, errors }: Meters): ImagePlaces {
  const openRemote = async (repoBlobUrl: string): Promise<BlobPlace> => {
    const place = await places.openRemote(repoBlobUrl);
    return {
      name: place.name,
      blobSize: async (...args) => await place.blobSize(...args),
      blobSource: async (...args) => new TimedSource(await place.blobSource(...args), downloads, errors),
    };
  };
  return { ...places, openRemote };
}

function shownDevice(spec: DeviceSpec, image: OpenedImage, { reads, errors }: Meters, { notice }: ServiceMachine): Shown {
  let last = "";
  const onFailure = (error: unknown, what: string): void => {
    countError(errors, error);
    const message = messageOf(error);
    // The same failure again and again is said once.
    if (message !== last) notice(`${what} failed: ${message}`);
    last = message;
  };
  const { id } = spec;
  if (!image.isReadOnly) {
    const { device } = image;
    const timed = new TimedSource(device, reads);
    if (spec.expose.readOnly === true) return { id, content: readOnly(timed), reader: undefined, extentsOf: undefined, onFailure };
    const writable = {
      name: device.name,
      size: device.size,
      read: async (offset: number, length: number) => await timed.read(offset, length),
      write: async (offset: number, bytes: Uint8Array) => await device.write(offset, bytes),
      discard: async (offset: number, length: number) => await device.discard(offset, length),
      flush: async () => await device.flush(),
      close: async () => {},
    };
    return { id, content: writable, reader: undefined, extentsOf: undefined, onFailure };
  }
  if (spec.expose.kind === "mount" && spec.expose.readOnly === false) {
    throw new LazyError("USAGE", "expose: readOnly is false, but the image has no upper layer that takes what is written");
  }
  const { device } = image;
  return {
    id,
    content: readOnly(new TimedSource(device, reads)),
    reader: device.cachedReader,
    extentsOf: (offset, length) => extentsOf(device, offset, length),
    onFailure,
  };
}

/** The stretches of a range of a device: what some layer holds there, or a hole. */
function extentsOf({ segments }: Device, offset: number, length: number): Extent[] {
  const extents: Extent[] = [];
  const end = offset + length;
  segments.forRange(Math.floor(offset / SECTOR_BYTES), Math.ceil(end / SECTOR_BYTES), (first, sectors, mappedSector) => {
    const start = Math.max(first * SECTOR_BYTES, offset);
    extents.push({ bytes: Math.min((first + sectors) * SECTOR_BYTES, end) - start, isHole: mappedSector === ZEROS });
  });
  return extents;
}

/** Whoever shows a device does not close it. */
function readOnly(source: ByteSource): ByteSource {
  return { name: source.name, size: source.size, read: async (offset, length) => await source.read(offset, length), close: async () => {} };
}
