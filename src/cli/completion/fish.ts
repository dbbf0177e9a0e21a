import type { CommandTable, OptionRow } from "../command-table.ts";

/** A script for fish. */
export function fishCompletion(programs: readonly CommandTable[]): string {
  return ["# Completion for fish: lazylayer completion fish | source", ...programs.flatMap((program) => lines(program, program.name, []))]
    .map((line) => `${line}\n`)
    .join("");
}

function lines(table: CommandTable, program: string, path: readonly string[]): string[] {
  const condition = conditionFor(table, path);
  const start = `complete -c ${program}${condition === "" ? "" : ` -n ${quote(condition)}`}`;
  return [
    ...table.commands.map((child) => `${start} -f -a ${child.name} -d ${quote(firstLine(child.summary))}`),
    ...table.arguments.filter(({ choices }) => choices.length > 0).map(({ choices }) => `${start} -f -a ${quote(choices.join(" "))}`),
    ...table.options.map((option) => `${start} ${optionText(option)}`),
    ...table.commands.flatMap((child) => lines(child, program, [...path, child.name])),
  ];
}

/** When the words typed so far have led to this command. */
function conditionFor({ commands }: CommandTable, path: readonly string[]): string {
  const below = commands.map(({ name }) => name).join(" ");
  const inside = path.map((name) => `__fish_seen_subcommand_from ${name}`);
  return [...inside, ...(below === "" ? [] : [`not __fish_seen_subcommand_from ${below}`])].join("; and ");
}

function optionText({ names, description, value, choices }: OptionRow): string {
  const flags = names.map((name) => (name.startsWith("--") ? `-l ${name.slice(2)}` : `-s ${name.slice(1)}`)).join(" ");
  return `${flags}${valueText(value, choices)} -d ${quote(firstLine(description))}`;
}

function valueText(value: OptionRow["value"], choices: readonly string[]): string {
  if (value === undefined) return "";
  if (choices.length > 0) return ` -x -a ${quote(choices.join(" "))}`;
  if (value === "directory") return " -x -a '(__fish_complete_directories)'";
  return value === "word" ? " -x" : " -r";
}

function firstLine(text: string): string {
  return text.split("\n", 1)[0];
}

function quote(text: string): string {
  return `'${text.replaceAll("\\", "\\\\").replaceAll("'", "\\'")}'`;
}
