import { spawn } from "node:child_process";
import { accessSync, constants } from "node:fs";
import { LazyError } from "../errors.ts";

/** Where system tools are looked for; the environment's PATH is not asked. */
const DIRECTORIES = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];
const MAX_OUTPUT_BYTES = 64 * 1024;

export interface ToolOptions {
  /** An open descriptor that the tool gets as its descriptor 3. */
  readonly inheritedDescriptor?: number;
  /** What to install where the tool is missing; by default what nearly every machine has. */
  readonly debianPackage?: string;
}

/**
 * Runs one of the system's tools without a shell and answers its standard output.
 * `UNSUPPORTED` when it is not installed; `UNAVAILABLE` with what it printed when it fails.
 */
export async function runTool(name: string, args: readonly string[], options: ToolOptions = {}): Promise<string> {
  const { status, output, complaint } = await start(findTool(name, options.debianPackage ?? "util-linux and mount"), args, options);
  if (status === 0) return output;
  throw new LazyError("UNAVAILABLE", `${name} ${args.join(" ")}: ${complaint.trim() || "no message"} (${describeStatus(status)})`);
}

function findTool(name: string, debianPackage: string): string {
  for (const directory of DIRECTORIES) {
    const path = `${directory}/${name}`;
    try {
      accessSync(path, constants.X_OK);
      return path;
    } catch (error) {
      if (!(error instanceof Error && "code" in error)) throw error;
    }
  }
  throw new LazyError("UNSUPPORTED", `${name} is not in any of ${DIRECTORIES.join(", ")}: install ${debianPackage}`);
}

interface Outcome {
  readonly status: number | NodeJS.Signals;
  readonly output: string;
  readonly complaint: string;
}

async function start(path: string, args: readonly string[], options: ToolOptions): Promise<Outcome> {
  const inherited = options.inheritedDescriptor;
  const child = spawn(path, args, {
    cwd: "/",
    env: { LC_ALL: "C", PATH: DIRECTORIES.join(":") },
    stdio: ["ignore", "pipe", "pipe", ...(inherited === undefined ? [] : [inherited])],
  });
  const texts = { output: "", complaint: "" };
  child.stdout?.on("data", (data: Buffer) => (texts.output = (texts.output + data.toString()).slice(0, MAX_OUTPUT_BYTES)));
  child.stderr?.on("data", (data: Buffer) => (texts.complaint = (texts.complaint + data.toString()).slice(0, MAX_OUTPUT_BYTES)));
  return await new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code, signal) => resolve({ status: code ?? signal ?? "SIGKILL", ...texts }));
  });
}

function describeStatus(status: number | NodeJS.Signals): string {
  return typeof status === "number" ? `exit status ${status}` : `ended by ${status}`;
}
