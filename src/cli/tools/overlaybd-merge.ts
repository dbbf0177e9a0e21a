import type { Command } from "commander";
import { LazyError } from "../../errors.ts";
import { mergeLayers } from "../../formats/lsmt/commit-layer.ts";
import type { Environment } from "../environment.ts";
import { openImageLayers } from "./image-layers.ts";
import { writeLayerFile } from "./layer-output.ts";
import type { OutputFileOptions } from "./output-file.ts";
import { addFlag, createTool, DEFAULT_SERVICE_CONFIG, existingFile, runTool } from "./tool.ts";
import { addUploadOptions, prepareUpload, uploadFile, type UploadOptions } from "./upload.ts";

interface MergeOptions extends UploadOptions {
  readonly compress: boolean;
  readonly t: boolean;
  readonly service_config_path?: string;
  readonly verbose: boolean;
}

const COMPRESSION = { algorithm: "lz4", blockSize: 4096, threads: 1, overwriteHeader: false } as const;

/** `overlaybd-merge`: all layers of an image as one. See docs/tools.md. */
export function createMergeTool(environment: Environment): Command {
  const program = createTool("overlaybd-merge", "Makes one layer of all layers of an image.", environment)
    .argument("<image_config_path>", "image configuration", existingFile)
    .argument("[output]", "file to make; one that is there is replaced once the layer is whole", "");
  addFlag(program, "--compress", "compress; --compress=false does not", true);
  addFlag(program, "-t", "accepted, without effect");
  program.option(
    "--service_config_path <file>",
    `service configuration (default: ${DEFAULT_SERVICE_CONFIG}, if it is there)`,
    existingFile,
  );
  addUploadOptions(program);
  program.action(async (configPath: string, output: string, options: MergeOptions) => {
    if (output === "") throw new LazyError("USAGE", "failed to create output file: output is missing");
    await merge(configPath, output, options, environment);
  });
  return program;
}

async function merge(configPath: string, output: string, options: MergeOptions, environment: Environment): Promise<void> {
  const upload = await prepareUpload(options, environment);
  const { layers, hasWritable, close } = await openImageLayers({ configPath, servicePath: options.service_config_path }, environment);
  try {
    const file: OutputFileOptions = { mode: 0o644, existing: "replaced", inTar: false };
    const digest = await writeLayerFile(output, file, options.compress ? COMPRESSION : undefined, environment.signal, async (sink) => {
      const { segments, bytes } = await mergeLayers(layers, sink, { hasWritable });
      if (options.verbose) environment.stderr.write(`${layers.length} layers, ${segments} segments, ${bytes} bytes\n`);
    });
    if (upload !== undefined) await uploadFile(output, digest, "the same command again", upload);
    environment.stderr.write(upload === undefined ? "\n" : `${digest}\n`);
  } finally {
    await close();
  }
}

if (import.meta.main) await runTool("overlaybd-merge", createMergeTool);
