import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { run } from "../../test/support/command.ts";
import { DebianBuilder, IMAGE_TAG, TAR_OPTIONS, type MakeOptions } from "./debian-builder.ts";
import { LayoutWriter, readLayout } from "./layout-writer.ts";

/** What each layer installs on the minimal Debian below: what people put together who compute, about 1 GB as gzip, 2.8 GB as tar. */
const LAYERS: readonly (readonly string[])[] = [
  ["python3-matplotlib", "python3-pandas", "python3-scipy", "python3-sklearn"],
  ["jupyter-notebook", "build-essential", "gfortran", "cmake", "git"],
  ["python3-torch", "r-base-core"],
  ["texlive-latex-extra", "pandoc"],
];

export async function makeLarge(work: string, options: MakeOptions): Promise<void> {
  const image = await DebianBuilder.bootstrap(work, options);
  for (const packages of LAYERS) await image.install(packages);
  await image.finish(["--config.cmd", "python3"]);
}

/** The tree of the image in `layout` as one layer. */
export async function makeSingleLayer(layout: string, work: string, { say, signal }: MakeOptions): Promise<void> {
  say("unpack the large image");
  const bundle = join(work, "bundle");
  await run("umoci", ["unpack", "--image", `${layout}:${IMAGE_TAG}`, bundle], { signal });
  const writer = await LayoutWriter.create(join(work, "layout"), (await readLayout(layout)).architecture);
  say("pack it as one layer");
  const tar = spawn("tar", [...TAR_OPTIONS, "--directory", join(bundle, "rootfs"), "."], { stdio: ["ignore", "pipe", "inherit"], signal });
  const ended = once(tar, "exit");
  await writer.addTar(tar.stdout);
  const [status] = (await ended) as [number | null];
  if (status !== 0) throw new Error(`tar: exit status ${status ?? "none (killed)"}`);
  await writer.finish();
}
