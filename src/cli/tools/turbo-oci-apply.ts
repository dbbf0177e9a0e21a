import { open } from "node:fs/promises";
import type { Command } from "commander";
import { decompress } from "../../compression/decompress.ts";
import { LayerIndexer } from "../../convert/layer-index.ts";
import { LazyError } from "../../errors.ts";
import type { Environment } from "../environment.ts";
import { dumpHeaders } from "./header-dump.ts";
import { openTarFile } from "./tar-input.ts";
import { addFlag, createTool, DEFAULT_SERVICE_CONFIG, existingFile, openFailure, runTool } from "./tool.ts";
import { applyTurbo, writeGzipIndex } from "./turbo-apply.ts";

interface TurboApplyOptions {
  readonly mkfs: boolean;
  readonly fstype: string;
  readonly service_config_path?: string;
  readonly gz_index_path: string;
  readonly import: boolean;
  readonly export: boolean;
  readonly verbose: boolean;
}

/** `turboOCI-apply`: a layer's metadata onto an image, its data staying in the tar. See docs/tools.md. */
export function createTurboApplyTool(environment: Environment): Command {
  const program = createTool(
    "turboOCI-apply",
    "Applies the metadata of a layer to an image; the files' data stays in the layer's tar.",
    environment,
  )
    .argument("<input_path>", "tar, tar.gz, ZFile of a tar, or with --import a dump of tar headers", existingFile)
    .argument("[image_config_path]", "image configuration, or with --export the dump to make", "");
  addFlag(program, "--mkfs", "make a filesystem first (ext4)");
  program.option("--fstype <type>", "erofs, or ext4 for any other name", "ext4");
  program.option(
    "--service_config_path <file>",
    `service configuration (default: ${DEFAULT_SERVICE_CONFIG}, if it is there)`,
    existingFile,
  );
  program.option("--gz_index_path <file>", "file to make if the input is gzipped: where it can be read in the middle", "gzip.meta");
  addFlag(program, "--import", "input_path is a dump of tar headers");
  addFlag(program, "--export", "only dump the tar's headers");
  program.action(async (input: string, target: string, options: TurboApplyOptions) => {
    if (target === "")
      throw new LazyError("USAGE", `image_config_path is missing: ${options.export ? "the dump to make" : "an image configuration"}`);
    if (options.export) await exportHeaders(input, target, options.gz_index_path, environment);
    else await importLayer(input, target, options, environment);
  });
  return program;
}

async function importLayer(input: string, configPath: string, options: TurboApplyOptions, environment: Environment): Promise<void> {
  const { service_config_path: servicePath, mkfs: makeFilesystem, fstype, gz_index_path: gzipIndexPath, verbose } = options;
  const filesystem = fstype === "erofs" ? "erofs" : "ext4";
  await applyTurbo(
    { input, configPath, servicePath, isDump: options.import, filesystem, makeFilesystem, gzipIndexPath, checksum: "", verbose },
    environment,
  );
  environment.stdout.write("turboOCI-apply done\n");
}

/** Dumps the headers of a tar, and makes the index if it is gzipped. */
async function exportHeaders(input: string, target: string, gzipIndexPath: string, environment: Environment): Promise<void> {
  const indexer = new LayerIndexer();
  const { stream } = await decompress(await openTarFile(input, environment.signal), input, indexer.observer);
  const indexed = async function* (): AsyncGenerator<Uint8Array, void> {
    for await (const chunk of stream) {
      indexer.content(chunk);
      yield chunk;
    }
  };
  const file = await open(target, "w", 0o644).catch((error: unknown) => {
    throw openFailure(target, error);
  });
  try {
    for await (const block of dumpHeaders(indexed(), input)) await file.appendFile(block);
  } finally {
    await file.close();
  }
  await writeGzipIndex(await indexer.finish(), gzipIndexPath, input);
}

if (import.meta.main) await runTool("turboOCI-apply", createTurboApplyTool);
