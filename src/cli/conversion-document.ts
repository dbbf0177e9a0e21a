import type { ConvertResult, LayerResult } from "../convert/convert-options.ts";
import { formatPlatform, type Platform } from "../oci/platform.ts";
import type { ByteCounts } from "./progress/conversion-tally.ts";

export interface ConversionFigures {
  /** What the result is called now. */
  readonly reference: string;
  readonly bytes: Readonly<ByteCounts>;
  readonly seconds: number;
}

/** What `--output json` prints. Names and shapes are a promise, see docs/cli.md: add to them, change none. */
export function conversionDocument({ format, descriptor, images }: ConvertResult, { reference, bytes, seconds }: ConversionFigures) {
  const { digest, mediaType, size } = descriptor;
  return {
    digest,
    mediaType,
    size,
    reference,
    format,
    images: images.map(({ source, converted, platform, outcome, layers }) => ({
      platform: platformName(platform),
      source: source.digest,
      digest: converted.digest,
      outcome,
      layers: layers.map(layerDocument),
    })),
    bytes: { ...bytes },
    seconds: Math.round(seconds * 1000) / 1000,
  };
}

function layerDocument({ source, converted, outcome }: LayerResult) {
  return { source: source.digest, digest: converted.digest, size: converted.size, outcome };
}

/** Null for images that no index says it of. */
export function platformName(platform: Platform | undefined): string | null {
  return platform === undefined ? null : formatPlatform(platform);
}
