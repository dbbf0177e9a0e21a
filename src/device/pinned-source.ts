import { checkRange, type ByteSource } from "../bytes/source.ts";

/** A source of which some ranges are kept in memory, so that many small reads of them cost one read each. */
export class PinnedSource implements ByteSource {
  readonly name: string;
  readonly size: number;
  readonly #source: ByteSource;
  #pins: { readonly offset: number; readonly bytes: Uint8Array }[] = [];

  constructor(source: ByteSource) {
    this.name = source.name;
    this.size = source.size;
    this.#source = source;
  }

  async pin(offset: number, length: number): Promise<void> {
    this.#pins.push({ offset, bytes: await this.#source.read(offset, length) });
  }

  /** Frees the memory; reads go to the source again. */
  unpin(): void {
    this.#pins = [];
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    checkRange(this, offset, length);
    const pin = this.#pins.find((each) => each.offset <= offset && offset + length <= each.offset + each.bytes.length);
    if (pin === undefined) return await this.#source.read(offset, length);
    return pin.bytes.slice(offset - pin.offset, offset - pin.offset + length);
  }

  distrust(): void {
    this.unpin();
    this.#source.distrust?.();
  }

  async close(): Promise<void> {
    this.unpin();
    await this.#source.close();
  }
}
