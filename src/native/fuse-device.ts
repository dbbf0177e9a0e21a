import { closeSync, constants, openSync } from "node:fs";
import { LazyError, messageOf } from "../errors.ts";
import { runTool } from "./tool.ts";

const DEVICE = "/dev/fuse";

/** A new connection to the kernel's FUSE, not mounted yet. */
export function openFuseDevice(): number {
  try {
    return openSync(DEVICE, constants.O_RDWR);
  } catch (cause) {
    const code = cause instanceof Error && "code" in cause ? cause.code : undefined;
    if (code === "ENOENT" || code === "ENXIO" || code === "ENODEV") {
      throw new LazyError("UNSUPPORTED", `${DEVICE} is missing: load the kernel's fuse module (modprobe fuse)`, { cause });
    }
    throw new LazyError("DENIED", `${DEVICE}: ${messageOf(cause)}`, { cause });
  }
}

/** Mounts the connection on a directory. The kernel's first request waits on the descriptor afterwards. */
export async function mountFuse(descriptor: number, directory: string, maxReadBytes: number, isReadOnly: boolean): Promise<void> {
  const options = [
    "fd=3",
    "rootmode=40000",
    "user_id=0",
    "group_id=0",
    `max_read=${maxReadBytes}`,
    isReadOnly ? "ro" : "rw",
    "nosuid",
    "nodev",
    "noexec",
  ];
  await runTool("mount", ["-i", "-t", "fuse.lazylayer", "-o", options.join(","), "lazylayer", directory], {
    inheritedDescriptor: descriptor,
  });
}

export function closeFuseDevice(descriptor: number): void {
  closeSync(descriptor);
}
