import { Command, type Option } from "commander";
import { FILESYSTEM_TYPES, type FilesystemType, type ImageFormat } from "../convert/image-format.ts";
import { LazyError } from "../errors.ts";
import { parseReference, parseTag } from "../oci/reference.ts";
import { addImageOptions, addRunOptions, checkConversionOptions, type ConversionOptions } from "./conversion-options.ts";
import { addDatabaseOptions } from "./database-options.ts";
import type { Environment } from "./environment.ts";
import { referenceName } from "./reference-name.ts";
import { runConversion, type RequestedTarget } from "./run-conversion.ts";
import { addStoreOptions, addTlsOptions, readStoreOptions } from "./store-options.ts";

/** Of the options that other commands have for registries, those that have no counterpart among the known flags. */
const OWN_REGISTRY_OPTIONS = ["--password-stdin", "--hosts-dir", "--token-service"];
/** The base layer's own size. */
const BASE_LAYER_VSIZE_GB = 64;

const EXAMPLES = `
Examples:
  convertor -r registry.example/app -i 1 -o 1_obd
  convertor -r registry.example/app -i 1 --overlaybd 1_obd --turboOCI 1_turbo
  convertor -r localhost:5000/app -i 1 -o 1_obd --plain --oci --dry-run
  convertor -r registry.example/app -i 1 -o 1_obd -u robot --password-stdin <secret

lazylayer convert does the same between repositories, registries and directories; docs/migrating.md tells every difference
to the standalone convertor of accelerated-container-image.`;

interface ConvertorOptions extends ConversionOptions {
  readonly repository: string;
  readonly inputTag?: string;
  readonly inputDigest?: string;
  readonly outputTag?: string;
  readonly overlaybd?: string;
  readonly fastoci?: string;
  readonly turboOCI?: string;
  readonly dir: string;
  readonly plain?: true;
  readonly verbose?: true;
  readonly fstype: string;
  readonly mkfs: boolean;
  readonly reserve?: true;
  readonly upload: boolean;
  readonly dumpManifest?: true;
}

/** The drop-in for scripts, as a program that has not run yet. */
export function createConvertor(environment: Environment): Command {
  const program = new Command("convertor")
    .description("Converts a container image to overlaybd or turboOCI within its repository, without root, containerd or kernel modules.")
    .exitOverride()
    .configureOutput({ writeOut: (text) => environment.stdout.write(text), writeErr: (text) => environment.stderr.write(text) })
    .requiredOption("-r, --repository <repository>", "host[:port]/repository, without a tag")
    .option("-u, --username <user:password>", "registry user and password (default: what docker or podman have stored)")
    .option("--plain", "connections over plain HTTP (loopback registries: always)")
    .option("--verbose", "say what is done as it is done")
    .option("-i, --input-tag <tag>", "tag of the image to convert")
    .option("-g, --input-digest <digest>", "digest of the image to convert")
    .option("-o, --output-tag <tag>", "tag of the converted image")
    .option("--overlaybd <tag>", "the same as --output-tag")
    .option("--turboOCI <tag>", "tag of the image as turboOCI, instead of --overlaybd or beside it")
    .option("--fastoci <tag>", "the old name of --turboOCI")
    .option("-d, --dir <directory>", "directory for temporary data", "tmp_conv")
    .option("--fstype <type>", "filesystem of the converted image", "ext4")
    .option("--mkfs", "make the filesystem in the bottom layer", true)
    .option(
      "--no-mkfs",
      "build on a base layer of 64 GB instead (also --mkfs=false): LAZYLAYER_BASE_LAYER, or /opt/overlaybd/baselayers/ext4_64",
    )
    .option("--disable-sparse", "accepted; nothing is written to sparse files")
    .option("--reserve", "keep the converted blobs in the temporary directory")
    .option("--no-upload", "convert, but push nothing")
    .option("--dump-manifest", "write config.json, manifest.json and index.json into the temporary directory")
    .helpOption("-h, --help", "help for convertor")
    .addHelpText("after", EXAMPLES);
  addImageOptions(program);
  addDatabaseOptions(program);
  addTlsOptions(program);
  program.optionsGroup("Not in the standalone convertor:");
  addRunOptions(program, environment);
  for (const option of registryOptions(OWN_REGISTRY_OPTIONS)) program.addOption(option);
  program.action(async (options: ConvertorOptions) => {
    checkConversionOptions(options, program);
    checkFlags(options);
    checkBaseLayer(options);
    await convert(options, environment);
  });
  return program;
}

function registryOptions(names: readonly string[]): Option[] {
  const command = new Command();
  addStoreOptions(command);
  return command.options.filter(({ long }) => long !== undefined && names.includes(long));
}

async function convert(options: ConvertorOptions, environment: Environment): Promise<void> {
  const { mkfs, upload, plain: plainHttp, timeout: timeoutSeconds } = options;
  const { source, targets } = references(options);
  const stores = await readStoreOptions({ ...options, plainHttp, timeoutSeconds }, environment);
  await runConversion(
    {
      source,
      targets,
      filesystem: filesystemOf(options),
      notices: options.fastoci === undefined ? [] : ["--fastoci is deprecated; --turboOCI means the same"],
      options: { ...options, vsize: mkfs ? options.vsize : BASE_LAYER_VSIZE_GB },
      stores,
      directory: options.dir,
      onBaseLayer: !mkfs,
      keep: options.reserve,
      dump: options.dumpManifest,
      upload,
      verbose: options.verbose,
      result: () => [],
      summary: (results, seconds) => {
        const done = results.map(({ descriptor }, index) => {
          const name = referenceName(parseReference(targets[index].destination));
          return `${upload ? `converted to "${name}"` : "converted, not pushed"}, digest: "${descriptor.digest}"`;
        });
        return `${done.join("; ")}, in ${seconds.toFixed(1)} s`;
      },
    },
    environment,
  );
}

