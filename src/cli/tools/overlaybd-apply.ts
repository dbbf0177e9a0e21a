import type { Command } from "commander";
import { LazyError } from "../../errors.ts";
import { Ext4Writer } from "../../formats/ext4/ext4-writer.ts";
import { isDigest } from "../../oci/digest.ts";
import type { Environment } from "../environment.ts";
import { openImageTarget, openRawTarget, type ApplyTarget } from "./apply-target.ts";
import { copyDisk } from "./disk-image.ts";
import { applyEntries, extracting, newExt4, writeLayer } from "./filesystem-layer.ts";
import { openStream } from "./source-file.ts";
import { checkDigest, scanArchive } from "./tar-input.ts";
import { addFlag, createTool, DEFAULT_SERVICE_CONFIG, existingFile, runTool } from "./tool.ts";
import { applyTurbo } from "./turbo-apply.ts";

interface ApplyOptions {
  readonly raw: boolean;
  readonly mkfs: boolean;
  readonly from_qcow2: boolean;
  readonly extractRootfs: boolean;
  readonly service_config_path?: string;
  readonly gz_index_path: string;
  readonly checksum: string;
  readonly verbose: boolean;
}

/** `overlaybd-apply`: a layer's tar onto an image's writable layer. See docs/tools.md. */
export function createApplyTool(environment: Environment): Command {
  const program = createTool(
    "overlaybd-apply",
    "Applies the tar of a layer to the filesystem of an image with a writable layer.",
    environment,
  )
    .argument("<input_path>", "tar, tar.gz, tar.zst, FIFO, or with --from_qcow2 a disk", existingFile)
    .argument("<image_config_path>", "image configuration, or with --raw the file that is the device", existingFile);
  addFlag(program, "--raw", "image_config_path is a file whose bytes are the device's");
  addFlag(program, "--mkfs", "make an ext4 filesystem first");
  program.option(
    "--service_config_path <file>",
    `service configuration (default: ${DEFAULT_SERVICE_CONFIG}, if it is there)`,
    existingFile,
  );
  addFlag(program, "--from_qcow2", "input_path is a qcow2 disk, not a tar");
  addFlag(
    program,
    "--extract-rootfs",
    "of a disk, take the partitions with root filesystems only; --no-extract-rootfs takes all of it",
    true,
  );
  program.option(
    "--gz_index_path <file>",
    "write metadata only, with the data left in the tar; and the index of a gzipped one to this file",
    "",
  );
  program.option("--checksum <digest>", "sha256:… of the uncompressed tar", "");
  program.action(async (input: string, target: string, options: ApplyOptions) => {
    if (options.from_qcow2) await applyDisk(input, target, options, environment);
    else await applyArchive(input, target, options, environment);
  });
  return program;
}

async function applyDisk(input: string, target: string, options: ApplyOptions, environment: Environment): Promise<void> {
  const ignored = (["mkfs", "checksum", "gz_index_path"] as const).filter((name) => options[name] !== false && options[name] !== "");
  if (ignored.length > 0)
    environment.stderr.write(`WARNING --from_qcow2 copies a disk; ${ignored.map((name) => `--${name}`).join(", ")} will be ignored\n`);
  const { device, close } = await openTarget(target, options, environment);
  try {
    await copyDisk(input, device, !options.extractRootfs, environment);
  } finally {
    await close();
  }
  environment.stdout.write("qcow2 to overlaybd conversion done\n");
}

async function applyArchive(input: string, target: string, options: ApplyOptions, environment: Environment): Promise<void> {
  const { checksum, gz_index_path, raw } = options;
  if (checksum !== "" && !isDigest(checksum))
    throw new LazyError("USAGE", `--checksum ${checksum}: expected sha256: and 64 hexadecimal digits`);
  if (gz_index_path !== "" && raw) throw new LazyError("USAGE", "--raw and --gz_index_path contradict each other; leave one of them out");
  if (gz_index_path !== "") await applyMetadata(input, target, options, environment);
  else await applyData(input, target, options, environment);
  environment.stdout.write("overlaybd-apply done\n");
  if (checksum !== "") environment.stderr.write(`${checksum}\n`);
}

async function applyMetadata(input: string, configPath: string, options: ApplyOptions, environment: Environment): Promise<void> {
  const { service_config_path: servicePath, mkfs: makeFilesystem, gz_index_path: gzipIndexPath, checksum, verbose } = options;
  await applyTurbo(
    { input, configPath, servicePath, isDump: false, filesystem: "ext4", makeFilesystem, gzipIndexPath, checksum, verbose },
    environment,
  );
}

async function applyData(input: string, target: string, options: ApplyOptions, environment: Environment): Promise<void> {
  const opened = await openTarget(target, options, environment);
  try {
    await applyTar(input, opened, options, environment);
  } finally {
    await opened.close();
  }
}

async function openTarget(path: string, options: ApplyOptions, environment: Environment): Promise<ApplyTarget> {
  if (options.raw) return await openRawTarget(path);
  return await openImageTarget({ configPath: path, servicePath: options.service_config_path }, environment);
}

async function applyTar(input: string, { device, clear }: ApplyTarget, options: ApplyOptions, environment: Environment): Promise<void> {
  const { checksum, mkfs } = options;
  const stored = await openStream(input, environment.signal);
  await using archive = await extracting(async () => await scanArchive(stored, input, { payload: true, indexed: false }, environment));
  const { entries, payloadBlocks, diffId } = archive.scan;
  if (options.verbose) environment.stderr.write(`${entries.count} entries, ${payloadBlocks} blocks of data, ${diffId}\n`);
  checkDigest(diffId, checksum);
  if (mkfs) await clear();
  const filesystem = mkfs ? newExt4(device.size) : await Ext4Writer.open(device);
  const blocks = await extracting(async () => applyEntries(filesystem, entries, payloadBlocks));
  await writeLayer(filesystem, blocks, archive.payload, device, environment.signal);
}

if (import.meta.main) await runTool("overlaybd-apply", createApplyTool);
