import type { Command } from "commander";
import type { Environment } from "./environment.ts";
import { catPath, listPath } from "./image-files.ts";
import { addReadOptions } from "./store-options.ts";

export function addFileCommands(program: Command, environment: Environment): void {
  const ls = program
    .command("ls")
    .summary("list a directory of a converted image")
    .description("Lists a directory of a converted image, reading only what that takes. Needs no root.")
    .argument("<image>", "image reference, or oci:DIRECTORY[:tag]")
    .argument("[path]", "path in the image", "/")
    .option("-l, --long", "with type, mode, links, owner, size and time")
    .addHelpText(
      "after",
      `
Examples:
  lazylayer ls registry.example/app:1-obd /etc
  lazylayer ls -l --platform linux/arm64 oci:layout:app /usr/bin`,
    );
  const cat = program
    .command("cat")
    .summary("print a file of a converted image")
    .description("Prints a file of a converted image, reading only what that takes. Needs no root.")
    .argument("<image>", "image reference, or oci:DIRECTORY[:tag]")
    .argument("<path>", "path in the image")
    .addHelpText(
      "after",
      `
Examples:
  lazylayer cat registry.example/app:1-obd /etc/os-release
  lazylayer cat oci:layout:app /usr/bin/app >app`,
    );
  for (const command of [ls, cat]) {
    command.option("--platform <os/arch[/variant]>", "of a multi-platform image (default: this machine's)");
    addReadOptions(command);
  }
  ls.action(async (image: string, path: string, options: { long?: boolean }) => await listPath(image, path, options, environment));
  cat.action(async (image: string, path: string, options: unknown) => await catPath(image, path, options, environment));
}
