import { randomUUID } from "node:crypto";
import { open, rm } from "node:fs/promises";
import { InvalidArgumentError, type Command } from "commander";
import { DiskFile } from "../../bytes/file.ts";
import { LazyError, messageOf } from "../../errors.ts";
import { AppendLayer } from "../../formats/lsmt/append-layer.ts";
import { SparseLayer } from "../../formats/lsmt/sparse-layer.ts";
import { WarpUpper } from "../../formats/lsmt/warp-upper.ts";
import type { WritableLayer } from "../../formats/lsmt/writable-layer.ts";
import type { Environment } from "../environment.ts";
import { makeExt4 } from "./filesystem-layer.ts";
import { knownUuid } from "./layer-uuid.ts";
import { RawDevice } from "./raw-device.ts";
import { addFlag, createTool, openFailure, runTool } from "./tool.ts";

const GIB = 2 ** 30;

interface CreateOptions {
  readonly u: string;
  readonly s: boolean;
  readonly turboOCI: boolean;
  readonly fastoci: boolean;
  readonly raw: boolean;
  readonly mkfs: boolean;
  readonly verbose: boolean;
}

/** `overlaybd-create`: the files of a new writable layer. See docs/tools.md. */
export function createCreateTool(environment: Environment): Command {
  const program = createTool("overlaybd-create", "Makes the files of a new writable layer.", environment)
    .argument("<data_file>", "file to make, for data; for the filesystem's metadata with --turboOCI")
    .argument("<index_file>", "file to make, for the index; stays empty with -s and --raw")
    .argument("<vsize>", "size of the device in GB of 2^30 bytes; 0: as the layers below", gigabytes);
  program.option("-u <uuid>", "of the layer below", "");
  addFlag(program, "-s", "one sparse file with everything in its place, instead of one that is appended to");
  addFlag(program, "--turboOCI", "a layer whose data stays in a tar elsewhere");
  addFlag(program, "--fastoci", "the old name of --turboOCI");
  addFlag(program, "--raw", "data_file has the device's bytes, and nothing else");
  addFlag(program, "--mkfs", "make an ext4 filesystem");
  program.action(async (data: string, index: string, virtualSize: number, options: CreateOptions) => {
    const made: string[] = [];
    try {
      await create({ data, index, virtualSize, made }, options, environment);
    } catch (error) {
      for (const path of made) await rm(path, { force: true });
      throw error;
    }
    if (options.verbose) environment.stderr.write(`${data} and ${index} for a device of ${virtualSize} bytes\n`);
    environment.stdout.write("overlaybd-create has created files SUCCESSFULLY\n");
  });
  return program;
}

function gigabytes(text: string): number {
  const bytes = Number(text) * GIB;
  if (/^[0-9]+$/.test(text) && Number.isSafeInteger(bytes)) return bytes;
  throw new InvalidArgumentError(`${text}: expected a whole number of GB from 0 to ${Math.floor(Number.MAX_SAFE_INTEGER / GIB)}.`);
}

interface NewFiles {
  readonly data: string;
  readonly index: string;
  /** Bytes. */
  readonly virtualSize: number;
  /** Files that were made, which go if anything fails. */
  readonly made: string[];
}

async function create(files: NewFiles, options: CreateOptions, environment: Environment): Promise<void> {
  if (options.raw) return await createRaw(files, options);
  const layer = await createLayer(files, options, environment);
  try {
    if (options.mkfs) await makeFilesystem(async () => await makeExt4({ size: files.virtualSize, write: layer.write.bind(layer) }));
  } finally {
    await layer.close();
  }
}

async function createLayer(files: NewFiles, options: CreateOptions, { stderr }: Environment): Promise<WritableLayer> {
  const identity = { virtualSize: files.virtualSize, uuid: randomUUID() };
  const data = await newFile(files.data, files.made);
  const index = await newFile(files.index, files.made);
  if (options.turboOCI || options.fastoci) return await WarpUpper.create(data, index, identity);
  const parentUuid = knownUuid(options.u, "-u", stderr);
  if (!options.s) return await AppendLayer.create(data, index, { ...identity, parentUuid });
  await index.close();
  return await SparseLayer.create(data, { ...identity, parentUuid });
}

async function createRaw({ data, index, virtualSize, made }: NewFiles, { mkfs }: CreateOptions): Promise<void> {
  for (const path of [data, index]) await (await newFile(path, made)).close();
  const file = await open(data, "r+");
  await file.truncate(virtualSize);
  await file.close();
  if (!mkfs) return;
  const device = await RawDevice.open(data);
  try {
    await makeFilesystem(async () => await makeExt4(device));
    await device.flush();
  } finally {
    await device.close();
  }
}

async function newFile(path: string, made: string[]): Promise<DiskFile> {
  try {
    const file = await DiskFile.create(path);
    made.push(path);
    return file;
  } catch (error) {
    throw openFailure(path, error instanceof LazyError ? error.cause : error);
  }
}

async function makeFilesystem(make: () => Promise<void>): Promise<void> {
  try {
    await make();
  } catch (error) {
    const code = error instanceof LazyError ? error.code : "UNAVAILABLE";
    throw new LazyError(code, `mkfs failed, ${messageOf(error)}`, { cause: error });
  }
}

if (import.meta.main) await runTool("overlaybd-create", createCreateTool);
