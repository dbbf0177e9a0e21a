import type { Descriptor } from "../oci/descriptor.ts";
import type { ConvertedLayer, FinishedPasses, LayerWriter, LayerWriterOptions } from "./layer-writer.ts";

export class TurboLayerWriter implements LayerWriter {
  readonly needsIndex = true;
  readonly #options: LayerWriterOptions & { readonly source: Descriptor };
  constructor(options: LayerWriterOptions & { readonly source: Descriptor }) {
    this.#options = options;
  }
  async finish(_passes: FinishedPasses): Promise<ConvertedLayer> {
    throw new Error(`stub ${this.#options.uuid}`);
  }
}
