import { Option, type Command } from "commander";
import { LazyError } from "../errors.ts";
import { parseReference, parseTag, replacesImage, type ImageReference } from "../oci/reference.ts";
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
  docker save app:1 | lazylayer convert - oci-archive:app-obd.tar

Then: lazylayer verify SOURCE DESTINATION proves the result, lazylayer mount mounts it.`;

export function addConvertCommand(program: Command, environment: Environment): void {
  const command = program
    .command("convert")
    .summary("convert an image to overlaybd")
    .description(
      "Converts an image to overlaybd, from one registry, layout directory or archive to another, and prints the new image's digest.",
    )
    .argument("<source>", "host[:port]/repository:tag, …@sha256:…, oci:DIRECTORY[:tag], oci-archive:FILE, docker-archive:FILE, or -")
    .argument("[destination]", "the same; with a tag, unless --tag-suffix makes one")
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
    if (replacesImage(to, from) && !options.force) {
      throw new LazyError(
        "USAGE",
        `${name}: source and destination are the same; name another tag or file, or let --force replace the source`,
      );
    }
    if (to.kind === "stream" && options.output === "json" && !options.dryRun) {
      throw new LazyError("USAGE", "--output json and the archive would both go to standard output; name a file for the archive");
    }
    const { timeout: timeoutSeconds } = options;
    const stores = await readStoreOptions({ ...options, timeoutSeconds }, environment, [source]);
    await runConversion(
      {
        source,
        destination: name,
        options,
        stores,
        result: ({ descriptor }) => [descriptor.digest],
        summary: ({ descriptor, images }, seconds) => {
          const target = to.kind === "stream" ? `standard output, digest: "${descriptor.digest}"` : name;
          return `converted ${source} to ${target}${images.length === 1 ? "" : ` (${images.length} images)`} in ${seconds.toFixed(1)} s`;
        },
      },
      environment,
    );
  });
}

/** Where the result goes: a place without a digest, and with a tag; only archives may go without. */
function destinationOf(source: string, destination: string | undefined, { tagSuffix }: ConvertCommandOptions): ImageReference {
  if (tagSuffix !== undefined) return suffixed(source, destination, tagSuffix);
  if (destination === undefined) throw new LazyError("USAGE", "missing required argument 'destination'; or give --tag-suffix");
  const reference = parseReference(destination);
  const { kind, tag, digest } = reference;
  const needsTag = kind === "registry" || kind === "layout";
  if (digest !== undefined || (needsTag && tag === undefined)) {
    throw new LazyError("USAGE", `destination ${destination}: needs a tag, and no digest: the digest is what comes out`);
  }
  return reference;
}

function suffixed(source: string, destination: string | undefined, suffix: string): ImageReference {
  const { tag } = parseReference(source);
  if (tag === undefined)
    throw new LazyError("USAGE", `--tag-suffix: ${source} has no tag that it could be added to; name a destination with a tag`);
  if (destination !== undefined && hasTag(destination)) {
    throw new LazyError("USAGE", `--tag-suffix: ${destination} has a tag already; give one of them`);
  }
  const place = parseReference(destination ?? source);
  if (place.kind !== "registry" && place.kind !== "layout") {
    throw new LazyError(
      "USAGE",
      `--tag-suffix: ${destination ?? source} is an archive; name a repository, a directory, or the archive with a tag`,
    );
  }
  return parseReference(`${placeName(place)}:${parseTag(`${tag}${suffix}`)}`);
}

/** Whether a tag or a digest was typed; in a registry, one without is `latest`. */
function hasTag(text: string): boolean {
  const { tag, digest, kind } = parseReference(text);
  return digest !== undefined || (kind === "registry" ? tag !== "latest" || text.endsWith(":latest") : tag !== undefined);
}
