import { TARGET_LAYERS } from "../formats/trace/layout.ts";
import type { Device } from "./device.ts";

/** How traces name the files of a device's layers: a layer's own file by its index, its target by `TARGET_LAYERS` more. */
export class PrefetchLayers {
  readonly #fileOf = new Map<number, number>();
  readonly #layerOf: number[] = [];

  constructor({ layers }: Pick<Device, "layers">) {
    for (const [index, { files }] of layers.entries()) {
      for (const position of files.keys()) {
        const layer = index + position * TARGET_LAYERS;
        this.#fileOf.set(layer, this.#layerOf.length);
        this.#layerOf.push(layer);
      }
    }
  }

  /** The device's file that a trace's layer means; undefined for one that the device does not have. */
  fileOf(layer: number): number | undefined {
    return this.#fileOf.get(layer);
  }

  layerOf(file: number): number {
    return this.#layerOf[file];
  }
}
