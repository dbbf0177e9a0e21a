import { mkdirSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { BlockDevice } from "../bytes/block-device.ts";
import type { ByteSource } from "../bytes/source.ts";
import { probeFilesystem, type Filesystem } from "../device/filesystem.ts";
import { LazyError, messageOf } from "../errors.ts";
import { dismantle, mountFilesystem, takeFromKernel, type MountPlaces } from "../export/filesystem.ts";
import { CONTENT_NAME, FuseServer } from "../export/fuse/fuse-server.ts";
import type { SyncReaderModule } from "../export/fuse/sync-reader.ts";
import { nbdUri, parseNbdAddress, type NbdAddress } from "../export/nbd/nbd-address.ts";
import type { NbdExport } from "../export/nbd/nbd-export.ts";
import type { NbdServer } from "../export/nbd/nbd-server.ts";
import { attachNbdDisk, detachNbdDisk } from "../export/nbd-disk.ts";
import { openExclusively } from "../native/block-device.ts";
import { attachLoop } from "../native/loop.ts";
import { mountAt } from "../native/mounts.ts";
import { mountPlaces, type DevicePlaces } from "./device-places.ts";
import type { Access, Exposure } from "./exposure-schema.ts";

const MAX_WORKERS = 2;
const SECTOR_BYTES = 512;
/** How long the kernel may take to say that a file was closed. */
const CLOSE_TIMEOUT_MS = 500;
const CLOSE_POLL_MS = 10;
/** How long the kernel may take to let go of the file. */
const RELEASE_TIMEOUT_MS = { plain: 10_000, lazy: 2_000 } as const;

/** What is shown, and who is told when it fails. */
export interface Shown {
  readonly id: string;
  /** Can be written if it has a `write`. */
  readonly content: ByteSource | BlockDevice;
  readonly reader: SyncReaderModule | undefined;
  readonly extentsOf: NbdExport["extentsOf"];
  readonly onFailure: (error: unknown, what: string) => void;
  /** Told what users do not notice. */
  readonly notice: (message: string) => void;
}

/** What users of a device have done. */
export interface UseCounts {
  readonly cachedReads: number;
  readonly cachedBytes: number;
  readonly writes: number;
  readonly writtenBytes: number;
  readonly discards: number;
  readonly flushes: number;
}

/** A device that the kernel, or NBD's clients, can use. */
export interface ExposedDevice {
  readonly access: Access;
  /** Resolves when somebody else took the device down; rejects when what serves it fails. */
  readonly ended: Promise<void>;
  counts(): UseCounts;
  /** Throws `UNAVAILABLE`, having changed nothing, while somebody uses the device; `lazy` makes their requests fail. */
  stop(mode: "plain" | "lazy"): Promise<void>;
}

/** Shows a device. When this fails nothing is left of it. */
export async function exposeDevice(shown: Shown, expose: Exposure, places: DevicePlaces): Promise<ExposedDevice> {
  if (expose.kind === "nbd") return await exposeByNbd(shown, expose, places);
  if (expose.kind === "nbd-disk") return await exposeByNbdDisk(shown, places);
  mkdirSync(places.exportDirectory, { recursive: true, mode: 0o700 });
  const server = await serveFuse(shown, places);
  try {
    return await exposeByFuse(server, shown, expose, places);
  } catch (error) {
    await dismantle(mountPlaces(places, expose), "lazy");
    await server.close();
    throw error;
  }
}

async function serveFuse({ content, reader, onFailure, notice }: Shown, { exportDirectory }: DevicePlaces): Promise<FuseServer> {
  return await FuseServer.mount({
    directory: exportDirectory,
    content,
    reader,
    workers: Math.min(MAX_WORKERS, availableParallelism()),
    stats: () => "",
    onReadFailure: (error, offset, length) => onFailure(error, `read of [${offset}, ${offset + length})`),
    onWriteFailure: (error, change) => onFailure(error, change.kind),
    onStartFailure: (error) => notice(messageOf(error)),
  });
}

async function exposeByFuse(
  server: FuseServer,
  shown: Shown,
  expose: Exclude<Exposure, { kind: "nbd" | "nbd-disk" }>,
  places: DevicePlaces,
): Promise<ExposedDevice> {
  const path = join(places.exportDirectory, CONTENT_NAME);
  const isReadOnly = !("write" in shown.content);
  const counts = (): UseCounts => server.counts();
  switch (expose.kind) {
    case "fuse":
      return {
        access: { kind: "fuse", path },
        ended: server.ended,
        counts,
        stop: async (mode) => {
          if (mode === "plain" && !(await isClosed(server))) throw inUse(shown.id, `${path} is open`);
          await server.close();
        },
      };
    case "loop": {
      const sectorBytes = await sectorBytesOf(shown.content);
      const device = await attachLoop(path, sectorBytes, isReadOnly);
      return {
        access: { kind: "loop", path, device },
        ended: server.ended,
        counts,
        stop: async (mode) => {
          if (mode === "plain") await refuseClaimed(shown.id, device);
          await takeDown(server, mountPlaces(places, expose), mode);
        },
      };
    }
    case "mount": {
      const filesystem = await probeFilesystem(shown.content);
      const mount = mountPlaces(places, expose);
      await mountShown(server, filesystem, mount, isReadOnly);
      return {
        access: { kind: "mount", directory: expose.directory, filesystem: filesystem.type, path },
        // Unmounting by hand is as good a way to end it as any.
        ended: Promise.race([server.ended, server.released()]),
        counts,
        stop: async (mode) => await unlessBusy(shown.id, takeDown(server, mount, mode)),
      };
    }
  }
}

/** The kernel tells of the last close only after whoever closed has gone on. */
async function isClosed(server: FuseServer): Promise<boolean> {
  for (let waitedMs = 0; server.openings() > 0; waitedMs += CLOSE_POLL_MS) {
    if (waitedMs >= CLOSE_TIMEOUT_MS) return false;
    await sleep(CLOSE_POLL_MS);
  }
  return true;
}

/** Mounting waits for reads; when nobody answers them the connection is cut, and they fail. */
async function mountShown(server: FuseServer, filesystem: Filesystem, places: MountPlaces, isReadOnly: boolean): Promise<void> {
  const { type, sectorBytes, needsRecovery } = filesystem;
  const busy = mountAt(places.directory);
  if (busy !== undefined) {
    throw new LazyError("USAGE", `expose: ${busy.type} from ${busy.source} is mounted on ${places.directory}; name another directory`);
  }
  if (type === "erofs" && !isReadOnly) throw new LazyError("USAGE", `expose: EROFS cannot be written; mount it with readOnly`);
  const ext4 = ["errors=continue", ...(isReadOnly && needsRecovery ? ["noload"] : [])];
  const options = [isReadOnly ? "ro" : "rw", "nosuid", "nodev", ...(type === "ext4" ? ext4 : [])];
  const failure = server.ended.then(() => {
    throw new LazyError("UNAVAILABLE", `${places.exportDirectory}: was unmounted by somebody else`);
  });
  const connection = new AbortController();
  failure.catch((error: unknown) => connection.abort(error));
  await Promise.race([mountFilesystem(places, { type, sectorBytes, options }, connection.signal), failure]);
}

async function takeDown(server: FuseServer, places: MountPlaces, mode: "plain" | "lazy"): Promise<void> {
  // What the kernel has not written yet comes now: the connection must not be cut before.
  await takeFromKernel(places, mode);
  const late = new AbortController();
  await Promise.race([server.released(), sleep(RELEASE_TIMEOUT_MS[mode], undefined, late).catch(() => {})]);
  late.abort();
  await server.close();
}

async function unlessBusy(id: string, work: Promise<void>): Promise<void> {
  await work.catch((error: unknown) => {
    throw /\bbusy\b/.test(messageOf(error)) ? inUse(id, messageOf(error)) : error;
  });
}

/** What a block device with this content is given. */
async function sectorBytesOf(content: ByteSource): Promise<number> {
  try {
    return (await probeFilesystem(content)).sectorBytes;
  } catch (error) {
    if (error instanceof LazyError && error.code === "UNSUPPORTED") return SECTOR_BYTES;
    throw error;
  }
}

/** What is mounted from a block device, or used by another driver, has claimed it. */
async function refuseClaimed(id: string, device: string): Promise<void> {
  try {
    await (await openExclusively(device)).close();
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "EBUSY")
      throw inUse(id, `${device} is mounted or used by another driver`);
    throw error;
  }
}

