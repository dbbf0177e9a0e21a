import { availableParallelism } from "node:os";
import { Command } from "commander";
import { openBaseLayer } from "../convert/base-layer.ts";
import { convertImage } from "../convert/convert-image.ts";
import { LazyError } from "../errors.ts";
import { CompressionPool } from "../workers/compression-pool.ts";
import { DEFAULT_VSIZE_GB, MIN_SCANS, parseVsize } from "./convert.ts";
import { plainFlags } from "./go-flags.ts";
import { readEnvironment, type Environment } from "./environment.ts";
import { interruptSignal, runToExit } from "./exit-status.ts";
import { Progress } from "./progress.ts";
import { parseTag } from "../oci/reference.ts";
import { openReference } from "./store-options.ts";

/** The base layer's own size. */
const BASE_LAYER_VSIZE_GB = 64;
const GIB = 2 ** 30;

/** Flags that the command line is known for and that are refused until they do what they say. */
const REFUSED: readonly [flags: string, value: "one" | "none"][] = [
  ["--fastoci <tag>", "one"],
  ["--turboOCI <tag>", "one"],
  ["--db-str <string>", "one"],
  ["--db-type <type>", "one"],
  ["--concurrency-limit <n>", "one"],
  ["--referrer", "none"],
  ["--cert-dir <directory>", "one"],
  ["--root-ca <file>", "one"],
  ["--client-cert <cert:key>", "one"],
];

interface ConvertorOptions {
  readonly repository: string;
  readonly username?: string;
  readonly inputTag?: string;
  readonly inputDigest?: string;
  readonly outputTag?: string;
  readonly overlaybd?: string;
  readonly dir: string;
  readonly plain?: boolean;
  readonly insecure?: boolean;
  readonly verbose?: boolean;
  readonly oci?: boolean;
  readonly fstype: string;
  readonly mkfs: boolean;
  readonly vsize: number;
  readonly reserve?: boolean;
  readonly upload: boolean;
  readonly dumpManifest?: boolean;
}

const signal = interruptSignal();
const environment = readEnvironment(signal);

await runToExit("convertor", signal, async () => {
  const program = new Command("convertor")
    .description("Converts a container image to overlaybd within its repository, without root, containerd or kernel modules.")
    .exitOverride()
    .requiredOption("-r, --repository <repository>", "host[:port]/repository, without a tag")
    .option("-u, --username <user:password>", "registry user and password (default: what docker or podman have stored)")
    .option("--plain", "connections over plain HTTP (loopback registries: always)")
    .option("--verbose", "say what is done as it is done")
    .option("-i, --input-tag <tag>", "tag of the image to convert")
    .option("-g, --input-digest <digest>", "digest of the image to convert")
    .option("-o, --output-tag <tag>", "tag of the converted image")
    .option("--overlaybd <tag>", "the same as --output-tag")
    .option("-d, --dir <directory>", "directory for temporary data", "tmp_conv")
    .option("--oci", "OCI media types instead of docker's")
    .option("--fstype <type>", "filesystem of the converted image", "ext4")
    .option("--mkfs", "make the filesystem in the bottom layer", true)
    .option("--no-mkfs", "build on a base layer instead (also --mkfs=false): LAZYLAYER_BASE_LAYER, or /opt/overlaybd/baselayers/ext4_64")
    .option("--vsize <GB>", "size of the virtual block device", parseVsize, DEFAULT_VSIZE_GB)
    .option("--disable-sparse", "accepted; nothing is written to sparse files")
    .option("--insecure", "do not verify the registry's certificate")
    .option("--reserve", "keep the converted blobs in the temporary directory")
    .option("--no-upload", "convert, but push nothing")
    .option("--dump-manifest", "write config.json, manifest.json and index.json into the temporary directory")
    .helpOption("-h, --help", "help for convertor");
  for (const [flags] of REFUSED) program.option(flags, "not supported yet");
  program.action(async (options: ConvertorOptions) => {
    refuseUnsupported(program);
    await convert(options, environment);
  });
  const booleans = ["plain", "verbose", "oci", "mkfs", "disable-sparse", "insecure", "reserve", "no-upload", "dump-manifest", "referrer"];
  await program.parseAsync(plainFlags(process.argv.slice(2), booleans), { from: "user" });
});

