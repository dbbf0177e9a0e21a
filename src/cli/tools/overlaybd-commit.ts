import type { Command } from "commander";
import { lockUpper } from "../../daemon/upper-lock.ts";
import { LazyError } from "../../errors.ts";
import { commitLayer, commitWarpLayer } from "../../formats/lsmt/commit-layer.ts";
import type { Digest } from "../../oci/digest.ts";
import type { Environment } from "../environment.ts";
import { blockBytes } from "./block-size.ts";
import { openCommitSource, openWritable, type CommitForm } from "./layer-files.ts";
import { knownUuid } from "./layer-uuid.ts";
import { blockAlgorithm, writeLayerFile, type LayerCompression } from "./layer-output.ts";
import type { OutputFileOptions } from "./output-file.ts";
import { addFlag, createTool, existingFile, runTool, wholeNumber } from "./tool.ts";
import { addUploadOptions, prepareUpload, uploadFile, type UploadOptions } from "./upload.ts";

interface CommitToolOptions extends UploadOptions {
  readonly m: string;
  readonly uuid: string;
  readonly parentUuid: string;
  readonly z: boolean;
  readonly t: boolean;
  readonly f: boolean;
  readonly algorithm: string;
  readonly bs: number;
  readonly turboOCI: boolean;
  readonly fastoci: boolean;
  readonly seal: boolean;
  readonly commit_sealed: boolean;
  readonly compress_threads: number;
  readonly verbose: boolean;
}

const MAX_THREADS = 256;

/** `overlaybd-commit`: a writable layer as a finished one. See docs/tools.md. */
export function createCommitTool(environment: Environment): Command {
  const program = createTool(
    "overlaybd-commit",
    "Makes a layer that can be distributed of a writable one, or seals that in place.",
    environment,
  )
    .argument(
      "<data_file>",
      "data of the writable layer; the filesystem's metadata with --turboOCI; the sealed layer with --commit_sealed",
      existingFile,
    )
    .argument("[index_file]", "index of the writable layer; the file to make with --commit_sealed", "")
    .argument("[commit_file]", "file to make", "");
  program.option("-m <text>", "free text that goes into the layer, up to 256 bytes", "");
  program.option("--uuid <uuid>", "of the layer that is made", "");
  program.option("-p, --parent-uuid <uuid>", "of the layer below (default: as the writable layer says)", "");
  addFlag(program, "-z", "compress");
  addFlag(program, "-t", "put the layer into a tar; with -z only");
  addFlag(program, "-f", "replace commit_file");
  program.option("--algorithm <name>", "lz4 or zstd", "lz4");
  program.option("--bs <KiB>", "size of a compressed block: 4, 8, 16, 32 or 64", wholeNumber, 4);
  addFlag(program, "--turboOCI", "data_file and index_file are the metadata and the index of a turboOCI layer");
  addFlag(program, "--fastoci", "the old name of --turboOCI");
  addFlag(program, "--seal", "make data_file a finished layer where it is");
  addFlag(program, "--commit_sealed", "data_file is a sealed layer");
  program.option("--compress_threads <number>", "threads that compress", wholeNumber, 1);
  addUploadOptions(program);
  program.action(async (data: string, index: string, target: string, options: CommitToolOptions) => {
    if (options.seal) await seal(data, index, environment);
    else await commit(data, index, target, options, environment);
  });
  return program;
}

async function commit(data: string, index: string, target: string, options: CommitToolOptions, environment: Environment): Promise<void> {
  const { stdout, stderr } = environment;
  const compression = compressionOf(options);
  if (compression === undefined && (options.bs !== 4 || options.algorithm !== "lz4"))
    stderr.write("WARNING option '--bs' and '--algorithm' will be ignored without '-z'\n");
  const path = options.commit_sealed ? index : target;
  if (path === "") throw new LazyError("USAGE", `${options.commit_sealed ? "index_file, the file to make," : "commit_file"} is missing`);
  const upload = compression === undefined ? undefined : await prepareUpload(options, environment);
  const form = formOf(options);
  const layer = await openCommitSource(form, data, index, (message) => stderr.write(`${message}\n`));
  let digest: Digest;
  try {
    const output: OutputFileOptions = { mode: 0o644, existing: options.f ? "removed" : "refused", inTar: options.t && options.z };
    digest = await writeLayerFile(path, output, compression, environment.signal, async (sink) => {
      const summary =
        form === "warp"
          ? await commitWarpLayer(layer, sink, identityOf(options, stderr))
          : await commitLayer(layer, sink, { ...identityOf(options, stderr), userTag: options.m });
      if (options.verbose) stderr.write(`${layer.virtualSize} bytes of device, ${summary.segments} segments, ${summary.bytes} bytes\n`);
    });
  } finally {
    await layer.close();
  }
  if (upload !== undefined) await uploadFile(path, digest, "the same command with -f", upload);
  stderr.write(upload === undefined ? "\n" : `${digest}\n`);
  stdout.write("overlaybd-commit has committed files SUCCESSFULLY\n");
}

function compressionOf({ z, t, algorithm, bs, compress_threads, upload }: CommitToolOptions): LayerCompression | undefined {
  if (t && upload !== "") throw new LazyError("USAGE", "--upload and -t contradict each other: what is uploaded is not in a tar");
  if (!z) return undefined;
  if (compress_threads < 1 || compress_threads > MAX_THREADS)
    throw new LazyError("USAGE", `--compress_threads ${compress_threads}: expected 1 to ${MAX_THREADS}`);
  return {
    algorithm: blockAlgorithm(algorithm),
    blockSize: blockBytes(bs),
    threads: compress_threads,
    overwriteHeader: upload === "",
  };
}

function formOf({ turboOCI, fastoci, commit_sealed }: CommitToolOptions): CommitForm {
  if (turboOCI || fastoci) return "warp";
  return commit_sealed ? "sealed" : "writable";
}

function identityOf(
  { uuid, parentUuid }: CommitToolOptions,
  stderr: Environment["stderr"],
): { readonly uuid: string | undefined; readonly parentUuid: string | undefined } {
  return { uuid: knownUuid(uuid, "--uuid", stderr), parentUuid: knownUuid(parentUuid, "--parent-uuid", stderr) };
}

async function seal(data: string, index: string, { stderr }: Environment): Promise<void> {
  const lock = await lockUpper(data, "data_file");
  try {
    const layer = await openWritable(data, index, (message) => stderr.write(`${message}\n`));
    try {
      await layer.seal();
    } finally {
      await layer.close();
    }
  } finally {
    lock.close();
  }
}

if (import.meta.main) await runTool("overlaybd-commit", createCommitTool);
