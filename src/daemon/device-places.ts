import { renameSync, rmdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { dismantle, type MountPlaces } from "../export/filesystem.ts";
import { detachNbdDisk } from "../export/nbd-disk.ts";
import type { DeviceState, Exposure } from "./exposure-schema.ts";
import { asideOf } from "./log/bounded-log.ts";
import type { ProcessIdentity } from "./process-identity.ts";

/** The command that a device process runs. */
export const SERVE_DEVICE_COMMAND = "serve-device";

/** The places of one device below the daemon's directory. What is in there says all that is needed to find it again. */
export interface DevicePlaces {
  readonly directory: string;
  /** Where FUSE is mounted. */
  readonly exportDirectory: string;
  /** Where the file system is mounted until an overlay has taken it. */
  readonly lowerDirectory: string;
  readonly controlSocket: string;
  readonly nbdSocket: string;
  /** Which disk of the kernel has been attached to that. */
  readonly nbdDisk: string;
  readonly configPath: string;
  readonly log: string;
  /** What the device is. */
  readonly specPath: string;
  /** Which process serves it, or will. */
  readonly processPath: string;
  /** What that process has made known of itself. */
  readonly statePath: string;
}

export function devicePlaces(directory: string): DevicePlaces {
  return {
    directory,
    exportDirectory: join(directory, "export"),
    lowerDirectory: join(directory, "lower"),
    controlSocket: join(directory, "control"),
    nbdSocket: join(directory, "nbd"),
    nbdDisk: join(directory, "nbd-disk"),
    configPath: join(directory, "config.json"),
    log: join(directory, "device.log"),
    specPath: join(directory, "device.json"),
    processPath: join(directory, "process.json"),
    statePath: join(directory, "state.json"),
  };
}

/** Where the mounts of a device are, of whatever kind it is. */
export function mountPlaces({ exportDirectory, lowerDirectory }: DevicePlaces, expose: Exposure): MountPlaces {
  if (expose.kind !== "mount") return { directory: "", exportDirectory };
  const { directory, overlay } = expose;
  return { directory, exportDirectory, overlay: overlay === undefined ? undefined : { lowerDirectory, scratchDirectory: overlay } };
}

export function writeState(directory: string, state: DeviceState): void {
  writeWhole(devicePlaces(directory).statePath, state);
}

export function writeProcess(directory: string, identity: ProcessIdentity): void {
  writeWhole(devicePlaces(directory).processPath, identity);
}

/** Seen whole or not at all. */
function writeWhole(path: string, value: object): void {
  writeFileSync(`${path}.new`, JSON.stringify(value), { mode: 0o600 });
  renameSync(`${path}.new`, path);
}

/**
 * Undoes what the end of a device process left of mounts, disks and sockets; the device's directory stays for another process.
 * Idempotent. `lazy`: whoever still uses the device gets errors.
 */
export async function clearDevice(directory: string, expose: Exposure, mode: "plain" | "lazy"): Promise<void> {
  const places = devicePlaces(directory);
  const { controlSocket, nbdSocket, nbdDisk, statePath } = places;
  await dismantle(mountPlaces(places, expose), mode);
  await detachNbdDisk(nbdDisk, mode);
  for (const path of [controlSocket, nbdSocket, statePath]) rmSync(path, { force: true });
}

/** Removes a device's directory. Nothing may be mounted in it. */
export function removeDeviceDirectory(directory: string): void {
  // One after the other and by name: whatever else is in there, a file system that is still mounted for example, is not touched.
  const { controlSocket, nbdSocket, nbdDisk, configPath, log, specPath, processPath, statePath, ...places } = devicePlaces(directory);
  const said = [processPath, statePath].flatMap((path) => [path, `${path}.new`]);
  const files = [controlSocket, nbdSocket, nbdDisk, configPath, log, asideOf(log), ...said];
  for (const path of files) rmSync(path, { force: true });
  for (const mountPoint of [places.exportDirectory, places.lowerDirectory]) removeEmpty(mountPoint);
  rmSync(specPath, { force: true });
  removeEmpty(directory);
}

function removeEmpty(directory: string): void {
  try {
    rmdirSync(directory);
  } catch (error) {
    if (!(error instanceof Error && "code" in error && error.code === "ENOENT")) throw error;
  }
}
