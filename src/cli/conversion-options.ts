import { InvalidArgumentError, Option, type Command } from "commander";
import { LazyError } from "../errors.ts";
import { parsePlatform, type Platform } from "../oci/platform.ts";
import { parseUserPassword } from "../registry/credentials.ts";
import { checkDatabaseOptions } from "./database-options.ts";
import type { Environment } from "./environment.ts";
import { PROGRESS_MODES, type ProgressMode } from "./progress/progress-display.ts";

/** 64 GiB is what images are made with by default; the filesystem takes space only for what is in it. */
const DEFAULT_VSIZE_GB = 64;
const MAX_VSIZE_GB = 16383;
const DEFAULT_IMAGES_AT_ONCE = 4;
const MAX_RETRIES = 100;
const MAX_TIMEOUT_SECONDS = 24 * 60 * 60;

export const OUTPUT_FORMATS = ["text", "json"] as const;

/** What both commands that convert can be told, as commander parses it. */
export interface ConversionOptions {
  readonly vsize: number;
  readonly platform: readonly Platform[];
  readonly oci?: true;
  readonly recompress?: "gzip";
  readonly referrer?: true;
  readonly dropAttestations?: true;
  readonly concurrencyLimit: number;
  readonly force?: true;
  readonly dryRun?: true;
  readonly output: (typeof OUTPUT_FORMATS)[number];
  readonly progress?: ProgressMode;
  readonly quiet?: true;
  readonly retry?: number;
  readonly timeout?: number;
  readonly dbType?: string;
  readonly dbStr?: string;
  readonly username?: string;
  readonly passwordStdin?: true;
}

/** What the standalone convertor has as well. */
export function addImageOptions(command: Command): void {
  command
    .option("--vsize <GB>", "size of the block device that the image shows", parseVsize, DEFAULT_VSIZE_GB)
    .option("--oci", "OCI media types instead of docker's")
    .option("--referrer", "make the result a referrer of its source: subject and artifact type (implies --oci)")
    .option("--concurrency-limit <n>", "images of an index that are converted at once; 0: no limit", parseCount, DEFAULT_IMAGES_AT_ONCE);
}

/** What only we have. */
export function addRunOptions(command: Command, environment: Environment): void {
  command
    .addOption(platformOption(environment))
    .addOption(
      new Option(
        "--recompress <compression>",
        "turboOCI: compress layers anew that cannot be read in the middle (most zstd layers), and store them beside the result",
      ).choices(["gzip"]),
    )
    .option("--drop-attestations", "leave out attestations (provenance, SBOM) of an index instead of keeping them")
    .option("--force", "let the result take over the tag of its source")
    .option("--dry-run", "convert nothing, print what would be fetched, converted, reused and pushed")
    .addOption(new Option("--output <format>", "what is printed to standard output").choices(OUTPUT_FORMATS).default("text"))
    .addOption(
      new Option(
        "--progress <mode>",
        "on standard error: lines that change on a terminal, a line now and then, JSON lines, or only warnings (default: auto)",
      ).choices(PROGRESS_MODES),
    )
    .option("--quiet", "nothing on standard error but errors")
    .option("--retry <n>", "how often a request that failed is tried again (default: 4)", parseRetries)
    .option(
      "--timeout <seconds>",
      "how long to wait for a registry (default: 15 to connect, 60 for an answer, 600 at the end of an upload)",
      parseTimeout,
    );
}

/** `--platform`, repeatable. */
export function platformOption(environment: Environment): Option {
  const collect = (text: string, before: Platform[]): Platform[] => [...before, parsePlatform(text, environment.host)];
  return new Option("--platform <os/arch[/variant]>", "of a multi-platform image, only this one (repeatable)")
    .argParser(collect)
    .default([], "all");
}

function parseVsize(text: string): number {
  return parseWhole(text, "a whole number of GB", 1, MAX_VSIZE_GB);
}

function parseCount(text: string): number {
  return parseWhole(text, "a whole number", 0, Number.MAX_SAFE_INTEGER, "expected a whole number, or 0 for no limit");
}

function parseRetries(text: string): number {
  return parseWhole(text, "a whole number", 0, MAX_RETRIES);
}

function parseTimeout(text: string): number {
  return parseWhole(text, "a whole number of seconds", 1, MAX_TIMEOUT_SECONDS);
}

function parseWhole(text: string, what: string, least: number, most: number, hint = `expected ${what} from ${least} to ${most}`): number {
  if (!/^\d{1,16}$/.test(text) || Number(text) < least || Number(text) > most) throw new InvalidArgumentError(hint);
  return Number(text);
}

/** Options that make no sense together: what is wrong, and what to do. Nothing has been opened yet. */
export function checkConversionOptions(options: ConversionOptions, command: Command): void {
  const { quiet, progress, username, passwordStdin } = options;
  if (quiet && progress !== undefined)
    throw new LazyError("USAGE", `--quiet and --progress ${progress} contradict each other; give one of them`);
  if (username !== undefined && passwordStdin !== true) parseUserPassword(username);
  checkDatabaseOptions(command);
}
