import type { Command } from "commander";
import { formatPlatform, type Platform } from "../oci/platform.ts";
import { quoted } from "../tree/path.ts";
import { verifyImage } from "../verify/verify-image.ts";
import { platformOption } from "./conversion-options.ts";
import type { Environment } from "./environment.ts";
import { Progress } from "./progress/progress.ts";
import { addReadOptions, openReadPlaces, openReference, readStoreOptions } from "./store-options.ts";

interface VerifyCommandOptions {
  readonly platform: readonly Platform[];
}

/** `setStatus` gets 1 if anything differs. */
export function addVerifyCommand(program: Command, environment: Environment, setStatus: (status: number) => void): void {
  const command = program
    .command("verify")
    .summary("prove that a converted image is the same tree")
    .description(
      "Reads both images completely, without mounting anything, and compares every path's type, mode, owner, size, times, device\n" +
        "numbers, link target, hard links, extended attributes and content. Prints what differs; the status is 1 if anything does.",
    )
    .argument("<source>", "the image that was converted")
    .argument("<converted>", "what it was converted to")
    .addOption(platformOption(environment));
  addReadOptions(command);
  command.addHelpText(
    "after",
    `
Examples:
  lazylayer verify registry.example/app:1 registry.example/app:1-obd
  lazylayer verify --platform linux/arm64 redis oci:layout:redis`,
  );
  command.action(async (source: string, converted: string, options: VerifyCommandOptions) => {
    setStatus(await verifyCommand(source, converted, options, environment));
  });
}

async function verifyCommand(from: string, to: string, options: VerifyCommandOptions, environment: Environment): Promise<number> {
  const stores = await readStoreOptions(options, environment);
  const source = await openReference(from, stores, environment);
  const converted = await openReadPlaces(to, stores, environment);
  const progress = new Progress(environment, "verifying");
  try {
    const result = await verifyImage(source, converted, {
      platforms: options.platform,
      signal: environment.signal,
      observe: (bytes) => progress.advance(bytes),
      differs: ({ path, what, source: expected, converted: found }, platform) => {
        const where = platform ? `${formatPlatform(platform)} ` : "";
        environment.stdout.write(`${where}${quoted(`/${path}`)}: ${what}: source ${expected}, converted ${found}\n`);
      },
    });
    progress.stop();
    const verdict = result.differences === 0 ? "all the same" : `${result.differences} differences`;
    environment.stderr.write(`verified ${result.paths} paths in ${progress.seconds.toFixed(1)} s: ${verdict}\n`);
    return result.differences === 0 ? 0 : 1;
  } finally {
    progress.stop();
    await Promise.all([source.store.close(), converted.close()]);
  }
}
