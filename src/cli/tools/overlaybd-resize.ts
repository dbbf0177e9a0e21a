import { CommanderError, type Command } from "commander";
import { LazyError, messageOf } from "../../errors.ts";
import { exitStatus } from "../exit-status.ts";
import type { Environment } from "../environment.ts";
import { resizeFilesystem } from "./resize-filesystem.ts";
import { createTool, DEFAULT_SERVICE_CONFIG, existingFile, runTool, toolStatus } from "./tool.ts";

interface ResizeOptions {
  readonly config: string;
  readonly size: string;
  readonly service_config_path?: string;
  readonly verbose: boolean;
}

const GIB = 2 ** 30;
const MAX_GIB = 2 ** 23 - 1;

/** `overlaybd-resize`: another size for an image's device and its filesystem. See docs/tools.md. */
export function createResizeTool(environment: Environment): Command {
  const program = createTool(
    "overlaybd-resize",
    "Gives the device of an image with a writable layer, and the ext4 on it, another size.",
    environment,
  )
    .requiredOption("--config <file>", "image configuration", existingFile)
    .requiredOption("--size <GB>", "size in GB of 2^30 bytes");
  program.option("--service_config_path <file>", `service configuration (default: ${DEFAULT_SERVICE_CONFIG}, if it is there)`);
  program.action(async ({ config, size, service_config_path: servicePath, verbose }: ResizeOptions) => {
    if (!/^[0-9]+$/.test(size) || Number(size) < 1 || Number(size) > MAX_GIB)
      throw new LazyError("USAGE", `invalid size: ${size}, expected a whole number from 1 to ${MAX_GIB}`);
    const start = performance.now();
    try {
      await resizeFilesystem({ configPath: config, servicePath }, Number(size) * GIB, { verbose, environment });
    } catch (error) {
      if (error instanceof LazyError) throw new LazyError(error.code, `resize failed: ${messageOf(error)}`, { cause: error });
      throw error;
    }
    const seconds = (performance.now() - start) / 1000;
    environment.stdout.write(`Success: filesystem resized to ${Number(size)} GB (${seconds.toFixed(3)} seconds)\n`);
  });
  return program;
}

/** This one has always ended with 1 where it failed. */
export function resizeStatus(error: unknown): number {
  if (error instanceof CommanderError) return toolStatus(error);
  const status = exitStatus(error);
  return status > 128 ? status : 1;
}

if (import.meta.main) await runTool("overlaybd-resize", createResizeTool, resizeStatus);
