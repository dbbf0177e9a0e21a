import { Command, type Option } from "commander";
import { LazyError } from "../errors.ts";
import { parseReference, parseTag } from "../oci/reference.ts";
import { addImageOptions, addRunOptions, checkConversionOptions, type ConversionOptions } from "./conversion-options.ts";
import { addDatabaseOptions } from "./database-options.ts";
import type { Environment } from "./environment.ts";
import { referenceName } from "./reference-name.ts";
import { runConversion } from "./run-conversion.ts";
import { addStoreOptions, addTlsOptions, readStoreOptions } from "./store-options.ts";

/** Of the options that other commands have for registries, those that have no counterpart among the known flags. */
const OWN_REGISTRY_OPTIONS = ["--password-stdin", "--hosts-dir", "--token-service"];
/** The base layer's own size. */
const BASE_LAYER_VSIZE_GB = 64;

const EXAMPLES = `
Examples:
  convertor -r registry.example/app -i 1 -o 1_obd
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
    .description("Converts a container image to overlaybd within its repository, without root, containerd or kernel modules.")
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
    .option("--turboOCI <tag>", "not supported")
    .option("--fastoci <tag>", "not supported")
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
  const { source, destination } = references(options);
  const stores = await readStoreOptions({ ...options, plainHttp, timeoutSeconds }, environment);
  await runConversion(
    {
      source,
      destination,
      options: { ...options, vsize: mkfs ? options.vsize : BASE_LAYER_VSIZE_GB },
      stores,
      directory: options.dir,
      onBaseLayer: !mkfs,
      keep: options.reserve,
      dump: options.dumpManifest,
      upload,
      verbose: options.verbose,
      result: () => [],
      summary: ({ descriptor }, seconds) =>
        `${upload ? `converted to "${referenceName(parseReference(destination))}"` : "converted, not pushed"}, ` +
        `digest: "${descriptor.digest}", in ${seconds.toFixed(1)} s`,
    },
    environment,
  );
}

/** Flags that are not supported, or make no sense together. */
function checkFlags(options: ConvertorOptions): void {
  const { fastoci, turboOCI, fstype, dryRun, quiet, verbose } = options;
  if (fastoci !== undefined || turboOCI !== undefined) {
    const flag = turboOCI === undefined ? "--fastoci" : "--turboOCI";
    throw new LazyError("USAGE", `${flag} is not supported: what is made is native overlaybd; name its tag with -o or --overlaybd`);
  }
  if (fstype !== "ext4") throw new LazyError("USAGE", `--fstype ${fstype} is not supported, only ext4 is`);
  if (quiet && verbose) throw new LazyError("USAGE", "--quiet and --verbose contradict each other; give one of them");
  if (!dryRun) return;
  const useless = [
    { flag: "--no-upload", given: !options.upload },
    { flag: "--reserve", given: options.reserve },
    { flag: "--dump-manifest", given: options.dumpManifest },
  ].find(({ given }) => given);
  if (useless) throw new LazyError("USAGE", `${useless.flag} is of no use with --dry-run, which converts nothing; give one of them`);
}

/** A size that is typed is what the caller counts on, and a base layer has its own. */
function checkBaseLayer({ mkfs, vsize }: ConvertorOptions): void {
  if (mkfs || vsize === BASE_LAYER_VSIZE_GB) return;
  const size = `the base layer is of ${BASE_LAYER_VSIZE_GB} GB`;
  throw new LazyError("USAGE", `--vsize ${vsize} and --mkfs=false contradict each other: ${size}; leave one of them out`);
}

/** Checks what names source and result. */
function references(options: ConvertorOptions): { source: string; destination: string } {
  const { repository, inputTag, inputDigest, outputTag, overlaybd, force, upload } = options;
  if (inputTag !== undefined && inputDigest !== undefined) throw new LazyError("USAGE", "-i and -g name the image twice; give one of them");
  if (inputTag === undefined && inputDigest === undefined)
    throw new LazyError("USAGE", "one of --input-tag (-i) and --input-digest (-g) is required");
  if (outputTag !== undefined && overlaybd !== undefined && outputTag !== overlaybd) {
    throw new LazyError("USAGE", `-o ${outputTag} and --overlaybd ${overlaybd} name two results; give one of them`);
  }
  const tag = overlaybd ?? outputTag;
  if (tag === undefined) throw new LazyError("USAGE", "a tag for the result is required: --output-tag (-o) or --overlaybd");
  parseTag(tag);
  if (repository.includes("://"))
    throw new LazyError("USAGE", `-r ${repository}: expected host[:port]/repository, without ${repository.split("://")[0]}://`);
  if (/[@]|:[^/]*$/.test(repository))
    throw new LazyError("USAGE", `-r ${repository}: expected host[:port]/repository, without tag or digest`);
  if (inputTag === tag && upload && !force) {
    throw new LazyError("USAGE", `-o ${tag} is the tag of the source, which would lose it; name another one, or say --force`);
  }
  return {
    source: inputTag === undefined ? `${repository}@${inputDigest}` : `${repository}:${inputTag}`,
    destination: `${repository}:${tag}`,
  };
}
