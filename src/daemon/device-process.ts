import { rm } from "node:fs/promises";
import type { ByteSource } from "../bytes/source.ts";
import type { Eviction } from "../cache/segment-pool.ts";
import { extentsOf } from "../device/device-extents.ts";
import { lowersOf, openImageConfig, type OpenedImage } from "../device/image-config.ts";
import type { ImageConfig } from "../device/image-config-schema.ts";
import type { LayerDownloads } from "../device/layer-downloads.ts";
import { LazyError, messageOf } from "../errors.ts";
import { openServicePlaces, type ServicePlaces } from "./config/service-places.ts";
import type { ServiceMachine } from "./config/service-registries.ts";
import { ControlServer, type ControlledDevice } from "./control-server.ts";
import type { DeviceOrder } from "./device-child.ts";
import { devicePlaces, removeDeviceDirectory, writeState, type DevicePlaces } from "./device-places.ts";
import type { DeviceStats } from "./device-stats.ts";
import type { DeviceTrace, DeviceTraceOptions } from "./device-trace.ts";
import { exposeDevice, type ExposedDevice, type Shown } from "./exposed-device.ts";
import type { DeviceSpec } from "./exposure-schema.ts";
import { openDownloads } from "./device-downloads.ts";
import { loadLater } from "./later-code.ts";
import { boundLog } from "./log/bounded-log.ts";
import { unrepeated, type Log } from "./log/log.ts";
import { openServiceLogs, type ServiceLogs } from "./log/service-logs.ts";
import { meteredPlaces, newMeters, type Meters } from "./metered-places.ts";
import { beforeOpening } from "./opening-result.ts";
import type { ProcessLock } from "./process-lock.ts";
import { countError, TimedSource } from "./stopwatch.ts";
import { lockUpper } from "./upper-lock.ts";

/** Of the log in the device's directory, which is there twice at most. */
const MAX_LOG_BYTES = 2 ** 20;
const GIB = 2 ** 30;
/** Of a device that downloads nothing. */
const NO_DOWNLOADS = { total: 0, done: 0, failed: 0, bytes: 0 } as const;

/** The machine, as a process that a daemon has started knows it. */
export interface DeviceMachine extends Omit<ServiceMachine, "notice" | "onEviction"> {
  /** Takes lines for the log, where no other is configured. */
  readonly standardError: (line: string) => void;
}

/**
 * Opens the device that is ordered, shows it, and serves it until it is told to stop, or its file system is unmounted. When it ends
 * nothing is left of it, nor of its directory; when it cannot be opened, the directory stays. What goes wrong is in the log.
 * `onReady` runs once the device can be used; the machine's signal takes it down, whoever uses it.
 */
export async function serveDevice(order: DeviceOrder, machine: DeviceMachine, onReady: () => Promise<void>): Promise<void> {
  const places = devicePlaces(order.directory);
  const standardError = (line: string): void => {
    machine.standardError(line);
    boundLog(places.log, MAX_LOG_BYTES);
  };
  const { spec, service } = order;
  const logs = openServiceLogs(spec.serviceConfigPath === undefined ? undefined : service, `device ${spec.id}`, standardError);
  try {
    await serve(order, places, { ...machine, logs }, onReady);
  } catch (error) {
    logs.log("error", messageOf(error));
    throw error;
  } finally {
    logs.close();
  }
}

/** What a device is opened with. */
interface DeviceService extends DeviceMachine {
  readonly logs: ServiceLogs;
}

async function serve(order: DeviceOrder, places: DevicePlaces, machine: DeviceService, onReady: () => Promise<void>): Promise<void> {
  const { directory } = places;
  const work = new AbortController();
  const abortWork = (): void => work.abort(machine.signal.reason);
  machine.signal.addEventListener("abort", abortWork);
  if (machine.signal.aborted) abortWork();
  const device = await ServedDevice.open(order, places, { ...machine, signal: work.signal });
  let control: ControlServer | undefined;
  try {
    await rm(places.controlSocket, { force: true });
    control = await ControlServer.listen(places.controlSocket, device);
    const state = device.state();
    writeState(directory, { pid: process.pid, ...state });
    machine.logs.log("info", `can be used: ${Object.values(state.access).join(" ")}`);
    await onReady();
    // From now on stopping means to write what is to be written, which may take reading what lies below.
    machine.signal.removeEventListener("abort", abortWork);
    await device.ended(machine.signal);
  } finally {
    await device.stop("lazy");
    await control?.close();
  }
  removeDeviceDirectory(directory);
  machine.logs.log("info", "has ended");
}

