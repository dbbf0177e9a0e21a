import { join } from "node:path";
import { z } from "zod";
import { run, type CommandOptions } from "../../test/support/command.ts";

/** Debian's own, wherever PATH leads: the floor is its zlib and its OpenSSL. */
const PYTHON = "/usr/bin/python3";
const FLOOR = join(import.meta.dirname, "floor.py");
const MEASURE = join(import.meta.dirname, "measure.py");

const usage = z.object({ wall: z.number(), cpu: z.number(), rss: z.int(), written: z.int(), scratch: z.int(), status: z.int() });
const floorUsage = z.object({ tarBytes: z.int(), wall: z.number(), cpu: z.number() });

/** Seconds and bytes of one run of a command; measure.py says what each is. */
export type Usage = z.infer<typeof usage>;
export type FloorUsage = z.infer<typeof floorUsage>;

/** Runs a command that must succeed. `scratch` is the directory whose disk use is watched. */
export async function measure(command: readonly string[], scratch: string, options: CommandOptions): Promise<Usage> {
  const measured = usage.parse(JSON.parse(await run(PYTHON, [MEASURE, scratch, ...command], options)));
  if (measured.status !== 0) throw new Error(`${command.join(" ")}: exit status ${measured.status}`);
  return measured;
}

/** One thread of C zlib and SHA-256 over layers that are files. */
export async function measureFloor(layers: readonly string[], options: CommandOptions): Promise<FloorUsage> {
  return floorUsage.parse(JSON.parse(await run(PYTHON, [FLOOR, ...layers], options)));
}

/** The versions of the C libraries of the floor. */
export async function floorLibraries(): Promise<string> {
  const script = "import ssl, zlib; print(f'zlib {zlib.ZLIB_RUNTIME_VERSION}, {ssl.OPENSSL_VERSION}')";
  return (await run(PYTHON, ["-c", script])).trim();
}
