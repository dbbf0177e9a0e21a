import type { CommandTable, OptionRow } from "../command-table.ts";

/** A script for bash that completes commands, options and their values for each of the programs. */
export function bashCompletion(programs: readonly CommandTable[]): string {
  return `# Completion for bash: source <(lazylayer completion bash)\n${programs.map(programScript).join("\n")}`;
}

function programScript(program: CommandTable): string {
  const all = withPaths(program, "");
  const commands = all.filter(({ path }) => path !== "").map(({ path }) => `"${path}"`);
  return `
_${program.name}_completion() {
  local current=\${COMP_WORDS[COMP_CWORD]} previous=\${COMP_WORDS[COMP_CWORD-1]} path= word index
  # Bash takes --option=value apart at the equals sign.
  if [[ $previous == = ]]; then
    previous=\${COMP_WORDS[COMP_CWORD-2]}
  elif [[ $current == = ]]; then
    current=
  fi
  for ((index = 1; index < COMP_CWORD; index++)); do
    word=\${COMP_WORDS[index]}
    case "$path $word" in
      ${commands.length === 0 ? '"")' : `${commands.join(" | ")})`} path="$path $word" ;;
    esac
  done
  COMPREPLY=()
  case "$path $previous" in
${valueCases(all).join("\n")}
  esac
  case "$path" in
${all.map(({ table, path }) => `    "${path}") ${wordsCase(table)} ;;`).join("\n")}
  esac
}
complete -o bashdefault -o default -F _${program.name}_completion ${program.name}
`;
}

interface PlacedCommand {
  readonly table: CommandTable;
  /** Its name and those of the commands above it, with a space before each; empty for the program. */
  readonly path: string;
}

function withPaths(table: CommandTable, path: string): PlacedCommand[] {
  return [{ table, path }, ...table.commands.flatMap((child) => withPaths(child, `${path} ${child.name}`))];
}

/** What is offered for the values of options; those with the same values stand together. */
function valueCases(commands: readonly PlacedCommand[]): string[] {
  const patterns = new Map<string, string[]>();
  for (const { table, path } of commands) {
    for (const option of table.options) {
      if (option.value === undefined) continue;
      const action = valueAction(option);
      patterns.set(action, [...(patterns.get(action) ?? []), ...option.names.map((name) => `"${path} ${name}"`)]);
    }
  }
  return [...patterns].map(([action, names]) => `    ${names.join(" | ")})\n      ${action}\n      return ;;`);
}

function valueAction({ choices, value }: OptionRow): string {
  if (choices.length > 0) return `COMPREPLY=($(compgen -W "${choices.join(" ")}" -- "$current"))`;
  if (value === "directory") return "compopt +o default +o bashdefault -o dirnames 2>/dev/null";
  if (value === "file") return ": # files, which bash offers where nothing else is";
  return "compopt +o default +o bashdefault 2>/dev/null";
}

function wordsCase(table: CommandTable): string {
  const options = table.options.flatMap(({ names }) => names.filter((name) => name.startsWith("--"))).join(" ");
  const words = [...table.commands.map(({ name }) => name), ...table.arguments.flatMap(({ choices }) => choices)].join(" ");
  const offerOptions = `[[ $current == -* ]] && COMPREPLY=($(compgen -W "${options}" -- "$current"))`;
  return words === "" ? offerOptions : `${offerOptions} || COMPREPLY=($(compgen -W "${words}" -- "$current"))`;
}
