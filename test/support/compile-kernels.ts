import { execFile } from "node:child_process";
import { readdir, readFile, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { pathToFileURL } from "node:url";
import { promisify } from "node:util";
import { TemporaryDirectory } from "./temporary-directory.ts";

const ROOT = join(import.meta.dirname, "../..");
const SOURCES = "src/compression/assembly";
const OUTPUT = "src/compression/kernels";

/** `noAssert` and raw loads: callers check every length first. `stub`: nothing is ever allocated. */
const OPTIONS = ["--optimizeLevel", "3", "--noAssert", "--runtime", "stub", "--enable", "simd", "--use", "abort="];

/** A kernel's module as it ought to be. */
export interface KernelModule {
  /** Relative to the project. */
  readonly path: string;
  readonly text: string;
}

/** Compiles every kernel to a module that exports its bytes. */
export async function compileKernels(): Promise<KernelModule[]> {
  const files = (await readdir(join(ROOT, SOURCES))).filter((file) => file.endsWith(".ts")).toSorted();
  return await Promise.all(files.map(async (file) => await compileKernel(basename(file, ".ts"))));
}

async function compileKernel(kernel: string): Promise<KernelModule> {
  const source = `${SOURCES}/${kernel}.ts`;
  const constant = `${kernel.replaceAll("-", "_").toUpperCase()}_WASM`;
  await using directory = await TemporaryDirectory.create();
  const output = directory.join("kernel.wasm");
  const compiler = join(ROOT, "node_modules/assemblyscript/bin/asc.js");
  await promisify(execFile)(process.execPath, [compiler, source, "--outFile", output, ...OPTIONS], { cwd: ROOT });
  const wasm = await readFile(output, "base64");
  const text = `// Compiled from ${source} by \`npm run kernels\`.\nexport const ${constant} = "${wasm}";\n`;
  return { path: `${OUTPUT}/${kernel}-wasm.ts`, text };
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  for (const { path, text } of await compileKernels()) {
    await writeFile(join(ROOT, path), text);
    console.log(`${path}  ${text.length} bytes`);
  }
}
