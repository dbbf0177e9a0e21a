import type { Command } from "commander";
import type { ByteSource } from "../../bytes/source.ts";
import { compressInline, type BlockAlgorithm } from "../../compression/block-codec.ts";
import { corrupt, LazyError } from "../../errors.ts";
import { ZFILE_RECORD_BYTES } from "../../formats/zfile/layout.ts";
import { isZFile, openZFile } from "../../formats/zfile/zfile-reader.ts";
import { ZFileWriter } from "../../formats/zfile/zfile-writer.ts";
import { openTarPayload } from "../../tar/payload.ts";
import type { Environment } from "../environment.ts";
import { takeStandardInput } from "../standard-streams.ts";
import { blockBytes } from "./block-size.ts";
import { makeFile } from "./output-file.ts";
import { openSource, openStream } from "./source-file.ts";
import { addFlag, createTool, runTool, wholeNumber } from "./tool.ts";

/** Read and written at a time. */
const PIECE_BYTES = 1 << 20;

interface ZFileOptions {
  readonly t: boolean;
  readonly x: boolean;
  readonly f: boolean;
  readonly verify: boolean;
  readonly verbose: boolean;
  readonly algorithm: string;
  readonly bs: number;
}

/** `overlaybd-zfile`: files to ZFiles and back. See docs/tools.md. */
export function createZFileTool(environment: Environment): Command {
  const program = createTool("overlaybd-zfile", "Compresses a file block by block, so that any part of it can be read alone.", environment)
    .argument("<source_file>", "file to read; the target, if it is the only one, and standard input is read")
    .argument("[target_file]", "file to make", "");
  addFlag(program, "-t", "the ZFile is the payload of a tar");
  addFlag(program, "-x", "extract");
  addFlag(program, "--verify", "check every block of source_file, and make nothing");
  addFlag(program, "-f", "replace target_file");
  program.option("--algorithm <name>", "zstd, or lz4 for any other name", "lz4");
  program.option("--bs <KiB>", "size of a block: 4, 8, 16, 32 or 64", wholeNumber, 4);
  program.action(async (source: string, target: string, options: ZFileOptions) => {
    if (options.verify) await verify(source, environment);
    else if (options.x) await extract(source, target, options, environment);
    else await compress(source, target, options, environment);
  });
  return program;
}

async function compress(source: string, target: string, options: ZFileOptions, environment: Environment): Promise<void> {
  const blockSize = blockBytes(options.bs);
  const algorithm: BlockAlgorithm = options.algorithm === "zstd" ? "zstd" : "lz4";
  const fromStdin = target === "";
  const [input, path, name] = fromStdin
    ? [takeStandardInput(environment), source, ""]
    : [await openStream(source, environment.signal), target, source];
  const { originalBytes, bytes } = await makeFile(
    path,
    { mode: 0o644, existing: options.f ? "removed" : "refused", inTar: options.t },
    async (output) => {
      environment.stdout.write(`compress file ${name} as ${path}\n`);
      const writer = new ZFileWriter(output, { algorithm, blockSize, compress: compressInline, overwriteHeader: false });
      for await (const chunk of input) await writer.write(chunk);
      return await writer.close();
    },
  );
  if (options.verbose) environment.stderr.write(`${originalBytes} bytes in blocks of ${blockSize}, ${bytes} bytes with ${algorithm}\n`);
  environment.stdout.write("compress file done.\n");
}

async function extract(source: string, target: string, options: ZFileOptions, environment: Environment): Promise<void> {
  if (target === "") throw new LazyError("USAGE", "cannot extract from standard input: name source_file and target_file");
  const payload = await openPayload(source);
  try {
    const zfile = await openZFile(payload);
    await makeFile(target, { mode: 0o700, existing: options.f ? "removed" : "refused", inTar: false }, async (output) => {
      environment.stdout.write(`decompress file ${source} as ${target}\n`);
      await readAll(zfile, environment.signal, async (bytes) => await output.write(bytes));
    });
    if (options.verbose) environment.stderr.write(`${zfile.size} bytes\n`);
  } finally {
    await payload.close();
  }
  environment.stdout.write("decompress file done.\n");
}

async function verify(path: string, environment: Environment): Promise<void> {
  const payload = await openPayload(path);
  try {
    const zfile = await openZFile(payload);
    if (!zfile.blocks.verify) throw corrupt("its blocks have no checksums");
    await readAll(zfile, environment.signal, async () => {});
  } catch (error) {
    if (!(error instanceof LazyError && error.code === "CORRUPT")) throw error;
    throw corrupt(`${path} is not a valid zfile blob or checksum can't be found. (${error.message})`, { cause: error });
  } finally {
    await payload.close();
  }
  environment.stdout.write(`${path} is a valid zfile blob.\n`);
}

/** The bytes of a ZFile, in a tar or not. */
async function openPayload(path: string): Promise<ByteSource> {
  const file = await openSource(path);
  try {
    const payload = await openTarPayload(file);
    if (isZFile(await payload.read(0, Math.min(ZFILE_RECORD_BYTES, payload.size)))) return payload;
    throw corrupt(`format error! ${path} should be a zfile.`);
  } catch (error) {
    await file.close();
    throw error;
  }
}

async function readAll(source: ByteSource, signal: AbortSignal, take: (bytes: Uint8Array) => Promise<void>): Promise<void> {
  for (let at = 0; at < source.size; at += PIECE_BYTES) {
    signal.throwIfAborted();
    await take(await source.read(at, Math.min(PIECE_BYTES, source.size - at)));
  }
}

if (import.meta.main) await runTool("overlaybd-zfile", createZFileTool);
