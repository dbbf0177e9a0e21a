import type { ArgumentRow, CommandTable, OptionRow, ValueKind } from "../command-table.ts";

const ACTIONS: Readonly<Record<ValueKind, string>> = { file: "_files", image: "_files", directory: "_files -/", word: "" };

/** A script for zsh, to be sourced or put into a directory of fpath. */
export function zshCompletion(programs: readonly CommandTable[]): string {
  const names = programs.map(({ name }) => name).join(" ");
  return `#compdef ${names}
# Completion for zsh: source <(lazylayer completion zsh)
${programs.map((program) => commandFunction(program, `_${program.name}_completion`)).join("\n")}
${programs.map(({ name }) => `compdef _${name}_completion ${name}`).join("\n")}
# Found in fpath, the file is the function itself.
case $funcstack[1] in
  ${programs.map(({ name }) => `_${name}`).join(" | ")}) "_\${service}_completion" ;;
esac
`;
}

/** A function for a command, and those for the commands below it. */
function commandFunction(table: CommandTable, name: string): string {
  const options = table.options.flatMap(optionSpecs);
  const children = table.commands.map((child) => ({ child, childName: `${name}_${child.name.replaceAll("-", "_")}` }));
  if (children.length === 0) {
    const specs = [...options, ...table.arguments.map(argumentSpec)];
    return `${name}() {\n  _arguments -s \\\n${specs.map((spec) => `    ${spec}`).join(" \\\n")}\n}\n`;
  }
  const own = `${name}() {
  local context state state_descr line
  typeset -A opt_args
  _arguments -C -s \\
${[...options, quote("1:command:->command"), quote("*::argument:->argument")].map((spec) => `    ${spec}`).join(" \\\n")}
  case $state in
    command)
      local -a commands=(
${table.commands.map((child) => `        ${quote(`${child.name}:${firstLine(child.summary)}`)}`).join("\n")}
      )
      _describe command commands ;;
    argument)
      case $line[1] in
${children.map(({ child, childName }) => `        ${child.name}) ${childName} ;;`).join("\n")}
      esac ;;
  esac
}
`;
  return [own, ...children.map(({ child, childName }) => commandFunction(child, childName))].join("\n");
}

function optionSpecs({ names, description, value, choices }: OptionRow): string[] {
  const text = firstLine(description).replaceAll(/[[\]\\:]/g, "\\$&");
  return names.map((name) => quote(`*${name}[${text}]${value === undefined ? "" : `:value:${action(value, choices)}`}`));
}

function argumentSpec({ name, isRequired, value, choices }: ArgumentRow): string {
  return quote(`${isRequired ? "" : ":"}:${name}:${action(value, choices)}`);
}

function action(value: ValueKind, choices: readonly string[]): string {
  return choices.length > 0 ? `(${choices.join(" ")})` : ACTIONS[value];
}

function firstLine(text: string): string {
  return text.split("\n", 1)[0];
}

function quote(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