function refuseUnsupported(program: Command): void {
  for (const option of program.options) {
    const refused = REFUSED.some(([flags]) => flags === option.flags);
    if (refused && program.getOptionValueSource(option.attributeName()) === "cli") {
      throw new LazyError("USAGE", `${option.long ?? option.flags} is not supported`);
    }
  }
}

async function convert(options: ConvertorOptions, environment: Environment): Promise<void> {
  const { from, tag } = references(options);
  if (options.fstype !== "ext4") throw new LazyError("USAGE", `--fstype ${options.fstype} is not supported, only ext4 is`);
  await using cleanup = new AsyncDisposableStack();
  const progress = new Progress(environment.stderr, "converting");
  cleanup.defer(() => progress.stop());
  const say = (message: string): void => progress.note(message);
  const detail = options.verbose === true ? say : (): void => {};
  const storeOptions = { username: options.username, plainHttp: options.plain, insecure: options.insecure };
  const { store, target, reference } = await openReference(from, storeOptions, environment, { notify: say });
  cleanup.defer(async () => await store.close());
  const pool = new CompressionPool({ workers: availableParallelism() });
  cleanup.defer(async () => await pool.close());
  const base = options.mkfs ? undefined : await openBaseLayer(environment.baseLayer);
  cleanup.defer(async () => await base?.device.close());
  const result = await convertImage(store, target, store, tag, {
    virtualSize: (options.mkfs ? options.vsize : BASE_LAYER_VSIZE_GB) * GIB,
    family: options.oci === true ? "oci" : "docker",
    platforms: [],
    base,
    directory: options.dir,
    keep: options.reserve === true,
    dump: options.dumpManifest === true,
    dryRun: !options.upload,
    compress: pool.compress,
    concurrency: Math.max(MIN_SCANS, availableParallelism()),
    observer: {
      imageStarted: ({ name, layers, bytes }) => {
        progress.expect(bytes);
        detail(`converting ${name}: ${layers} layers, ${bytes} bytes`);
      },
      storedBytes: (bytes) => progress.advance(bytes),
      layerConverted: ({ index, blobBytes }) => detail(`layer ${index} converted, ${blobBytes} bytes`),
      layerStored: ({ index, how }) => detail(`layer ${index} ${how === "exists" ? "exists already" : how}`),
      warning: (message) => say(`warning: ${message}`),
    },
    signal: environment.signal,
  });
  progress.stop();
  const where = reference.kind === "registry" ? `${reference.host}/${reference.repository}:${tag}` : tag;
  const done = options.upload ? `converted to "${where}"` : `converted, not pushed`;
  environment.stderr.write(`${done}, digest: "${result.digest}", in ${progress.seconds.toFixed(1)} s\n`);
}

/** Checks what is given together and names source and result. */
function references(options: ConvertorOptions): { from: string; tag: string } {
  const { repository, inputTag, inputDigest, outputTag, overlaybd } = options;
  if (inputTag !== undefined && inputDigest !== undefined) throw new LazyError("USAGE", "-i and -g name the image twice; give one of them");
  if (inputTag === undefined && inputDigest === undefined)
    throw new LazyError("USAGE", "one of --input-tag (-i) and --input-digest (-g) is required");
  if (outputTag !== undefined && overlaybd !== undefined && outputTag !== overlaybd) {
    throw new LazyError("USAGE", `-o ${outputTag} and --overlaybd ${overlaybd} name two results; give one of them`);
  }
  const tag = overlaybd ?? outputTag;
  if (tag !== undefined) parseTag(tag);
  else throw new LazyError("USAGE", "a tag for the result is required: --output-tag (-o) or --overlaybd");
  if (repository.includes("://"))
    throw new LazyError("USAGE", `-r ${repository}: expected host[:port]/repository, without ${repository.split("://")[0]}://`);
  if (/[@]|:[^/]*$/.test(repository))
    throw new LazyError("USAGE", `-r ${repository}: expected host[:port]/repository, without tag or digest`);
  return { from: inputTag === undefined ? `${repository}@${inputDigest}` : `${repository}:${inputTag}`, tag };
}
