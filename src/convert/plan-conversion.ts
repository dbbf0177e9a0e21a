import type { Digest } from "../oci/digest.ts";
import type { ImageStore, ResolveTarget } from "../oci/image-store.ts";
import { checkLayers } from "./convert-layers.ts";
import type { ConversionPlan, ConvertOptions, ConvertTarget, ImagePlan, LayerPlan } from "./convert-options.ts";
import type { ImageFormat } from "./image-format.ts";
import { imagesOf, readImageGraph, type GraphNode, type ImageNode } from "./image-graph.ts";
import { KnownLayers } from "./known-layers.ts";
import { findKnownManifest } from "./known-manifest.ts";
import { wantedLayers } from "./layer-identity.ts";
import { layerOptionsOf, type LayerOptions } from "./layer-options.ts";

/** Says what a conversion with these options would do, from documents and what is known. Writes nothing anywhere. */
export async function planConversion(
  source: ImageStore,
  from: ResolveTarget,
  targets: readonly ConvertTarget[],
  options: ConvertOptions,
): Promise<ConversionPlan[]> {
  const graph = await readImageGraph(source, await source.resolve(from), options);
  const layers = await layerOptionsOf(targets, options);
  const plans: ConversionPlan[] = [];
  for (const [index, target] of targets.entries()) plans.push(await planTarget(graph, target, layers[index], options));
  return plans;
}

async function planTarget(graph: GraphNode, target: ConvertTarget, layers: LayerOptions, options: ConvertOptions): Promise<ConversionPlan> {
  const { destination, known, format } = target;
  const { family, observer, signal } = options;
  const warning = (message: string): void => observer.warning?.(message);
  const knownLayers = new KnownLayers({ destination, known, layerOptions: layers, family, purpose: "look", warning });
  const planned = new Set<Digest>();
  const images: ImagePlan[] = [];
  for (const node of imagesOf(graph)) {
    signal.throwIfAborted();
    const { descriptor } = node;
    const { platform } = descriptor;
    if (node.kind === "kept") {
      images.push({ source: descriptor, platform, outcome: "copy", layers: [] });
    } else if (await findKnownManifest(node, target, knownLayers, layers, options)) {
      images.push({ source: descriptor, platform, outcome: "reuse", layers: [] });
    } else {
      images.push({ source: descriptor, platform, outcome: "convert", layers: await planLayers(node, format, knownLayers, planned) });
    }
  }
  return { format, images };
}

/** `planned` are the layers that images before this one convert. */
async function planLayers(node: ImageNode, format: ImageFormat, known: KnownLayers, planned: Set<Digest>): Promise<LayerPlan[]> {
  checkLayers(node);
  const wanted = wantedLayers(format, node);
  const { layers } = await known.find(wanted, undefined);
  return wanted.map(({ source, key }, index) => {
    const found = layers[index];
    if (found) return { source, converted: found.descriptor, outcome: found.outcome === "mounted" ? "mount" : "reuse" };
    const outcome = planned.has(key) ? "reuse" : "convert";
    planned.add(key);
    return { source, outcome };
  });
}
