import type { Conversion, ConversionSource, ConversionStore, RepositoryName } from "../dedup/conversion-store.ts";
import { LazyError } from "../errors.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import { digestOf, type Digest } from "../oci/digest.ts";
import type { ImageStore } from "../oci/image-store.ts";
import type { MediaTypeFamily } from "../oci/media-types.ts";
import type { WantedLayer } from "./layer-identity.ts";
import type { LayerOptions } from "./layer-options.ts";
import { readLayer, unreadLayer } from "./stored-layer.ts";
import type { OutputLayer } from "./output-image.ts";

/** A layer that was converted before, and that is in the destination. */
export interface KnownLayer extends OutputLayer {
  readonly outcome: "reused" | "mounted";
}

/** What is known of an image's chain. */
export interface KnownChain {
  readonly layers: readonly (KnownLayer | undefined)[];
  /** Of the layers that are found, and under which those are to be remembered that are converted on top of them. */
  readonly fingerprint: string;
}

export interface KnownLayersOptions {
  readonly destination: ImageStore;
  readonly known: { readonly store: ConversionStore; readonly repository: RepositoryName } | undefined;
  readonly layerOptions: LayerOptions;
  readonly family: MediaTypeFamily;
  /**
   * `convert`: stale rows are removed, layers mounted, conversions remembered. `look`: nothing is written, and what another repository
   * is said to have is believed. `read`: nothing is written, and only what can be read counts.
   */
  readonly purpose: "convert" | "look" | "read";
  readonly warning: (message: string) => void;
}

/** Questions about one image's layers at a time. */
const AT_ONCE = 8;
/** Other repositories that a layer is looked for in. */
const MAX_ELSEWHERE = 4;

/**
 * Finds layers that need not be converted again. A row of the store is a hint: its blob must be in the destination, or be mounted
 * from another repository, and it must say of itself that it is the layer that is looked for.
 *
 * Rows with a fingerprint are of layers that any run with the same options makes bit by bit, so they may be combined at will. Rows
 * without one are of another tool's layers. These fit each other, but not ours, so they are only used as the lower part of a chain
 * without gaps; what is converted on top is remembered under a fingerprint that names them.
 */
export class KnownLayers {
  readonly #options: KnownLayersOptions;
  #store: ConversionStore | undefined;

  constructor(options: KnownLayersOptions) {
    this.#options = options;
    this.#store = options.known?.store;
  }

  /** `below` is what another image of the same run has of this chain's lower part; it counts as found. */
  async find(wanted: readonly WantedLayer[], below: KnownChain | undefined): Promise<KnownChain> {
    const fingerprint = below?.fingerprint ?? this.#options.layerOptions.fingerprint;
    const rows = await inBatches(wanted, async ({ key }, index) => (below?.layers[index] ? [] : await this.#rows(key)));
    const ours = await inBatches(rows, async (some, index) => await this.#firstGood(some, fingerprint, wanted, index));
    const layers = ours.map((found, index) => below?.layers[index] ?? found);
    if (below !== undefined || layers.some((layer) => layer !== undefined)) return { layers, fingerprint };
    return await this.#findForeign(wanted, rows);
  }

  async #findForeign(wanted: readonly WantedLayer[], rows: readonly (readonly Conversion[])[]): Promise<KnownChain> {
    const layers: (KnownLayer | undefined)[] = [];
    const { foreignFilesystem, fingerprint: own } = this.#options.layerOptions;
    if (foreignFilesystem === undefined) return { layers: rows.map(() => undefined), fingerprint: own };
    for (const [index, some] of rows.entries()) {
      const found = await this.#firstGood(some, undefined, wanted, index);
      if (found === undefined) break;
      layers.push(found);
    }
    const { layerOptions } = this.#options;
    if (layers.length === 0) return { layers: rows.map(() => undefined), fingerprint: own };
    const digests = layers.map((layer) => layer?.descriptor.digest).join(" ");
    const fingerprint = layerOptions.fingerprintOn(digestOf(Buffer.from(digests)));
    const above = await inBatches(rows, async (some, index) =>
      index < layers.length ? layers[index] : await this.#firstGood(some, fingerprint, wanted, index),
    );
    return { layers: above, fingerprint };
  }

  /** The first of the rows with the fingerprint whose blob is what it should be. */
  async #firstGood(
    rows: readonly Conversion[],
    fingerprint: string | undefined,
    wanted: readonly WantedLayer[],
    index: number,
  ): Promise<KnownLayer | undefined> {
    for (const row of rows) {
      if (row.fingerprint !== fingerprint) continue;
      const isHere = this.#isHere(row);
      const found = isHere ? await this.#verified(row, wanted, index) : await this.#mounted(row, wanted, index);
      if (found) return found;
    }
    return undefined;
  }

  #isHere({ repository }: Conversion): boolean {
    return repository === this.#options.known?.repository.repository;
  }

