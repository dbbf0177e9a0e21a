import { InvalidArgumentError, Option, type Command } from "commander";
import { FILESYSTEM_TYPES, type FilesystemType, type ImageFormat } from "../convert/image-format.ts";
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
  readonly to: readonly ImageFormat[];
  readonly fs: FilesystemType;
  readonly leaveData?: true;
}

const EXAMPLES = `
Examples:
  lazylayer convert registry.example/app:1 registry.example/app:1-obd
  lazylayer convert --tag-suffix=-obd --dry-run registry.example/app:1
  lazylayer convert --platform linux/amd64 --output json redis oci:layout:redis
  docker save app:1 | lazylayer convert - oci-archive:app-obd.tar
  lazylayer convert --to overlaybd,turbo registry.example/app:1 registry.example/app:1-obd registry.example/app:1-turbo

Then: lazylayer verify SOURCE DESTINATION proves the result, lazylayer mount mounts it.`;

export function addConvertCommand(program: Command, environment: Environment): void {
  const command = program
    .command("convert")
    .summary("convert an image to overlaybd or turboOCI")
    .description(
      "Converts an image to overlaybd, turboOCI or both, from one registry, layout directory or archive to others, and prints the new " +
        "image's digest.",
    )
    .argument("<source>", "host[:port]/repository:tag, …@sha256:…, oci:DIRECTORY[:tag], oci-archive:FILE, docker-archive:FILE, or -")
    .argument("[destination...]", "the same, one for each format; with a tag, unless --tag-suffix makes one")
    .addOption(
      new Option("--to <formats>", "what to convert to: overlaybd, turbo (turboOCI), or both with a comma between, out of one read")
        .argParser(parseFormats)
        .default(["overlaybd"], "overlaybd"),
    )
    .addOption(new Option("--fs <type>", "filesystem of the converted image").choices(FILESYSTEM_TYPES).default("ext4"));
  addImageOptions(command);
  command.option("--tag-suffix <suffix>", "tag the result with the source's tag and this; the destination may then be left out");
  command.option(
    "--leave-data",
    "turboOCI: do not bring the source's layers to the destination; whoever reads the result names their place with --data-repository",
  );
  addRunOptions(command, environment);
  command.optionsGroup("Conversion database:");
  addDatabaseOptions(command);
  command.optionsGroup("Registries:");
  addStoreOptions(command);
  command.addHelpText("after", EXAMPLES);
  command.action(async (source: string, destinations: readonly string[], options: ConvertCommandOptions) => {
    checkConversionOptions(options, command);
    checkFormatOptions(options);
    const from = parseReference(source);
    const targets = destinationsOf(source, destinations, options);
    for (const to of targets) checkDestination(from, to, options);
    if (targets.some(({ kind }) => kind !== "registry")) refuseDatabaseOptions(command, "only what goes into a registry is remembered");
    const { timeout: timeoutSeconds } = options;
    const stores = await readStoreOptions({ ...options, timeoutSeconds }, environment, [source]);
    await runConversion(
      {
        source,
        targets: options.to.map((format, index) => ({ format, destination: referenceName(targets[index]) })),
        options,
        filesystem: options.fs,
        stores,
        dataElsewhere: options.leaveData,
        result: (results) => results.map(({ descriptor }) => descriptor.digest),
        summary: (results, seconds) => {
          const names = targets.map((to, index) =>
            to.kind === "stream" ? `standard output, digest: "${results[index].descriptor.digest}"` : referenceName(to),
          );
          const { images } = results[0];
          const count = images.length === 1 ? "" : ` (${images.length} images)`;
          return `converted ${source} to ${names.join(" and ")}${count} in ${seconds.toFixed(1)} s`;
        },
      },
      environment,
    );
  });
}

function parseFormats(text: string): ImageFormat[] {
  const formats = text.split(",").map((name): ImageFormat => {
    if (name !== "overlaybd" && name !== "turbo") throw new InvalidArgumentError("expected overlaybd, turbo, or overlaybd,turbo");
    return name;
  });
  if (new Set(formats).size < formats.length) throw new InvalidArgumentError("expected each format once");
  return formats;
}

function checkFormatOptions({ to, recompress, leaveData }: ConvertCommandOptions): void {
  if (to.includes("turbo")) return;
  const useless = recompress ? "--recompress" : leaveData ? "--leave-data" : undefined;
  if (useless) throw new LazyError("USAGE", `${useless} is of use only with --to turbo: overlaybd layers refer to nothing`);
}

function checkDestination(from: ImageReference, to: ImageReference, { force, output, dryRun, to: formats }: ConvertCommandOptions): void {
  if (replacesImage(to, from) && !force) {
    throw new LazyError(
      "USAGE",
      `${referenceName(to)}: source and destination are the same; name another tag or file, or let --force replace the source`,
    );
  }
  if (to.kind === "stream" && output === "json" && !dryRun) {
    throw new LazyError("USAGE", "--output json and the archive would both go to standard output; name a file for the archive");
  }
  if (to.kind === "docker-archive" && formats.includes("turbo")) {
    throw new LazyError("USAGE", `${referenceName(to)}: a docker archive has no room for what turboOCI refers to; name an oci-archive`);
  }
  if (to.kind === "stream" && formats.length > 1) {
    throw new LazyError("USAGE", "standard output takes one archive, not two images; name a file for it");
  }
}

/** Where the results go, by format. */
function destinationsOf(source: string, destinations: readonly string[], options: ConvertCommandOptions): ImageReference[] {
  const { to: formats, tagSuffix } = options;
  if (formats.length === 1) {
    if (destinations.length > 1)
      throw new LazyError("USAGE", `${destinations.length} destinations for one image; name one, or two formats with --to overlaybd,turbo`);
    return [destinationOf(source, destinations[0], options)];
  }
  if (tagSuffix !== undefined)
    throw new LazyError("USAGE", "--tag-suffix would give both images the same tag; name a destination for each format");
  if (destinations.length !== formats.length) {
    throw new LazyError(
      "USAGE",
      `--to ${formats.join(",")} needs ${formats.length} destinations, in that order; found ${destinations.length}`,
    );
  }
  const references = destinations.map((destination) => destinationOf(source, destination, options));
  if (new Set(references.map(referenceName)).size < references.length)
    throw new LazyError("USAGE", `both formats would go to ${destinations[0]}; name another tag for one of them`);
  return references;
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
