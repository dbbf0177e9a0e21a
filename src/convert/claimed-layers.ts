import type { Digest } from "../oci/digest.ts";
import type { KnownChain, KnownLayer } from "./known-layers.ts";

interface Stored {
  readonly layer: KnownLayer;
  readonly fingerprint: string;
}

/** The layers that one image of a run converts, while others wait for those that they share with it. */
export interface Claim {
  /** What other images have of the lower part of the chain, once that is stored; undefined if they have nothing. */
  below(): Promise<KnownChain | undefined>;
  /** A layer is in the destination. */
  stored(index: number, layer: KnownLayer, fingerprint: string): void;
  /** No more layers will be stored; who waits for one converts it. */
  release(): void;
}

/** Which images of a run convert which layers, so that a layer that several images have is converted once. */
export class ClaimedLayers {
  readonly #layers = new Map<Digest, Promise<Stored | undefined>>();

  /**
   * Claims whatever of the chain nobody has claimed before. Images that wait for others have claimed later than those, so no two
   * can wait for each other.
   */
  claim(chain: readonly Digest[]): Claim {
    const others = chain.map((chainId) => this.#layers.get(chainId));
    const own = new Map<number, (stored: Stored | undefined) => void>();
    for (const [index, chainId] of chain.entries()) {
      if (others[index]) continue;
      const { promise, resolve } = Promise.withResolvers<Stored | undefined>();
      this.#layers.set(chainId, promise);
      own.set(index, resolve);
    }
    return {
      below: async () => lowerPart(await Promise.all(others.map(async (other) => await other))),
      stored: (index, layer, fingerprint) => own.get(index)?.({ layer, fingerprint }),
      release: () => own.forEach((resolve) => resolve(undefined)),
    };
  }
}

/** As far as it goes without gaps, and is made with the same options. */
function lowerPart(stored: readonly (Stored | undefined)[]): KnownChain | undefined {
  const fingerprint = stored[0]?.fingerprint;
  if (fingerprint === undefined) return undefined;
  const end = stored.findIndex((each) => each?.fingerprint !== fingerprint);
  const layers = stored.map((each, index) => (end < 0 || index < end ? each?.layer : undefined));
  return { layers, fingerprint };
}
