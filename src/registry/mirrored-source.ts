import type { ByteSource } from "../bytes/source.ts";
import { corrupt, LazyError } from "../errors.ts";
import type { ImageStore } from "../oci/image-store.ts";
import type { MirrorTurns } from "./mirror-turns.ts";
import { Setbacks } from "./setbacks.ts";

/** A blob in one of its places. */
export interface PlacedBlob {
  readonly store: ImageStore;
  readonly source: ByteSource;
}

/** Range reads of a blob that mirrors may have, and the registry has: each read asks whoever is not left out at the time. */
export class MirroredSource implements ByteSource {
  readonly name: string;
  readonly size: number;
  readonly #turns: MirrorTurns;
  readonly #mirrors: readonly PlacedBlob[];
  readonly #server: PlacedBlob;
  /** Mirrors without the blob; they may get it. */
  readonly #lacking = new Setbacks<ImageStore>();
  /** Gave the last bytes. */
  #last: PlacedBlob;

  constructor(turns: MirrorTurns, mirrors: readonly PlacedBlob[], server: PlacedBlob) {
    this.name = server.source.name;
    this.size = server.source.size;
    this.#turns = turns;
    this.#mirrors = mirrors;
    this.#server = server;
    this.#last = server;
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    return await this.#turns.ask(this.#having(), this.#server, async (place) => await this.#readFrom(place, offset, length));
  }

  distrust(): void {
    const { store, source } = this.#last;
    source.distrust?.();
    if (store !== this.#server.store) this.#turns.giveUp(store, corrupt(`gave wrong bytes of ${this.name}`));
  }

  async close(): Promise<void> {
    for (const { source } of [...this.#mirrors, this.#server]) await source.close();
  }

  *#having(): Generator<PlacedBlob> {
    for (const mirror of this.#mirrors) if (this.#lacking.admits(mirror.store)) yield mirror;
  }

  async #readFrom(place: PlacedBlob, offset: number, length: number): Promise<Uint8Array> {
    try {
      const bytes = await place.source.read(offset, length);
      this.#lacking.succeeded(place.store);
      this.#last = place;
      return bytes;
    } catch (error) {
      if (error instanceof LazyError && error.code === "NOT_FOUND") this.#lacking.failed(place.store);
      throw error;
    }
  }
}
