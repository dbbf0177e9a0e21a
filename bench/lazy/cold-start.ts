import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { run } from "../../test/support/command.ts";
import type { MadeImage } from "../images/bench-images.ts";
import { IMAGE_TAG } from "../images/debian-builder.ts";
import { conversionCommand, environmentOf, FORMATS, onStage, REPOSITORY, whileMounted, type Stage } from "./places.ts";
import { SlowLine, type LineCounts } from "./slow-line.ts";

/** A line to the registry. */
export interface Line {
  readonly megabytesPerSecond: number;
  readonly latencyMs: number;
}

const LINES: readonly Line[] = [
  { megabytesPerSecond: 3, latencyMs: 20 },
  { megabytesPerSecond: 20, latencyMs: 20 },
];

export interface ColdStart extends Line, LineCounts {
  /** `pull`: the image as it is, fetched and unpacked. */
  readonly way: "pull" | "overlaybd" | "turbo";
  /** From nothing to the end of the program. */
  readonly seconds: number;
}

/** The program that is started: it is in the image, and reads hundreds of files. */
const PROGRAM = ["/usr/bin/python3", "-c", "import json, decimal, asyncio; print(json.dumps({}))"];

/** Starts a program of an image that nothing is known of yet, in three ways, over lines of different speed. */
export async function measureColdStarts(image: MadeImage, work: string, signal: AbortSignal): Promise<ColdStart[]> {
  return await onStage(image, work, signal, async (stage) => {
    await run(conversionCommand(stage, FORMATS)[0], conversionCommand(stage, FORMATS).slice(1), { env: environmentOf(stage), signal });
    const starts: ColdStart[] = [];
    for (const line of LINES) {
      await using slow = await SlowLine.start(stage.registry.host, line.megabytesPerSecond * 1e6, line.latencyMs);
      for (const way of ["pull", ...FORMATS] as const) {
        await slow.takeCounts();
        const start = performance.now();
        const place = `${slow.host}/${REPOSITORY}`;
        if (way === "pull") await pullAndRun(stage, `${place}:${IMAGE_TAG}`);
        else await mountAndRun(stage, `${place}:${way}`);
        const seconds = (performance.now() - start) / 1000;
        starts.push({ ...line, way, seconds, ...(await slow.takeCounts()) });
      }
    }
    return starts;
  });
}

async function pullAndRun({ work, signal }: Stage, source: string): Promise<void> {
  const [layout, bundle] = [join(work, "layout"), join(work, "bundle")];
  await run("skopeo", ["copy", "--insecure-policy", "--quiet", "--src-tls-verify=false", `docker://${source}`, `oci:${layout}:x`], {
    signal,
  });
  await run("umoci", ["unpack", "--image", `${layout}:x`, bundle], { signal });
  await run("chroot", [join(bundle, "rootfs"), ...PROGRAM], { signal });
  await Promise.all([layout, bundle].map(async (path) => await rm(path, { recursive: true })));
}

async function mountAndRun(stage: Stage, image: string): Promise<void> {
  const cache = join(stage.work, "cache");
  await rm(cache, { recursive: true, force: true });
  await mkdir(cache);
  await whileMounted(
    stage,
    image,
    cache,
    async (directory) => void (await run("chroot", [directory, ...PROGRAM], { signal: stage.signal })),
  );
}