/** What a device process serves. */
class ServedDevice implements ControlledDevice {
  readonly #spec: DeviceSpec;
  readonly #services: ServicePlaces;
  readonly #image: OpenedImage;
  readonly #meters: Meters;
  readonly #trace: DeviceTrace | undefined;
  readonly #layerDownloads: LayerDownloads | undefined;
  readonly #startMs = performance.now();
  readonly #stopped: PromiseWithResolvers<void> = Promise.withResolvers();
  #config: ImageConfig;
  #lock: ProcessLock | undefined;
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
    this.#trace = opened.trace;
    this.#layerDownloads = opened.layerDownloads;
    this.#lock = opened.lock;
    this.#exposed = exposed;
  }

  static async open(order: DeviceOrder, places: DevicePlaces, machine: DeviceService): Promise<ServedDevice> {
    const { spec, service, image: config } = order;
    const { logs } = machine;
    await using cleanup = new AsyncDisposableStack();
    const meters = newMeters();
    const notice = (message: string): void => logs.log("warn", message);
    order.notices.forEach(notice);
    const onEviction = (eviction: Eviction): void => {
      meters.evictions.files += eviction.files;
      meters.evictions.bytes += eviction.bytes;
      logs.audit?.eviction(eviction);
    };
    const opening = async (): Promise<ServicePlaces> => await openServicePlaces(service, { ...machine, notice, onEviction });
    const services = meteredPlaces(await beforeOpening(config, logs.log, opening), meters, logs.audit);
    cleanup.defer(async () => await services.close());
    let lock: ProcessLock | undefined;
    cleanup.defer(() => void lock?.close());
    const claimUpper = async (path: string): Promise<void> => void (lock = await lockUpper(path));
    const image = await openImageConfig(config, { ...services, claimUpper });
    cleanup.defer(async () => await image.device.close());
    const maxBytes = (service.cacheConfig.cacheSizeGB * GIB) / 2;
    const trace = await openTrace(image, { concurrency: service.prefetchConfig.concurrency, maxBytes, log: logs.log });
    cleanup.defer(async () => await trace?.discard());
    const exposed = await exposeDevice(shownDevice(spec, { image, meters, trace }, logs.log), spec.expose, places);
    cleanup.move();
    const layerDownloads = await openDownloads(image, config.download ?? service.download, services);
    return new ServedDevice({ spec, services, config, meters, image, trace, layerDownloads, lock }, exposed);
  }

  state(): Pick<DeviceStats, "sizeBytes" | "readOnly" | "layers"> & { readonly access: ExposedDevice["access"] } {
    const { device } = this.#image;
    const readOnly = this.#image.isReadOnly || this.#spec.expose.readOnly === true;
    return { access: this.#exposed.access, sizeBytes: device.size, readOnly, layers: this.#layerCount() };
  }

  stats(): DeviceStats {
    const { reads, downloads, evictions, errors } = this.#meters;
    const { lowers } = this.#image;
    const trace = this.#trace?.stats();
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
      layerDownloads: { ...(this.#layerDownloads?.counts ?? NO_DOWNLOADS) },
      evictions: { ...evictions },
      ...(trace !== undefined && { trace }),
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
    const { configPath, id } = this.#spec;
    const { takeSnapshot } = await loadLater(`device ${id}: takes no snapshot`, async () => await import("./live-snapshot.ts"));
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
    await this.#layerDownloads?.stop();
    await this.#trace?.close();
    await this.#image.device.close();
    await this.#services.close();
    this.#lock?.close();
  }

  async #flush(): Promise<void> {
    if (!this.#image.isReadOnly) await this.#image.device.flush();
  }

  #layerCount(): number {
    return lowersOf(this.#config).length + (this.#image.isReadOnly ? 0 : 1);
  }
}

interface OpenedDevice {
  readonly spec: DeviceSpec;
  readonly services: ServicePlaces;
  readonly image: OpenedImage;
  readonly config: ImageConfig;
  readonly meters: Meters;
  readonly trace: DeviceTrace | undefined;
  readonly layerDownloads: LayerDownloads | undefined;
  /** Of the upper layer. */
  readonly lock: ProcessLock | undefined;
}

/** Few images ask for it. */
async function openTrace(image: OpenedImage, options: DeviceTraceOptions): Promise<DeviceTrace | undefined> {
  if (image.trace === undefined) return undefined;
  const { openDeviceTrace } = await import("./device-trace.ts");
  return await openDeviceTrace(image, options);
}

function shownDevice(spec: DeviceSpec, { image, meters, trace }: Pick<OpenedDevice, "image" | "meters" | "trace">, log: Log): Shown {
  const { reads, errors } = meters;
  const say = unrepeated((message) => log("error", message));
  const onFailure = (error: unknown, what: string): void => {
    countError(errors, error);
    say(`${what} failed: ${messageOf(error)}`);
  };
  const { id } = spec;
  const notice = (message: string): void => log("warn", message);
  checkWritten(spec.expose, image.isReadOnly);
  if (!image.isReadOnly) {
    const { device } = image;
    const timed = new TimedSource(device, reads);
    const shown = {
      id,
      reader: undefined,
      extentsOf: (offset: number, length: number) => extentsOf(device.segments, offset, length),
      onFailure,
      notice,
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
  const { device } = image;
  const reader = device.cachedReader;
  return {
    id,
    content: readOnly(new TimedSource(image.reads, reads)),
    reader: reader && { ...reader, data: { ...reader.data, held: trace?.held } },
    extentsOf: (offset, length) => extentsOf([device.segments], offset, length),
    onFailure,
    notice,
  };
}

/** Of the upper layer and an overlay there is one that takes what is written to a mounted file system. */
function checkWritten(expose: DeviceSpec["expose"], isReadOnly: boolean): void {
  if (expose.kind !== "mount") return;
  if (!isReadOnly && expose.overlay !== undefined) {
    throw new LazyError("USAGE", "expose: overlay: the image has an upper layer, which takes what is written; leave one of them out");
  }
  if (isReadOnly && expose.readOnly === false && expose.overlay === undefined) {
    throw new LazyError(
      "USAGE",
      "expose: readOnly is false, but the image has no upper layer, nor is there an overlay, that takes what is written",
    );
  }
}

/** Whoever shows a device does not close it. */
function readOnly(source: ByteSource): ByteSource {
  return { name: source.name, size: source.size, read: async (offset, length) => await source.read(offset, length), close: async () => {} };
}
