import type { Segments } from "./segment-table.ts";

/** A growing list of mappings in typed arrays, in any order. */
export class MappingList implements Segments {
  #count = 0;
  #firstSector = new Float64Array(64);
  #sectors = new Float64Array(64);
  #mappedSector = new Float64Array(64);
  #zeroed = new Uint8Array(64);
  #tag = new Uint16Array(64);

  get count(): number {
    return this.#count;
  }
  get firstSector(): Float64Array {
    return this.#firstSector;
  }
  get sectors(): Float64Array {
    return this.#sectors;
  }
  get mappedSector(): Float64Array {
    return this.#mappedSector;
  }
  get zeroed(): Uint8Array {
    return this.#zeroed;
  }
  get tag(): Uint16Array {
    return this.#tag;
  }

  /**
   * Adds: the device's sectors from `firstSector` are found from `mappedSector` of the layer's file on.
   * A zeroed mapping reads as zeros and hides the layers below; its `mappedSector` means nothing. `tag` selects the file where a
   * layer has several.
   */
  add(firstSector: number, sectors: number, mappedSector: number, zeroed = false, tag = 0): void {
    if (this.#count === this.#tag.length) this.#grow();
    const at = this.#count++;
    this.#firstSector[at] = firstSector;
    this.#sectors[at] = sectors;
    this.#mappedSector[at] = mappedSector;
    this.#zeroed[at] = zeroed ? 1 : 0;
    this.#tag[at] = tag;
  }

  /** Takes away all but the first `count`. */
  cut(count: number): void {
    this.#count = Math.min(count, this.#count);
  }

  #grow(): void {
    const capacity = this.#count * 2;
    this.#firstSector = grown(this.#firstSector, new Float64Array(capacity));
    this.#sectors = grown(this.#sectors, new Float64Array(capacity));
    this.#mappedSector = grown(this.#mappedSector, new Float64Array(capacity));
    this.#zeroed = grown(this.#zeroed, new Uint8Array(capacity));
    this.#tag = grown(this.#tag, new Uint16Array(capacity));
  }
}

function grown<A extends Float64Array | Uint16Array | Uint8Array>(from: A, to: A): A {
  to.set(from);
  return to;
}
