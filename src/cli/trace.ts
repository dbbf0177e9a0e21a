import { InvalidArgumentError, Option, type Command } from "commander";
import { writeTrace } from "../device/prefetch-file.ts";
import { optimizeTrace } from "../formats/trace/optimize-trace.ts";
import type { Environment } from "./environment.ts";
import type { MountEnvironment } from "./mount-request.ts";
import { addCacheOptions } from "./mount.ts";
import { addReadOptions } from "./store-options.ts";
import { checkWritable, readTrace } from "./trace-file.ts";
import { recordTrace, type RecordOptions } from "./trace-record.ts";
import { showTrace, type ShowOptions } from "./trace-show.ts";

const DEFAULT_GAP_KIB = 32;

/** Adds `trace record`, `trace show` and `trace optimize`. `setStatus` gets the status of the command that `record` ran. */
export function addTraceCommand(
  program: Command,
  environment: Environment,
  mounts: MountEnvironment,
  setStatus: (status: number) => void,
): void {
  const trace = program
    .command("trace")
    .summary("record what an image's programs read, and look at it")
    .description("Records what programs read of an image, so that lazylayer mount --trace can fetch it before they ask.")
    .addHelpText(
      "after",
      `
Examples:
  lazylayer trace record --chroot -o app.trace --times app.times registry.example/app:1-obd -- /app --version
  lazylayer trace optimize app.trace -o app-short.trace
  lazylayer trace show --html app.html --times app.times app.trace registry.example/app:1-obd
  lazylayer mount --trace app-short.trace registry.example/app:1-obd /mnt/app`,
    );
  const record = trace
    .command("record")
    .summary("run a command and record what it reads of an image")
    .description(
      "Mounts an image in a directory of its own, runs COMMAND, unmounts it, and writes what was read of it, the first reads first (needs\n" +
        "root). COMMAND is one of this machine and finds the image in its working directory; with --chroot it is one of the image.\n" +
        "The exit status is that of COMMAND.",
    )
    .argument("<image>", "image reference, or oci:DIRECTORY[:TAG]")
    .argument("<command...>", "what to run, after --")
    .requiredOption("-o, --output <file>", "the trace to write")
    .option("--times <file>", "write when each record was read, for lazylayer trace show --times")
    .option("--chroot", "run COMMAND inside of the image, as root and with no other protection: for images that you trust")
    .addOption(
      new Option("--time <seconds>", "end COMMAND after so long, as a service that does not end by itself").argParser(parseSeconds),
    );
  addCacheOptions(record, mounts);
  mounts.addStoreOptions?.(record);
  record.action(async (image: string, command: string[], options: RecordOptions) => {
    setStatus(await recordTrace(image, command, options, environment, mounts));
  });

  const show = trace
    .command("show")
    .summary("print what a trace or a list names")
    .description(
      "Prints a line for each record: number, layer (the lowest is 0, with .data for the data of a turboOCI layer), offset in the layer, and\n" +
        "bytes; with IMAGE, a line for each part of it, and which of the image's files that is. Of a list of paths, prints the paths.",
    )
    .argument("<file>", "a trace, or a list of paths")
    .argument("[image]", "the image that it was recorded of: reference, or oci:DIRECTORY[:tag]")
    .option("--html <file>", "write a page that shows which parts of IMAGE were read when, and of which files")
    .option("--times <file>", "with --html: the times that lazylayer trace record wrote; without, reads are shown in their order");
  show.option("--platform <os/arch[/variant]>", "of a multi-platform image (default: this machine's)");
  addReadOptions(show);
  show.action(async (file: string, image: string | undefined, options: ShowOptions) => await showTrace(file, image, options, environment));

  trace
    .command("optimize")
    .summary("make a trace shorter")
    .description("Writes a trace that names every byte once, in the order of first access, in fewer and larger reads.")
    .argument("<file>", "a trace")
    .requiredOption("-o, --output <file>", "the trace to write; may be the same file")
    .addOption(
      new Option("--gap <KiB>", "join reads that are at most so far apart")
        .argParser(parseGap)
        .default(DEFAULT_GAP_KIB * 1024, String(DEFAULT_GAP_KIB)),
    )
    .action(async (file: string, options: { readonly output: string; readonly gap: number }) => {
      await optimizeFile(file, options.output, options.gap, environment);
    });
}

async function optimizeFile(file: string, output: string, gapBytes: number, { stderr }: Environment): Promise<void> {
  const target = await checkWritable(output);
  const records = await readTrace(file);
  const optimized = optimizeTrace(records, gapBytes);
  await writeTrace(target, optimized);
  stderr.write(`${records.length} records became ${optimized.length}\n`);
}

function parseSeconds(text: string): number {
  const seconds = Number(text);
  if (!(seconds > 0 && seconds <= 86_400)) throw new InvalidArgumentError("expected seconds, up to 86400");
  return seconds;
}

function parseGap(text: string): number {
  const gap = Number(text);
  if (!(Number.isInteger(gap) && gap >= 0 && gap <= 1024)) throw new InvalidArgumentError("expected a whole number of KiB from 0 to 1024");
  return gap * 1024;
}
