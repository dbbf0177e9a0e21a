import { existsSync } from "node:fs";
import { LazyError } from "../errors.ts";
import { blockAttribute } from "./block-device.ts";
import { runTool } from "./tool.ts";

const MODULE = "/sys/module/nbd";
const NBD_CLIENT = { debianPackage: "nbd-client" } as const;

/** A disk of the kernel's NBD client. */
export interface NbdDisk {
  readonly device: string;
  /** Who attached it, as the kernel knows it: tells it from another disk that has the number later. */
  readonly client: string;
}

/** Attaches what is served on a unix socket to a free device, which the kernel chooses. It is read-only where the server says so. */
export async function attachNbd(socketPath: string, name: string, sectorBytes: number): Promise<NbdDisk> {
  if (!existsSync(MODULE)) {
    throw new LazyError("UNSUPPORTED", "the kernel's NBD client is not there: load its module (modprobe nbd), or use a kernel that has it");
  }
  const output = await runTool("nbd-client", ["-unix", socketPath, "-name", name, "-block-size", String(sectorBytes)], NBD_CLIENT);
  const device = /^Connected (\/dev\/nbd\d+)$/m.exec(output)?.[1];
  const client = device === undefined ? undefined : clientOf(device);
  if (device === undefined || client === undefined) {
    const advice = "nbd-client 3.17 or later is needed, built with netlink";
    throw new LazyError("UNAVAILABLE", `nbd-client: printed ${JSON.stringify(output)}, expected the device that it attached; ${advice}`);
  }
  if (!existsSync(device)) {
    await detachNbd(device);
    throw new LazyError("UNAVAILABLE", `${device} was attached, but is not in /dev: a container needs the machine's /dev`);
  }
  return { device, client };
}

/** Disconnects a device now, whoever uses it. The kernel gives it to others once its last user has closed it. */
export async function detachNbd(device: string): Promise<void> {
  await runTool("nbd-client", ["-d", device], NBD_CLIENT);
}

/** Whether the kernel still has it, be it only because somebody has not closed it. */
export function isAttached({ device, client }: NbdDisk): boolean {
  return clientOf(device) === client;
}

function clientOf(device: string): string | undefined {
  return blockAttribute(device, "pid");
}
