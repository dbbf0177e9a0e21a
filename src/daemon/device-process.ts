import { rm } from "node:fs/promises";
import type { ByteSource } from "../bytes/source.ts";
import type { BlobPlace } from "../device/blob-place.ts";
import { extentsOf } from "../device/device-extents.ts";
import { hasUpper, openImageConfig, type OpenedImage } from "../device/image-config.ts";
import type { ImagePlaces } from "../device/image-config-places.ts";
import type { ImageConfig } from "../device/image-config-schema.ts";
import { LazyError, messageOf } from "../errors.ts";
import { openServicePlaces, type ServicePlaces } from "./config/service-places.ts";
import type { ServiceMachine } from "./config/service-registries.ts";
import { ControlServer, type ControlledDevice } from "./control-server.ts";
import type { DeviceOrder } from "./device-child.ts";
import { devicePlaces, removeDeviceDirectory, writeState, type DevicePlaces } from "./device-places.ts";
import type { DeviceStats } from "./device-stats.ts";
import { exposeDevice, type ExposedDevice, type Shown } from "./exposed-device.ts";
import type { DeviceSpec } from "./exposure-schema.ts";
import { countError, Stopwatch, TimedSource, type ErrorCounts } from "./stopwatch.ts";
import { lockUpper, type UpperLock } from "./upper-lock.ts";

/**
 * Opens the device that is ordered, shows it, and serves it until it is told to stop, or its file system is unmounted. When
 * it ends nothing is left of it, nor of its directory; when it cannot be opened, the directory stays.
 * `onReady` runs once the device can be used; the machine's signal takes it down, whoever uses it.
 */
export async function serveDevice(
  directory: string,
  order: DeviceOrder,
  machine: ServiceMachine,
  onReady: () => Promise<void>,
): Promise<void> {
  const places = devicePlaces(directory);
  const work = new AbortController();
  const abortWork = (): void => work.abort(machine.signal.reason);
  machine.signal.addEventListener("abort", abortWork);
  if (machine.signal.aborted) abortWork();
  const device = await ServedDevice.open(order, places, { ...machine, signal: work.signal });
  let control: ControlServer | undefined;
  try {
    await rm(places.controlSocket, { force: true });
    control = await ControlServer.listen(places.controlSocket, device);
    writeState(directory, { pid: process.pid, ...device.state() });
    await onReady();
    // From now on stopping means to write what is to be written, which may take reading what lies below.
    machine.signal.removeEventListener("abort", abortWork);
    await device.ended(machine.signal);
  } finally {
    await device.stop("lazy");
    await control?.close();
  }
  removeDeviceDirectory(directory);
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

  static async open(order: DeviceOrder, places: DevicePlaces, machine: ServiceMachine): Promise<ServedDevice> {
    const { spec, image: config } = order;
    order.notices.forEach(machine.notice);
    await using cleanup = new AsyncDisposableStack();
    const services = await openServicePlaces(order.service, machine);
    cleanup.defer(async () => await services.close());
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

  /** Everything that was written is safe when it resolves. In mode `plain` it fails while the device is in use, and goes on. */
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
    const { takeSnapshot } = await import("./live-snapshot.ts");
    const { configPath } = this.#spec;
    const taken = await takeSnapshot(this.#image, { config: this.#config, configPath, newConfigPath }, this.#services);
    this.#lock?.close();
    [this.#config, this.#lock] = [taken.config, taken.lock];
  }

  async #takeDown(mode: "plain" | "lazy"): Promise<void> {
    if (!this.#isHidden) await this.#exposed.stop(mode);
    this.#isHidden = true;
    await this.#image.device.close();
    await this.#services.close();
    this.#lock?.close();
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
    const shown = {
      id,
      reader: undefined,
      extentsOf: (offset: number, length: number) => extentsOf(device.segments, offset, length),
      onFailure,
    };
    if (spec.expose.readOnly === true) return { ...shown, content: readOnly(timed) };
    const writable = {
      name: device.name,
      size: device.size,
      read: async (offset: number, length: number) => await timed.read(offset, length),
      write: async (offset: number, bytes: Uint8Array) => await device.write(offset, bytes),
      discard: async (offset: number, length: number) => await device.discard(offset, length),
      flush: async () => await device.flush(),
      close: async () => {},
    };
    return { ...shown, content: writable };
  }
  if (spec.expose.kind === "mount" && spec.expose.readOnly === false) {
    throw new LazyError("USAGE", "expose: readOnly is false, but the image has no upper layer that takes what is written");
  }
  const { device } = image;
  return {
    id,
    content: readOnly(new TimedSource(device, reads)),
    reader: device.cachedReader,
    extentsOf: (offset, length) => extentsOf([device.segments], offset, length),
    onFailure,
  };
}

/** Whoever shows a device does not close it. */
function readOnly(source: ByteSource): ByteSource {
  return { name: source.name, size: source.size, read: async (offset, length) => await source.read(offset, length), close: async () => {} };
}
