import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { run } from "./command.ts";

const CHECKOUT = join(import.meta.dirname, "../..");

/**
 * The image of `npm run demo`, as `oci:DIRECTORY:src`: a minimal Debian, Python and Redis, a layer of deletions and oddities.
 * Made the first time (half a minute), then kept in the checkout. Several processes may ask at once.
 */
export async function demoImage(size: "small" | "big" = "small", signal?: AbortSignal): Promise<string> {
  const directory = join(CHECKOUT, ".work/demo");
  await mkdir(directory, { recursive: true });
  const maker = [process.execPath, join(CHECKOUT, "bench/demo/make-image.ts"), size, join(directory, size)];
  const output = await run("flock", ["--no-fork", join(directory, `${size}.lock`), ...maker], signal === undefined ? {} : { signal });
  return output.trim();
}
