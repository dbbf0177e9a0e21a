import { stat } from "node:fs/promises";
import { setTimeout } from "node:timers/promises";
import { FileSource } from "../bytes/file.ts";
import { makeDirectories } from "../bytes/file-directories.ts";
import type { CachedSource } from "../cache/cached-source.ts";
import { corrupt, LazyError, messageOf } from "../errors.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import type { BlobPlace } from "./blob-place.ts";
import { ByteRate } from "./byte-rate.ts";
import { checkDigest, DownloadFile, partialPath, wholePath, type FindDataExtents } from "./download-file.ts";
import { fetchMissing } from "./download-missing.ts";
import { exists } from "./image-config-file.ts";
import type { ImageConfig } from "./image-config-schema.ts";
import type { SwitchedSource } from "./switched-source.ts";

/** Bytes of a request, unless they would take longer than this part of a second, or the settings say more. */
const REQUEST_BYTES = 4 * 2 ** 20;
const REQUEST_SECONDS = 0.25;
const MIB = 2 ** 20;
/** How long a layer is left alone that another process downloads. */
const BUSY_MS = 500;
const FIRST_RETRY_MS = 1_000;
const MAX_RETRY_MS = 60_000;
/** Timers that are longer would not wait at all. */
const MAX_PAUSE_MS = 2 ** 31 - 1;

/** A layer that is read from a registry, and has a directory where its blob can be. */
export interface DownloadableLayer {
  readonly directory: string;
  readonly descriptor: Descriptor;
  readonly place: BlobPlace;
  /** What the device reads. */
  readonly source: SwitchedSource;
  /** What is kept of it already. */
  readonly kept: CachedSource | undefined;
}

export type DownloadSettings = NonNullable<ImageConfig["download"]>;

/** A lock that goes away with the process that has it. */
export interface DownloadLock {
  close(): unknown;
}

export interface LayerDownloadsOptions {
  /** Before the first layer. */
  readonly delayMs: number;
  /** Keeps other processes from downloading to a directory; undefined when one does so already. */
  readonly lock: (directory: string) => Promise<DownloadLock | undefined>;
  readonly findDataExtents: FindDataExtents | undefined;
  readonly notice: (message: string) => void;
}

export interface DownloadCounts {
  /** Layers that are to be in their directories. */
  readonly total: number;
  /** Layers that got there, through this process or another. */
  done: number;
  /** Layers that were given up. */
  failed: number;
  /** Bytes that this process has fetched for them. */
  bytes: number;
}

interface Pending {
  readonly layer: DownloadableLayer;
  tries: number;
  /** Not to be looked at before. */
  readyMs: number;
  /** The file that another process was seen to download to. It renames it when its digest is right, and only then. */
  othersFile: number | undefined;
}

/**
 * Downloads layers to their directories, one after the other, and has the device read them there. Nothing that goes wrong with it is
 * wrong with the device.
 */
export class LayerDownloads {
  readonly counts: DownloadCounts;
  readonly #layers: readonly DownloadableLayer[];
  readonly #settings: DownloadSettings;
  readonly #options: LayerDownloadsOptions;
  readonly #rate: ByteRate;
  readonly #pieceBytes: number;
  readonly #stop = new AbortController();
  readonly #ended: Promise<void>;

  constructor(layers: readonly DownloadableLayer[], settings: DownloadSettings, options: LayerDownloadsOptions) {
    this.#layers = layers;
    this.counts = { total: layers.length, done: 0, failed: 0, bytes: 0 };
    this.#settings = settings;
    this.#options = options;
    const bytesPerSecond = settings.maxMBps > 0 ? settings.maxMBps * MIB : Infinity;
    this.#rate = new ByteRate(bytesPerSecond);
    this.#pieceBytes = Math.max(settings.blockSize, Math.min(REQUEST_BYTES, bytesPerSecond * REQUEST_SECONDS));
    this.#ended = this.#run(layers.map((layer) => ({ layer, tries: 0, readyMs: -Infinity, othersFile: undefined })));
  }

  /** Resolves when nothing is underway any more. What was fetched stays, and is gone on with another time. */
  async stop(): Promise<void> {
    this.#stop.abort(new LazyError("UNAVAILABLE", "the download was stopped"));
    await this.#ended;
  }

