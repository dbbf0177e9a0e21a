import { join } from "node:path";
import { run } from "../../test/support/command.ts";
import { DebianBuilder, type MakeOptions } from "../images/debian-builder.ts";
import { keepLayout } from "../images/kept-layout.ts";

/** `small`: Python and Redis on a minimal Debian, about 220 MB as tar. `big`: the scientific Python packages too, about 1.3 GB. */
export type ImageSize = "small" | "big";

const PACKAGES: Readonly<Record<ImageSize, readonly string[]>> = {
  small: ["python3", "redis-server"],
  big: ["python3", "redis-server", "python3-matplotlib", "python3-pandas", "python3-scipy", "python3-sklearn"],
};

const CHANGES_SCRIPT = join(import.meta.dirname, "changes.sh");
const MAKER = join(import.meta.dirname, "../images/debian-builder.ts");
const CONFIG = ["--config.cmd", "redis-server", "--config.env", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "--config.workingdir", "/"];

/**
 * Makes an OCI layout of three layers in `directory`, tagged `src`: a minimal system (tar by mmdebstrap), packages installed onto it
 * (tar by umoci), deletions and oddities (tar by GNU tar). Does nothing when it is there.
 */
export async function makeDebianImage(size: ImageSize, directory: string, options: MakeOptions): Promise<void> {
  await keepLayout(directory, { name: size, files: [import.meta.filename, MAKER, CHANGES_SCRIPT] }, async (work) => {
    const image = await DebianBuilder.bootstrap(work, options);
    await image.install(PACKAGES[size]);
    await image.add("deletions, replacements and oddities", "changes.sh", async (changes) => {
      await run("sh", [CHANGES_SCRIPT, image.root, changes], { signal: options.signal });
    });
    await image.finish(CONFIG);
  });
}
