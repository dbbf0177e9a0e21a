import { readFile } from "node:fs/promises";
import type { Command } from "commander";
import { parseServiceConfig } from "../daemon/config/service-config.ts";
import { isImageConfig, parseImageConfig } from "../device/image-config-schema.ts";
import type { ParsedConfig } from "../device/image-config-text.ts";
import { LazyError, messageOf } from "../errors.ts";
import type { Environment } from "./environment.ts";

const MAX_FILE_BYTES = 16 * 2 ** 20;
const KINDS = "a service's configuration, or an image's, which has lowers, an upper or a repoBlobUrl";

/** Adds `config check` and `config show`. `setStatus` gets 1 when a file cannot be used. */
export function addConfigCommand(program: Command, environment: Environment, setStatus: (status: number) => void): void {
  const config = program
    .command("config")
    .summary("look at configuration files")
    .description("Looks at configuration files of overlaybd's service and of its images.")
    .addHelpText(
      "after",
      `
Examples:
  lazylayer config check /etc/overlaybd/overlaybd.json
  lazylayer config show config.v1.json`,
    );
  config
    .command("check")
    .summary("say what is wrong with a file")
    .description(
      `Checks a file: ${KINDS}.\nPrints keys that mean something else here, or nothing, and what is wrong; the status is 1 for a file that cannot be used.`,
    )
    .argument("<file>", "the file")
    .action(async (file: string) => {
      const text = await readConfig(file);
      try {
        for (const notice of parse(text, file).notices) environment.stdout.write(`${file}: ${notice}\n`);
        environment.stderr.write(`${file}: can be used\n`);
      } catch (error) {
        if (!(error instanceof LazyError)) throw error;
        environment.stderr.write(`${messageOf(error)}\n`);
        setStatus(1);
      }
    });
  config
    .command("show")
    .summary("print what counts of a file")
    .description(
      `Prints as JSON what counts of a file: ${KINDS}.\nDefaults are filled in, keys of earlier versions are folded into their successors, keys without effect are left out.`,
    )
    .argument("<file>", "the file")
    .action(async (file: string) => {
      const { config: effective } = parse(await readConfig(file), file);
      environment.stdout.write(`${JSON.stringify(effective, undefined, 2)}\n`);
    });
}

function parse(text: string, file: string): ParsedConfig<object> {
  return isImageConfig(text) ? parseImageConfig(text, file) : parseServiceConfig(text, file);
}

async function readConfig(file: string): Promise<string> {
  let bytes: Buffer;
  try {
    bytes = await readFile(file);
  } catch (error) {
    const code = error instanceof Error && "code" in error && error.code === "ENOENT" ? "NOT_FOUND" : "UNAVAILABLE";
    throw new LazyError(code, `${file}: cannot be read: ${messageOf(error)}`, { cause: error });
  }
  if (bytes.length > MAX_FILE_BYTES) throw new LazyError("USAGE", `${file}: ${bytes.length} bytes, expected at most ${MAX_FILE_BYTES}`);
  return bytes.toString("utf8");
}
