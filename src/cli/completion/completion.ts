import { Argument, type Command } from "commander";
import { commandTable, type CommandTable } from "../command-table.ts";
import { bashCompletion } from "./bash.ts";
import { fishCompletion } from "./fish.ts";
import { zshCompletion } from "./zsh.ts";
import { createConvertor } from "../convertor-command.ts";
import type { Environment } from "../environment.ts";

const SHELLS = { bash: bashCompletion, zsh: zshCompletion, fish: fishCompletion } satisfies Record<
  string,
  (programs: readonly CommandTable[]) => string
>;

const HELP = `
Examples:
  source <(lazylayer completion bash)            in ~/.bashrc
  source <(lazylayer completion zsh)             in ~/.zshrc, after compinit
  lazylayer completion fish | source             in ~/.config/fish/config.fish`;

export function addCompletionCommand(program: Command, environment: Environment): void {
  program
    .command("completion")
    .summary("print a completion script for a shell")
    .description("Prints a script that teaches a shell to complete the commands and options of lazylayer and convertor.")
    .addArgument(new Argument("<shell>", "the shell").choices(Object.keys(SHELLS)))
    .addHelpText("after", HELP)
    .action((shell: keyof typeof SHELLS) => {
      environment.stdout.write(SHELLS[shell]([program, createConvertor(environment)].map(commandTable)));
    });
}
