import { digestOf, type Digest } from "./digest.ts";

/**
 * The chain ID of each layer: it names the layer together with all below it.
 * The first is its diff ID; each further one is the digest of `<chain ID below> <diff ID>` (OCI image specification, config.md).
 */
export function chainIds(diffIds: readonly Digest[]): Digest[] {
  const chain: Digest[] = [];
  for (const diffId of diffIds) {
    const below = chain.at(-1);
    chain.push(below === undefined ? diffId : digestOf(Buffer.from(`${below} ${diffId}`)));
  }
  return chain;
}
