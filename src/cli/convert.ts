import { mkdtemp, rm } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { InvalidArgumentError, Option, type Command } from "commander";
import { convertImage } from "../convert/convert-image.ts";
import { LazyError } from "../errors.ts";
import { parsePlatform, type Platform } from "../oci/platform.ts";
import { formatReference } from "../oci/reference.ts";
import { CompressionPool } from "../workers/compression-pool.ts";
import type { Environment } from "./environment.ts";
import { Progress } from "./progress.ts";
import { addStoreOptions, openReference, readStoreOptions, type OpenedReference } from "./store-options.ts";

/** 64 GiB is what images are made with by default; the filesystem takes space only for what is in it. */
export const DEFAULT_VSIZE_GB = 64;
const MAX_VSIZE_GB = 16383;
const GIB = 2 ** 30;
/** Layers read at a time: decompression uses one core each. */
export const MIN_SCANS = 2;

interface ConvertCommandOptions {
  readonly vsize: number;
  readonly platform: readonly Platform[];
  readonly oci?: boolean;
}

export function addConvertCommand(program: Command, environment: Environment): void {
  const command = program
    .command("convert")
    .summary("convert an image to overlaybd")
    .description("Converts an image to overlaybd, from one registry or layout directory to another, and prints the new image's digest.")
    .argument("<source>", "host[:port]/repository:tag, …@sha256:…, or oci:DIRECTORY[:tag]")
    .argument("<destination>", "the same; it must have a tag")
    .addOption(new Option("--fs <type>", "filesystem of the converted image").choices(["ext4"]).default("ext4"))
    .option("--vsize <GB>", "size of the block device that the image shows", parseVsize, DEFAULT_VSIZE_GB)
    .addOption(platformOption(environment))
    .option("--oci", "OCI media types instead of docker's");
  addStoreOptions(command);
  command.action(async (source: string, destination: string, options: ConvertCommandOptions) => {
    const digest = await convertCommand(source, destination, options, environment);
    environment.stdout.write(`${digest}\n`);
  });
}

/** `--platform`, repeatable. */
export function platformOption(environment: Environment): Option {
  const collect = (text: string, before: Platform[]): Platform[] => [...before, parsePlatform(text, environment.host)];
  return new Option("--platform <os/arch[/variant]>", "of a multi-platform image, only this one (repeatable; default: all)")
    .argParser(collect)
    .default([], "all");
}

export function parseVsize(text: string): number {
  if (!/^\d+$/.test(text) || Number(text) < 1 || Number(text) > MAX_VSIZE_GB) {
    throw new InvalidArgumentError(`expected a whole number of GB from 1 to ${MAX_VSIZE_GB}`);
  }
  return Number(text);
}

async function convertCommand(from: string, to: string, options: ConvertCommandOptions, environment: Environment): Promise<string> {
  const stores = await readStoreOptions(options, environment);
  await using cleanup = new AsyncDisposableStack();
  const progress = new Progress(environment.stderr, "converting");
  cleanup.defer(() => progress.stop());
  const notify = (message: string): void => progress.note(message);
  const source = await openReference(from, stores, environment, { notify });
  cleanup.defer(async () => await source.store.close());
  const destination = await openReference(to, stores, environment, { create: true, notify });
  cleanup.defer(async () => await destination.store.close());
  const tag = destinationTag(source, destination, to);
  const pool = new CompressionPool({ workers: availableParallelism() });
  cleanup.defer(async () => await pool.close());
  const directory = await mkdtemp(join(environment.temporaryDirectory, "lazylayer-"));
  cleanup.defer(async () => await rm(directory, { recursive: true, force: true }));
  const result = await convertImage(source.store, source.target, destination.store, tag, {
    virtualSize: options.vsize * GIB,
    family: options.oci === true ? "oci" : "docker",
    platforms: options.platform,
    directory,
    keep: false,
    dump: false,
    dryRun: false,
    compress: pool.compress,
    concurrency: Math.max(MIN_SCANS, availableParallelism()),
    observer: {
      imageStarted: ({ bytes }) => progress.expect(bytes),
      storedBytes: (bytes) => progress.advance(bytes),
      warning: (message) => progress.note(`warning: ${message}`),
    },
    signal: environment.signal,
  });
  progress.stop();
  const images = result.images === 1 ? "" : ` (${result.images} images)`;
  environment.stderr.write(`converted ${from} to ${to}${images} in ${progress.seconds.toFixed(1)} s\n`);
  return result.digest;
}

function destinationTag(source: OpenedReference, destination: OpenedReference, text: string): string {
  const { tag, digest } = destination.target;
  if (tag === undefined || digest !== undefined) {
    throw new LazyError("USAGE", `destination ${text}: needs a tag, and no digest: the digest is what comes out`);
  }
  if (formatReference(source.reference) === formatReference(destination.reference)) {
    throw new LazyError("USAGE", `${text}: source and destination are the same; name another tag, or the source image is lost`);
  }
  return tag;
}
