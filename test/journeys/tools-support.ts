import { join } from "node:path";
import { PassThrough, Writable } from "node:stream";
import { readEnvironment, type Environment } from "../../src/cli/environment.ts";
import { parseTool, toolStatus, type CreateTool } from "../../src/cli/tools/tool.ts";
import { messageOf } from "../../src/errors.ts";
import { execute, type CommandOptions, type CommandResult } from "../support/command.ts";

const BIN = join(import.meta.dirname, "../../bin");

/** Runs one of the tools as a process of its own, through its launcher. */
export async function runLauncher(name: string, args: readonly string[], options: CommandOptions = {}): Promise<CommandResult> {
  return await execute(join(BIN, name), args, { ...options, env: { LAZYLAYER_NODE: process.execPath, ...options.env } });
}

export interface ToolResult {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a tool in this process, which saves the time of a start. Nothing of the machine's is used unless `options` say so. */
export async function runTool(
  create: CreateTool,
  args: readonly string[],
  { input = "", ...options }: Partial<Environment> & { readonly input?: string | Uint8Array } = {},
): Promise<ToolResult> {
  const [stdout, stderr] = [new Collector(), new Collector()];
  const environment: Environment = {
    ...machine(),
    stdin: PassThrough.from([Buffer.from(input)]),
    stdout,
    stderr,
    terminal: { interactive: false, color: false },
    proxy: {},
    credentialFiles: [],
    registryHosts: [],
    cacheDirectory: "/nonexistent/cache",
    ...options,
  };
  let status = 0;
  try {
    await parseTool(create(environment), args);
  } catch (error) {
    status = toolStatus(error);
    stderr.write(`${messageOf(error)}\n`);
  }
  return { status, stdout: stdout.text, stderr: stderr.text };
}

/** Read once: it listens to standard input. */
let environmentRead: Environment | undefined;
function machine(): Environment {
  return (environmentRead ??= readEnvironment(new AbortController().signal));
}

class Collector extends Writable {
  readonly #chunks: Buffer[] = [];

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.#chunks.push(chunk);
    done();
  }

  get text(): string {
    return Buffer.concat(this.#chunks).toString();
  }
}