/** Flags that are not supported, or make no sense together. */
function checkFlags(options: ConvertorOptions): void {
  const { dryRun, quiet, verbose } = options;
  filesystemOf(options);
  if (quiet && verbose) throw new LazyError("USAGE", "--quiet and --verbose contradict each other; give one of them");
  if (!dryRun) return;
  const useless = [
    { flag: "--no-upload", given: !options.upload },
    { flag: "--reserve", given: options.reserve },
    { flag: "--dump-manifest", given: options.dumpManifest },
  ].find(({ given }) => given);
  if (useless) throw new LazyError("USAGE", `${useless.flag} is of no use with --dry-run, which converts nothing; give one of them`);
}

/** The other tool makes ext4 of whatever it does not know; a name that says nothing is ext4 here, too. */
function filesystemOf({ fstype, mkfs }: ConvertorOptions): FilesystemType {
  const type = FILESYSTEM_TYPES.find((known) => known === (fstype || "ext4"));
  if (type === undefined) throw new LazyError("USAGE", `--fstype ${fstype} is not supported, only ${FILESYSTEM_TYPES.join(" and ")} are`);
  if (type !== "ext4" && !mkfs) throw new LazyError("USAGE", `--fstype ${type} needs a filesystem of its own: the base layer is ext4`);
  return type;
}

/** A size that is typed is what the caller counts on, and a base layer has its own. */
function checkBaseLayer({ mkfs, vsize }: ConvertorOptions): void {
  if (mkfs || vsize === BASE_LAYER_VSIZE_GB) return;
  const size = `the base layer is of ${BASE_LAYER_VSIZE_GB} GB`;
  throw new LazyError("USAGE", `--vsize ${vsize} and --mkfs=false contradict each other: ${size}; leave one of them out`);
}

/** Checks what names source and result. */
function references(options: ConvertorOptions): { source: string; targets: RequestedTarget[] } {
  const { repository, inputTag, inputDigest } = options;
  if (inputTag !== undefined && inputDigest !== undefined) throw new LazyError("USAGE", "-i and -g name the image twice; give one of them");
  if (inputTag === undefined && inputDigest === undefined)
    throw new LazyError("USAGE", "one of --input-tag (-i) and --input-digest (-g) is required");
  if (repository.includes("://"))
    throw new LazyError("USAGE", `-r ${repository}: expected host[:port]/repository, without ${repository.split("://")[0]}://`);
  if (/[@]|:[^/]*$/.test(repository))
    throw new LazyError("USAGE", `-r ${repository}: expected host[:port]/repository, without tag or digest`);
  return {
    source: inputTag === undefined ? `${repository}@${inputDigest}` : `${repository}:${inputTag}`,
    targets: outputTags(options).map(({ format, tag }) => ({ format, destination: `${repository}:${tag}` })),
  };
}

/** The results that are asked for, and their tags. */
function outputTags(options: ConvertorOptions): { format: ImageFormat; tag: string }[] {
  const { inputTag, outputTag, overlaybd, turboOCI, fastoci, force, upload, recompress } = options;
  const native = oneTag([
    ["-o", outputTag],
    ["--overlaybd", overlaybd],
  ]);
  const turbo = oneTag([
    ["--turboOCI", turboOCI],
    ["--fastoci", fastoci],
  ]);
  if (recompress && turbo.tag === undefined)
    throw new LazyError("USAGE", "--recompress is of use only with --turboOCI: overlaybd layers refer to nothing");
  const tags = [
    { format: "overlaybd" as const, ...native },
    { format: "turbo" as const, ...turbo },
  ].flatMap(({ format, flag, tag }) => (tag === undefined ? [] : [{ format, flag, tag: parseTag(tag) }]));
  if (tags.length === 0) throw new LazyError("USAGE", "a tag for the result is required: --output-tag (-o), --overlaybd or --turboOCI");
  if (tags.length === 2 && tags[0].tag === tags[1].tag)
    throw new LazyError("USAGE", `${tags[0].flag} and ${tags[1].flag} both say ${tags[0].tag}; name two tags`);
  for (const { flag, tag } of tags) {
    if (inputTag === tag && upload && !force)
      throw new LazyError("USAGE", `${flag} ${tag} is the tag of the source, which would lose it; name another one, or say --force`);
  }
  return tags;
}

/** The tag of a result that two flags can name. */
function oneTag(flags: readonly (readonly [flag: string, tag: string | undefined])[]): { flag: string; tag: string | undefined } {
  const [first, second] = flags.filter(([, tag]) => tag !== undefined);
  if (first && second && first[1] !== second[1])
    throw new LazyError("USAGE", `${first[0]} ${first[1]} and ${second[0]} ${second[1]} name two results; give one of them`);
  const [flag, tag] = first ?? flags[0];
  return { flag, tag };
}