  /** Never rejects. */
  async #run(queue: Pending[]): Promise<void> {
    if (queue.length > 0) await this.#pause(this.#options.delayMs);
    while (queue.length > 0 && !this.#isStopped) {
      const next = queue.reduce((first, other) => (other.readyMs < first.readyMs ? other : first));
      await this.#pause(next.readyMs - performance.now());
      if (this.#isStopped) return;
      queue.splice(queue.indexOf(next), 1);
      if (!(await this.#isOver(next))) queue.push(next);
    }
  }

  /** Whether nothing more is to be done for a layer, after one try. */
  async #isOver(pending: Pending): Promise<boolean> {
    const { tryCnt } = this.#settings;
    try {
      if (await this.#try(pending)) {
        this.counts.done++;
        return true;
      }
      pending.readyMs = performance.now() + BUSY_MS;
      return false;
    } catch (error) {
      if (this.#isStopped) return true;
      pending.tries++;
      const isLast = pending.tries >= tryCnt;
      const { directory, descriptor } = pending.layer;
      const outcome = isLast ? "it stays remote" : "it will be tried again";
      this.#options.notice(
        `${directory}: download of ${descriptor.digest} failed, try ${pending.tries} of ${tryCnt}: ${messageOf(error)}; ${outcome}`,
      );
      if (isLast) this.counts.failed++;
      pending.readyMs = performance.now() + Math.min(FIRST_RETRY_MS * 2 ** (pending.tries - 1), MAX_RETRY_MS);
      return isLast;
    }
  }

  /** False while another process downloads the layer. */
  async #try(pending: Pending): Promise<boolean> {
    const { layer } = pending;
    if (await this.#adopt(pending)) return true;
    await makeDirectories(layer.directory);
    const lock = await this.#options.lock(layer.directory);
    if (lock === undefined) {
      pending.othersFile = await inodeOf(partialPath(layer.directory));
      return false;
    }
    try {
      // What is kept may be what was wrong.
      if (!(await this.#adopt(pending))) await this.#download(layer, pending.tries === 0 ? layer.kept : undefined);
      return true;
    } finally {
      lock.close();
    }
  }

  /** Takes the file that the directory has by now; false if it has none. */
  async #adopt({ layer, othersFile }: Pending): Promise<boolean> {
    const path = wholePath(layer.directory);
    if (!(await exists(path))) return false;
    const file = await FileSource.open(path);
    try {
      const { digest, size } = layer.descriptor;
      if (file.size !== size) throw corrupt(`${path}: has ${file.size} bytes, expected ${size}`);
      if (othersFile === undefined || (await inodeOf(path)) !== othersFile) await checkDigest(file, digest, this.#stop.signal);
    } catch (error) {
      await file.close();
      if (!(error instanceof LazyError && error.code === "CORRUPT")) throw error;
      throw corrupt(`${error.message}; it is another layer's, or damaged: remove it to have the layer downloaded`, { cause: error });
    }
    layer.source.switchTo(file);
    return true;
  }

  async #download({ directory, descriptor, place, source }: DownloadableLayer, kept: CachedSource | undefined): Promise<void> {
    const file = await DownloadFile.open(directory, descriptor, this.#options.findDataExtents);
    try {
      await fetchMissing(file, await place.blobSource(descriptor, { inBackground: true }), {
        kept,
        pieceBytes: this.#pieceBytes,
        rate: this.#rate,
        idle: async () => await this.#idle(),
        signal: this.#stop.signal,
        onFetched: (bytes) => (this.counts.bytes += bytes),
      });
      await file.commit(this.#stop.signal);
    } catch (error) {
      if (error instanceof LazyError && error.code === "CORRUPT") source.distrust();
      throw error;
    } finally {
      await file.close();
    }
    try {
      source.switchTo(await FileSource.open(wholePath(directory)));
    } catch (error) {
      this.#options.notice(`${messageOf(error)}; the layer is read from the registry on`);
    }
  }

  /** Resolves when no read of the device waits for a registry. */
  async #idle(): Promise<void> {
    for (const { source } of this.#layers) await source.idle();
  }

  get #isStopped(): boolean {
    return this.#stop.signal.aborted;
  }

  /** Shorter when all is stopped. */
  async #pause(milliseconds: number): Promise<void> {
    if (milliseconds > 0) await setTimeout(Math.min(milliseconds, MAX_PAUSE_MS), undefined, { signal: this.#stop.signal }).catch(() => {});
  }
}

/** Undefined where there is no file. */
async function inodeOf(path: string): Promise<number | undefined> {
  return await stat(path).then(
    ({ ino }) => ino,
    () => undefined,
  );
}
