import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { openExclusively } from "../native/block-device.ts";
import { attachNbd, detachNbd, isAttached, type NbdDisk } from "../native/nbd.ts";

export interface NbdDiskSource {
  /** Where the server listens. */
  readonly socketPath: string;
  readonly name: string;
  readonly sectorBytes: number;
}

/** Attaches what an NBD server shows to a device of the kernel, and notes in a file which one that is, for whoever has to detach it. */
export async function attachNbdDisk({ socketPath, name, sectorBytes }: NbdDiskSource, recordPath: string): Promise<string> {
  const disk = await attachNbd(socketPath, name, sectorBytes);
  writeFileSync(recordPath, `${disk.device} ${disk.client}\n`, { mode: 0o600 });
  return disk.device;
}

/**
 * Detaches the disk that was noted, unless it is gone already. Idempotent.
 * - `plain` first has the kernel write what it has not yet written, which the server must still answer to; it fails with `EBUSY`, having
 *   changed nothing, while the disk is mounted or used by another driver.
 * - `lazy`: whoever still uses it gets errors.
 */
export async function detachNbdDisk(recordPath: string, mode: "plain" | "lazy"): Promise<void> {
  const disk = readRecord(recordPath);
  if (disk !== undefined && isAttached(disk)) {
    if (mode === "plain") await detachUnused(disk);
    else await detachNbd(disk.device);
  }
  rmSync(recordPath, { force: true });
}

async function detachUnused({ device }: NbdDisk): Promise<void> {
  // Held until it is detached: nobody can mount it meanwhile.
  await using handle = await openExclusively(device);
  await handle.sync();
  await detachNbd(device);
}

/** Undefined where nothing was attached. */
function readRecord(path: string): NbdDisk | undefined {
  try {
    const [, device, client] = /^(\/dev\/nbd\d+) (\d+)\n$/.exec(readFileSync(path, "utf8")) ?? [];
    return device === undefined || client === undefined ? undefined : { device, client };
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return undefined;
    throw error;
  }
}
