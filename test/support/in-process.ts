import { PassThrough, Writable } from "node:stream";
import type { Command } from "commander";
import { createConvertor } from "../../src/cli/convertor-command.ts";
import { readEnvironment, type Environment } from "../../src/cli/environment.ts";
import { exitStatus } from "../../src/cli/exit-status.ts";
import { plainFlags } from "../../src/cli/go-flags.ts";
import { createLazylayer } from "../../src/cli/lazylayer.ts";
import { messageOf } from "../../src/errors.ts";
import type { CommandResult } from "./command.ts";

// The option parser looks into the process's own environment.
delete process.env["LAZYLAYER_DB_TYPE"];
delete process.env["LAZYLAYER_DB_STR"];

export interface InProcessOptions extends Partial<Environment> {
  readonly input?: string | undefined;
}

/**
 * The programs in this process, which saves the time of a start: for what options do. Nothing of the machine's is used unless
 * `options` say so; the conversion database is in `cacheDirectory`, which a test that wants it has to name.
 */
export async function lazylayerInProcess(args: readonly string[], options: InProcessOptions = {}): Promise<CommandResult> {
  return await runInProcess(
    "lazylayer",
    args,
    options,
    async (environment, setStatus) => await createLazylayer(environment, setStatus, args[0]),
  );
}

export async function convertorInProcess(args: readonly string[], options: InProcessOptions = {}): Promise<CommandResult> {
  return await runInProcess("convertor", args, options, createConvertor);
}

async function runInProcess(
  name: "lazylayer" | "convertor",
  args: readonly string[],
  { input = "", ...options }: InProcessOptions,
  create: (environment: Environment, setStatus: (status: number) => void) => Command | Promise<Command>,
): Promise<CommandResult> {
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
    const program = await create(environment, (found) => (status = found));
    await program.parseAsync(name === "convertor" ? plainFlags(args, program.options) : args, { from: "user" });
  } catch (error) {
    status = exitStatus(error);
    stderr.write(`${name}: ${messageOf(error)}\n`);
  }
  return { status, stdout: stdout.bytes, stderr: stderr.bytes.toString() };
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

  get bytes(): Buffer {
    return Buffer.concat(this.#chunks);
  }
}