function inUse(id: string, how: string): LazyError {
  return new LazyError("UNAVAILABLE", `device ${id} is in use: ${how}; end what uses it, or force the removal`);
}

async function exposeByNbd(shown: Shown, expose: Extract<Exposure, { kind: "nbd" }>, { nbdSocket }: DevicePlaces): Promise<ExposedDevice> {
  const { id } = shown;
  const server = await serveNbd(shown, expose.address === undefined ? { kind: "unix", path: nbdSocket } : parseNbdAddress(expose.address));
  return {
    access: { kind: "nbd", uri: nbdUri(server.address, id) },
    ended: new Promise(() => {}),
    counts: () => nbdCounts(server),
    stop: async (mode) => {
      const { connections } = server.counts();
      if (mode === "plain" && connections > 0) throw inUse(id, `${connections} NBD clients are connected`);
      await server.close();
    },
  };
}

async function exposeByNbdDisk(shown: Shown, { nbdSocket, nbdDisk }: DevicePlaces): Promise<ExposedDevice> {
  const { id, content, notice } = shown;
  const detached = Promise.withResolvers<void>();
  let state: "attaching" | "attached" | "detaching" = "attaching";
  const server = await serveNbd(shown, { kind: "unix", path: nbdSocket }, () => {
    if (state !== "attached") return;
    notice("the disk was detached by somebody else");
    detached.resolve();
  });
  const attaching = sectorBytesOf(content).then(
    async (sectorBytes) => await attachNbdDisk({ socketPath: nbdSocket, name: id, sectorBytes }, nbdDisk),
  );
  const device = await attaching.catch(async (error: unknown) => {
    await server.close();
    throw error;
  });
  state = "attached";
  return {
    access: { kind: "nbd-disk", uri: nbdUri(server.address, id), device },
    // Detaching by hand is as good a way to end it as any.
    ended: detached.promise,
    counts: () => nbdCounts(server),
    stop: async (mode) => {
      state = "detaching";
      try {
        await unlessBusy(id, detachNbdDisk(nbdDisk, mode));
      } catch (error) {
        state = "attached";
        throw error;
      }
      await server.close();
    },
  };
}

async function serveNbd(shown: Shown, address: NbdAddress, onLeft?: () => void): Promise<NbdServer> {
  const { id, content, reader, extentsOf, onFailure } = shown;
  const { NbdServer } = await import("../export/nbd/nbd-server.ts");
  return await NbdServer.listen({
    served: { name: id, content, reader, extentsOf },
    address,
    onFailure: (error, request) => onFailure(error, request.kind),
    onMisbehaviour: (error) => onFailure(error, "a client"),
    ...(onLeft && { onLeft }),
  });
}

function nbdCounts(server: NbdServer): UseCounts {
  return { discards: 0, flushes: 0, ...server.counts() };
}
