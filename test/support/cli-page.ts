import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Command } from "commander";
import { commandTable, type CommandTable, type OptionRow } from "../../src/cli/command-table.ts";
import { createConvertor } from "../../src/cli/convertor-command.ts";
import { readEnvironment, type Environment } from "../../src/cli/environment.ts";
import { createLazylayer } from "../../src/cli/lazylayer.ts";
import { addStoreOptions } from "../../src/cli/store-options.ts";

export const CLI_PAGE = join(import.meta.dirname, "../../docs/cli.md");
const FRAME = join(import.meta.dirname, "cli-page.md");
const PLACEHOLDER = "<!-- commands -->\n";

/** docs/cli.md as it should be: the prose of cli-page.md, and a section for each command made of its options. */
export async function cliPage(): Promise<string> {
  const frame = await readFile(FRAME, "utf8");
  if (!frame.includes(PLACEHOLDER)) throw new Error(`${FRAME}: has no line ${PLACEHOLDER}`);
  // Nothing of whoever runs this.
  const environment: Environment = { ...readEnvironment(new AbortController().signal), cacheDirectory: "the cache directory" };
  const programs = [await createLazylayer(environment), createConvertor(environment)].map(commandTable);
  const registries = registryOptions();
  const sections = programs.flatMap((program) => commandSections(program, "", registries));
  const shared = `## Options for registries\n\nOf every command that says so.\n\n${optionTable(registries)}`;
  return frame.replace(PLACEHOLDER, () => [...sections, shared].join("\n"));
}

function registryOptions(): readonly OptionRow[] {
  const command = new Command();
  addStoreOptions(command);
  return commandTable(command).options.filter(isWorthARow);
}

/** The command's own section, unless all it has is commands, and those of the commands below it. */
function commandSections(table: CommandTable, above: string, registries: readonly OptionRow[]): string[] {
  const name = `${above}${table.name}`;
  const below = table.commands.flatMap((child) => commandSections(child, `${name} `, registries));
  return table.commands.length > 0 ? below : [section(table, name, registries), ...below];
}

function section(table: CommandTable, name: string, registries: readonly OptionRow[]): string {
  const words = table.arguments.map((argument) => (argument.isRequired ? argument.name.toUpperCase() : `[${argument.name.toUpperCase()}]`));
  const options = table.options.filter(isWorthARow);
  const isShared = registries.every(({ flags }) => options.some((option) => option.flags === flags));
  const own = isShared ? options.filter(({ flags }) => !registries.some((shared) => shared.flags === flags)) : options;
  return [
    `## ${name}\n`,
    `\`${[name, ...words].join(" ")}\`\n`,
    `${table.description.replaceAll("\n", " ")}\n`,
    ...(table.arguments.length === 0 ? [] : [argumentTable(table)]),
    ...optionTables(own),
    ...(isShared ? ["And the [options for registries](#options-for-registries).\n"] : []),
  ].join("\n");
}

function isWorthARow({ names }: OptionRow): boolean {
  return !names.includes("--help");
}

function argumentTable(table: CommandTable): string {
  const rows = table.arguments.map(({ name, description, choices, defaultText }) => [
    code(name.toUpperCase()),
    [description, ...facts(choices, defaultText)].join("; "),
  ]);
  return markdownTable(["argument", "meaning"], rows);
}

function optionTable(options: readonly OptionRow[]): string {
  return markdownTable(
    ["option", "meaning"],
    options.map(({ flags, description, choices, defaultText, variable }) => [
      code(flags),
      [description, ...facts(choices, defaultText), ...(variable === undefined ? [] : [`or the variable ${code(variable)}`])].join("; "),
    ]),
  );
}

function facts(choices: readonly string[], defaultText: string | undefined): string[] {
  return [
    ...(choices.length > 1 ? [choices.map(code).join(", ")] : []),
    ...(defaultText === undefined ? [] : [`default: ${code(defaultText)}`]),
  ];
}

/** Groups with a heading of their own come behind the others, as in help. */
function optionTables(options: readonly OptionRow[]): string[] {
  const groups = new Map<string, OptionRow[]>();
  for (const option of options) groups.set(option.group, [...(groups.get(option.group) ?? []), option]);
  return [...groups].map(([heading, rows]) => `${heading === "" ? "" : `${heading}\n\n`}${optionTable(rows)}`);
}

function markdownTable(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]): string => `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |\n`;
  return [head, head.map(() => "---"), ...rows].map(line).join("");
}

function code(text: string): string {
  return `\`${text}\``;
}

if (import.meta.main) await writeFile(CLI_PAGE, await cliPage());
