import { Option, type Command } from "commander";
import { LazyError } from "../errors.ts";
import { parseReference, parseTag, type ImageReference } from "../oci/reference.ts";
import { addImageOptions, addRunOptions, checkConversionOptions, type ConversionOptions } from "./conversion-options.ts";
import { addDatabaseOptions, refuseDatabaseOptions } from "./database-options.ts";
import type { Environment } from "./environment.ts";
import { placeName, referenceName } from "./reference-name.ts";
import { runConversion } from "./run-conversion.ts";
import { addStoreOptions, readStoreOptions } from "./store-options.ts";

interface ConvertCommandOptions extends ConversionOptions {
  readonly tagSuffix?: string;
}

const EXAMPLES = `
Examples:
  lazylayer convert registry.example/app:1 registry.example/app:1-obd
  lazylayer convert --tag-suffix=-obd --dry-run registry.example/app:1
  lazylayer convert --platform linux/amd64 --output json redis oci:layout:redis

Then: lazylayer verify SOURCE DESTINATION proves the result, lazylayer mount mounts it.`;

export function addConvertCommand(program: Command, environment: Environment): void {
  const command = program
    .command("convert")
    .summary("convert an image to overlaybd")
    .description("Converts an image to overlaybd, from one registry or layout directory to another, and prints the new image's digest.")
    .argument("<source>", "host[:port]/repository:tag, …@sha256:…, or oci:DIRECTORY[:tag]")
    .argument("[destination]", "the same; it must have a tag, or get one from --tag-suffix")
    .addOption(new Option("--fs <type>", "filesystem of the converted image").choices(["ext4"]).default("ext4"));
  addImageOptions(command);
  command.option("--tag-suffix <suffix>", "tag the result with the source's tag and this; the destination may then be left out");
  addRunOptions(command, environment);
  command.optionsGroup("Conversion database:");
  addDatabaseOptions(command);
  command.optionsGroup("Registries:");
  addStoreOptions(command);
  command.addHelpText("after", EXAMPLES);
  command.action(async (source: string, destination: string | undefined, options: ConvertCommandOptions) => {
    checkConversionOptions(options, command);
    const [from, to] = [parseReference(source), destinationOf(source, destination, options)];
    if (to.kind !== "registry") refuseDatabaseOptions(command, "only what goes into a registry is remembered");
    const name = referenceName(to);
    if (referenceName(from) === name && !options.force) {
      throw new LazyError("USAGE", `${name}: source and destination are the same; name another tag, or let --force replace the source`);
    }
    const { timeout: timeoutSeconds } = options;
    const stores = await readStoreOptions({ ...options, timeoutSeconds }, environment);
    await runConversion(
      {
        source,
        destination: name,
        options,
        stores,
        result: ({ descriptor }) => [descriptor.digest],
        summary: ({ images }, seconds) =>
          `converted ${source} to ${name}${images.length === 1 ? "" : ` (${images.length} images)`} in ${seconds.toFixed(1)} s`,
      },
      environment,
    );
  });
}

/** Where the result goes: a place with a tag and without a digest. */
function destinationOf(source: string, destination: string | undefined, { tagSuffix }: ConvertCommandOptions): ImageReference {
  if (tagSuffix === undefined) {
    if (destination === undefined) throw new LazyError("USAGE", "missing required argument 'destination'; or give --tag-suffix");
    const { tag, digest } = parseReference(destination);
    if (tag !== undefined && digest === undefined) return parseReference(destination);
    throw new LazyError("USAGE", `destination ${destination}: needs a tag, and no digest: the digest is what comes out`);
  }
  const { tag } = parseReference(source);
  if (tag === undefined)
    throw new LazyError("USAGE", `--tag-suffix: ${source} has no tag that it could be added to; name a destination with a tag`);
  if (destination !== undefined && hasTag(destination)) {
    throw new LazyError("USAGE", `--tag-suffix: ${destination} has a tag already; give one of them`);
  }
  return parseReference(`${placeName(parseReference(destination ?? source))}:${parseTag(`${tag}${tagSuffix}`)}`);
}

/** Whether a tag or a digest was typed; in a registry, one without is `latest`. */
function hasTag(text: string): boolean {
  const { tag, digest, kind } = parseReference(text);
  return digest !== undefined || (kind === "registry" ? tag !== "latest" || text.endsWith(":latest") : tag !== undefined);
}
