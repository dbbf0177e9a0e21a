import { chainIds } from "../oci/chain-id.ts";
import type { Digest } from "../oci/digest.ts";
import type { ImageStore, ResolveTarget } from "../oci/image-store.ts";
import type { ConversionPlan, ConvertOptions, ImagePlan, LayerPlan } from "./convert-options.ts";
import { checkLayers } from "./convert-layers.ts";
import { imagesOf, readImageGraph, type ImageNode } from "./image-graph.ts";
import { knownManifest } from "./known-manifest.ts";
import { KnownLayers } from "./known-layers.ts";
import { layerOptions } from "./layer-options.ts";
