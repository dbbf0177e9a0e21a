import { join } from "node:path";
import { z } from "zod";
import { run } from "../../test/support/command.ts";
import type { MadeImage } from "../images/bench-images.ts";
import { measure, measureFloor } from "../measure/measured.ts";
import { conversionCommand, environmentOf, FORMATS, onStage, REPOSITORY, type Format } from "./places.ts";

const floorOutput = z.object({ seconds: z.number(), content: z.int() });
const manifest = z.object({ layers: z.array(z.object({ size: z.int() })) });

export interface ConversionFigures {
  readonly image: string;
  readonly storedBytes: number;
  readonly tarBytes: number;
  /** Seconds of one thread: our inflate kernel alone; C zlib and one SHA-256. */
  readonly kernelSeconds: number;
  readonly floorSeconds: number;
  /** Wall and processor time of a conversion to turboOCI within a repository, and to both forms at once. */
  readonly turbo: { readonly wall: number; readonly cpu: number; readonly rss: number; readonly bytes: number };
  readonly both: { readonly wall: number; readonly cpu: number; readonly rss: number };
}

/** What a conversion to turboOCI takes beside inflating alone, once. */
export async function measureConversion(image: MadeImage, work: string, signal: AbortSignal): Promise<ConversionFigures> {
  const layers = image.layers.map((layer) => layer.path);
  const floor = await measureFloor(layers, { signal });
  const script = join(import.meta.dirname, "inflate-floor.ts");
  const kernel = floorOutput.parse(JSON.parse(await run(process.execPath, [script, ...layers], { signal })));
  const convert = async (formats: readonly Format[]): Promise<ConversionFigures["turbo"]> =>
    await onStage(image, work, signal, async (stage) => {
      const usage = await measure(conversionCommand(stage, formats), work, { env: environmentOf(stage), signal });
      const accept = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json";
      const answer = await fetch(`http://${stage.registry.host}/v2/${REPOSITORY}/manifests/turbo`, { headers: { accept } });
      const bytes = manifest.parse(await answer.json()).layers.reduce((sum, { size }) => sum + size, 0);
      return { ...usage, bytes };
    });
  const turbo = await convert(["turbo"]);
  const both = await convert(FORMATS);
  return {
    image: image.name,
    storedBytes: image.layers.reduce((sum, { size }) => sum + size, 0),
    tarBytes: floor.tarBytes,
    kernelSeconds: kernel.seconds,
    floorSeconds: floor.wall,
    turbo,
    both,
  };
}
