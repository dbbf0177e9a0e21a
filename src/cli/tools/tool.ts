import { statSync } from "node:fs";
import { Command, CommanderError, InvalidArgumentError, Option } from "commander";
import { LazyError } from "../../errors.ts";
import { readEnvironment, type Environment } from "../environment.ts";
import { exitStatus, interruptSignal, runToExit } from "../exit-status.ts";

/** Exit statuses that scripts know of these tools. See docs/tools.md. */
const STATUS = { validation: 105, missing: 106, unexpected: 109, noValue: 114, failure: 255 } as const;

const PARSER_STATUS: Readonly<Record<string, number>> = {
  "commander.missingArgument": STATUS.missing,
  "commander.missingMandatoryOptionValue": STATUS.missing,
  "commander.unknownOption": STATUS.unexpected,
  "commander.excessArguments": STATUS.unexpected,
  "commander.optionMissingArgument": STATUS.noValue,
};

const TRUE = new Set(["1", "true", "on", "yes", "enable"]);
const FALSE = new Set(["0", "false", "off", "no", "disable"]);

export const DEFAULT_SERVICE_CONFIG = "/etc/overlaybd/overlaybd.json";

/** A tool as a program that has not run yet. */
export type CreateTool = (environment: Environment) => Command;

/** A program with what all tools have. */
export function createTool(name: string, description: string, environment: Environment): Command {
  const program = new Command(name)
    .description(description)
    .exitOverride()
    .configureOutput({ writeOut: (text) => environment.stdout.write(text), writeErr: (text) => environment.stderr.write(text) })
    .allowExcessArguments(false)
    .helpOption("-h, --help", "say this");
  addFlag(program, "--verbose", "say on standard error what is done");
  return program;
}

/** A flag that may be said to be true or false. */
export function addFlag(program: Command, flags: string, description: string, preset = false): void {
  program.option(flags, description, preset);
  const long = new Option(flags).long;
  if (long !== undefined) program.addOption(new Option(`--no-${long.slice(2)}`).hideHelp());
}

/** Runs the program: the arguments as these tools take them. */
export async function parseTool(program: Command, args: readonly string[]): Promise<void> {
  await program.parseAsync(plainArguments(args, program.options), { from: "user" });
}

/** Rewrites `--flag=true` and `--flag=false`. */
function plainArguments(args: readonly string[], options: readonly Option[]): string[] {
  const end = args.indexOf("--");
  return args.map((arg, at) => {
    const [, name, value] = /^(--[^=]+)=(.*)$/s.exec(arg) ?? [];
    const isFlag = options.some(({ long, required }) => long === name && !required);
    if (name === undefined || !isFlag || (end >= 0 && at > end)) return arg;
    const word = value.toLowerCase();
    if (TRUE.has(word)) return name;
    if (FALSE.has(word)) return `--no-${name.slice(2)}`;
    throw new InvalidArgumentError(`${name}=${value}: expected true or false`);
  });
}

/** The status for whatever a tool threw. Signals keep theirs. */
export function toolStatus(error: unknown): number {
  if (error instanceof CommanderError) {
    if (error.exitCode === 0) return 0;
    return PARSER_STATUS[error.code] ?? STATUS.validation;
  }
  const status = exitStatus(error);
  return status > 128 ? status : STATUS.failure;
}

/** Runs a tool as this process, to its end. */
export async function runTool(name: string, create: CreateTool, statusOf: (error: unknown) => number = toolStatus): Promise<void> {
  const signal = interruptSignal();
  const outcome: { error?: unknown } = {};
  await runToExit(name, signal, async () => {
    try {
      await parseTool(create(readEnvironment(signal)), process.argv.slice(2));
    } catch (error) {
      outcome.error = error;
      if (error instanceof InvalidArgumentError) process.stderr.write(`${name}: ${error.message}\n`);
      throw error;
    }
  });
  if (outcome.error !== undefined && !signal.aborted) process.exitCode = statusOf(outcome.error);
}

/** Parses an argument that names a file, which must be there. */
export function existingFile(path: string): string {
  const found = statSync(path, { throwIfNoEntry: false });
  if (found === undefined) throw new InvalidArgumentError(`File does not exist: ${path}`);
  if (found.isDirectory()) throw new InvalidArgumentError(`File is actually a directory: ${path}`);
  return path;
}

/** Parses a whole number from 0 on. */
export function wholeNumber(text: string): number {
  const value = Number(text);
  if (!/^[0-9]+$/.test(text) || !Number.isSafeInteger(value)) throw new InvalidArgumentError(`${text}: expected a whole number from 0 on.`);
  return value;
}

const STRERROR: Readonly<Record<string, string>> = {
  EACCES: "Permission denied",
  EEXIST: "File exists",
  EISDIR: "Is a directory",
  ENOENT: "No such file or directory",
  ENOSPC: "No space left on device",
  ENOTDIR: "Not a directory",
  EROFS: "Read-only file system",
};

/** What the tools say of a file that cannot be opened. */
export function openFailure(path: string, error: unknown): unknown {
  if (!(error instanceof Error) || !("code" in error) || !("errno" in error) || typeof error.errno !== "number") return error;
  const text = STRERROR[String(error.code)] ?? error.message;
  const code = error.code === "ENOENT" ? "NOT_FOUND" : "UNAVAILABLE";
  return new LazyError(code, `failed to open file '${path}', ${-error.errno}: ${text}`, { cause: error });
}
