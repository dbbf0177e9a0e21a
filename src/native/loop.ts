import { readdirSync } from "node:fs";
import { LazyError } from "../errors.ts";
import { blockAttribute } from "./block-device.ts";
import { runTool } from "./tool.ts";

/** Attaches a file to a free loop device, with direct I/O, and answers the device's path. */
export async function attachLoop(file: string, sectorBytes: number, isReadOnly = true): Promise<string> {
  const access = isReadOnly ? ["--read-only"] : [];
  const output = await runTool("losetup", ["--find", "--show", ...access, "--direct-io=on", `--sector-size=${sectorBytes}`, file]);
  const device = output.trim();
  if (!/^\/dev\/loop\d+$/.test(device))
    throw new LazyError("UNAVAILABLE", `losetup ${file}: printed ${JSON.stringify(device)}, expected a device`);
  return device;
}

/** Detaches a loop device now, or once its last user closes it. */
export async function detachLoop(device: string): Promise<void> {
  await runTool("losetup", ["--detach", device]);
}

/** Loop devices that are attached to the file. */
export function loopsOf(file: string): string[] {
  return readdirSync("/sys/block")
    .filter((name) => /^loop\d+$/.test(name) && backingFileOf(`/dev/${name}`) === file)
    .map((name) => `/dev/${name}`);
}

/** The file that a loop device shows; undefined when it shows none or is no loop device. */
export function backingFileOf(device: string): string | undefined {
  return /^\/dev\/loop\d+$/.test(device) ? blockAttribute(device, "loop/backing_file") : undefined;
}
