import type { ByteSink } from "../bytes/sink.ts";
import { LazyError } from "../errors.ts";
import type { Environment } from "./environment.ts";

/** Standard inputs that have been given away. */
const taken = new WeakSet<object>();

/** Standard input, for one reader. Throws `USAGE` for a terminal, and for the second reader. */
export function takeStandardInput({ stdin }: Environment): AsyncIterable<Uint8Array> {
  if (isTerminal(stdin)) throw new LazyError("USAGE", "standard input is a terminal; pipe or redirect an archive into it");
  if (taken.has(stdin)) throw new LazyError("USAGE", "- : standard input can be one thing only, and has been read already");
  taken.add(stdin);
  return stdin;
}

/** Standard output for bytes. Throws `USAGE` for a terminal. */
export function standardOutputSink({ stdout }: Environment): ByteSink {
  if (isTerminal(stdout)) throw new LazyError("USAGE", "standard output is a terminal; redirect it");
  return {
    write: async (bytes) => {
      await new Promise<void>((resolve, reject) => stdout.write(bytes, (error?: Error | null) => (error ? reject(error) : resolve())));
    },
    close: async () => {},
  };
}

export function isTerminal(stream: object): boolean {
  return "isTTY" in stream && stream.isTTY === true;
}
