import type { Argument, Command, Option } from "commander";

/** What an option or argument expects of a shell. */
export type ValueKind = "file" | "directory" | "image" | "word";

export interface OptionRow {
  /** As help shows it: `-u, --username <user:password>`. */
  readonly flags: string;
  /** `-u`, `--username`: whichever there are. */
  readonly names: readonly string[];
  readonly description: string;
  /** Undefined for flags without a value. */
  readonly value: ValueKind | undefined;
  readonly choices: readonly string[];
  /** As help shows it. */
  readonly defaultText: string | undefined;
  readonly variable: string | undefined;
  readonly group: string;
}

export interface ArgumentRow {
  readonly name: string;
  readonly isRequired: boolean;
  readonly defaultText: string | undefined;
  readonly description: string;
  readonly value: ValueKind;
  readonly choices: readonly string[];
}

/** A command as plain values: what completion scripts and docs/cli.md are made of. */
export interface CommandTable {
  readonly name: string;
  readonly summary: string;
  readonly description: string;
  readonly usage: string;
  readonly arguments: readonly ArgumentRow[];
  readonly options: readonly OptionRow[];
  readonly commands: readonly CommandTable[];
}

const IMAGES = /^(?:image|source|destination|converted)$/;

/** Everything that help shows of a command and those below it. */
export function commandTable(command: Command): CommandTable {
  const help = command.createHelp();
  return {
    name: command.name(),
    summary: command.summary() || command.description(),
    description: command.description(),
    usage: help.commandUsage(command),
    arguments: command.registeredArguments.map(argumentRow),
    options: help.visibleOptions(command).map(optionRow),
    commands: help
      .visibleCommands(command)
      .filter((child) => child.name() !== "help")
      .map(commandTable),
  };
}

function optionRow(option: Option): OptionRow {
  const { flags, short, long, description, argChoices, defaultValueDescription, envVar, helpGroupHeading } = option;
  return {
    flags,
    names: [short, long].filter((name) => name !== undefined),
    description,
    value: option.required || option.optional ? valueKind(flags) : undefined,
    choices: argChoices ?? [],
    defaultText: defaultValueDescription ?? defaultText(option.defaultValue),
    variable: envVar,
    group: helpGroupHeading ?? "",
  };
}

function argumentRow(argument: Argument): ArgumentRow {
  const name = argument.name();
  const { required, description, argChoices } = argument;
  return {
    name,
    isRequired: required,
    defaultText: defaultText(argument.defaultValue),
    description,
    value: IMAGES.test(name) ? "image" : valueKind(`<${name}>`),
    choices: argChoices ?? [],
  };
}

/** Flags that are on by default say so themselves. */
function defaultText(value: unknown): string | undefined {
  return typeof value === "string" || typeof value === "number" ? String(value) : undefined;
}

function valueKind(flags: string): ValueKind {
  const value = /<([^>]+)>$/.exec(flags)?.[1] ?? "";
  if (value === "directory") return "directory";
  return value === "file" || value === "cert:key" ? "file" : "word";
}