  async #verified(row: Conversion, wanted: readonly WantedLayer[], index: number): Promise<KnownLayer | undefined> {
    const { destination, warning } = this.#options;
    if (!(await destination.hasBlob(row.digest, row.size))) {
      await this.forget(row);
      return undefined;
    }
    const layer = await this.#ifWhatItShouldBe(row, wanted, index);
    if (layer) return { ...layer, outcome: "reused" };
    if (row.fingerprint === undefined) return undefined; // made with other options, which is no fault
    warning(`${destination.name}: blob ${row.digest} is not the layer that ${this.#store?.name ?? "the database"} takes it for`);
    await this.forget(row);
    return undefined;
  }

  async #mounted(row: Conversion, wanted: readonly WantedLayer[], index: number): Promise<KnownLayer | undefined> {
    const { destination, purpose, layerOptions, family } = this.#options;
    const { descriptor } = unreadLayer(row, wanted[index], undefined, { ...layerOptions, family });
    // Who only looks asks for no more than digest and size.
    if (purpose === "look") return { descriptor, diffId: row.digest, outcome: "mounted" };
    if (purpose === "read") return undefined;
    if (!(await destination.mountBlob(descriptor, row.repository))) return undefined;
    const layer = await this.#ifWhatItShouldBe(row, wanted, index);
    if (!layer) return undefined;
    if (row.fingerprint !== undefined) await this.remember(wanted[index], row.fingerprint, layer);
    return { ...layer, outcome: "mounted" };
  }

  async #ifWhatItShouldBe(row: Conversion, wanted: readonly WantedLayer[], index: number): Promise<OutputLayer | undefined> {
    const { destination, layerOptions, family } = this.#options;
    const foreign = row.fingerprint === undefined ? layerOptions.foreignFilesystem : undefined;
    return await readLayer(destination, row, wanted, index, { ...layerOptions, family }, foreign);
  }

  /** Not of a layer that refers to one which was compressed anew: the key names the one that the source has. */
  async remember({ key, source }: WantedLayer, fingerprint: string, { descriptor: { digest, size }, data }: OutputLayer): Promise<void> {
    if (data !== undefined && data.digest !== source.digest) return;
    await this.#insert({ kind: "layer", chainId: key }, fingerprint, digest, size);
  }

  async rememberManifest(source: Digest, fingerprint: string, { digest, size, mediaType }: Descriptor): Promise<void> {
    await this.#insert({ kind: "manifest", digest: source, mediaType }, fingerprint, digest, size);
  }

  /** What the store says that an image was converted to; for the caller to check. */
  async manifests(source: Digest, mediaType: string, fingerprint: string): Promise<Conversion[]> {
    const { known } = this.#options;
    const rows =
      known && (await this.#ask(async (store) => await store.find(known.repository, { kind: "manifest", digest: source, mediaType })));
    return (rows ?? []).filter((row) => row.fingerprint === fingerprint);
  }

  /** Removes a row that turned out to be wrong. */
  async forget(row: Conversion): Promise<void> {
    if (this.#options.purpose === "convert") await this.#ask(async (store) => await store.remove(row));
  }

  /** Rows of this repository first. */
  async #rows(chainId: Digest): Promise<readonly Conversion[]> {
    const { known } = this.#options;
    if (known === undefined) return [];
    const source: ConversionSource = { kind: "layer", chainId };
    const rows = await this.#ask(async (store) => [
      ...(await store.find(known.repository, source)),
      ...(await store.findElsewhere(known.repository, source)).slice(0, MAX_ELSEWHERE),
    ]);
    return rows ?? [];
  }

  async #insert(source: ConversionSource, fingerprint: string, digest: Digest, size: number): Promise<void> {
    const { known, purpose } = this.#options;
    if (known && purpose === "convert")
      await this.#ask(async (store) => await store.insert({ ...known.repository, source, digest, size, fingerprint }));
  }

  /** A store that fails is not asked again: it may cost time, but never the conversion. */
  async #ask<T>(question: (store: ConversionStore) => Promise<T>): Promise<T | undefined> {
    if (this.#store === undefined) return undefined;
    try {
      return await question(this.#store);
    } catch (error) {
      if (!(error instanceof LazyError)) throw error;
      if (this.#store !== undefined) this.#options.warning(`${error.message}; going on without the conversion database`);
      this.#store = undefined;
      return undefined;
    }
  }
}

async function inBatches<T, R>(items: readonly T[], work: (item: T, index: number) => Promise<R>): Promise<R[]> {
  const results: R[] = [];
  for (let first = 0; first < items.length; first += AT_ONCE) {
    results.push(...(await Promise.all(items.slice(first, first + AT_ONCE).map(async (item, at) => await work(item, first + at)))));
  }
  return results;
}
