import { chainIds } from "../oci/chain-id.ts";
import type { Digest } from "../oci/digest.ts";
import type { ImageStore, ResolveTarget } from "../oci/image-store.ts";
import { checkLayers } from "./convert-layers.ts";
import type { ConversionPlan, ConvertOptions, ImagePlan, LayerPlan } from "./convert-options.ts";
import { imagesOf, readImageGraph, type ImageNode } from "./image-graph.ts";
import { KnownLayers } from "./known-layers.ts";
import { findKnownManifest } from "./known-manifest.ts";
import { layerOptions } from "./layer-options.ts";

/** Says what a conversion with these options would do, from documents and what is known. Writes nothing anywhere. */
export async function planConversion(
  source: ImageStore,
  from: ResolveTarget,
  destination: ImageStore,
  options: ConvertOptions,
): Promise<ConversionPlan> {
  const graph = await readImageGraph(source, await source.resolve(from), options);
  const layers = await layerOptions(options.virtualSize, options.base);
  const { known, family, observer, signal } = options;
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
    } else if (await findKnownManifest(node, destination, knownLayers, layers, options)) {
      images.push({ source: descriptor, platform, outcome: "reuse", layers: [] });
    } else {
      images.push({ source: descriptor, platform, outcome: "convert", layers: await planLayers(node, knownLayers, planned) });
    }
  }
  return { images };
}

/** `planned` are the layers that images before this one convert. */
async function planLayers(node: ImageNode, known: KnownLayers, planned: Set<Digest>): Promise<LayerPlan[]> {
  checkLayers(node);
  const chain = chainIds(node.config.rootfs.diff_ids);
  const { layers } = await known.find(chain, undefined);
  return chain.map((chainId, index) => {
    const source = node.manifest.layers[index];
    const found = layers[index];
    if (found) return { source, converted: found.descriptor, outcome: found.outcome === "mounted" ? "mount" : "reuse" };
    const outcome = planned.has(chainId) ? "reuse" : "convert";
    planned.add(chainId);
    return { source, outcome };
  });
}
