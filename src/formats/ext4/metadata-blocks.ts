import { lz4Bound, lz4Compress, lz4Decompress } from "../../compression/lz4.ts";

/** Blocks that are kept as they are; beyond them the older half is packed. */
const MAX_PLAIN_BLOCKS = 4096; // 16 MiB

/**
 * The filesystem's metadata in memory, block by block; what was changed since it was last taken is dirty.
 * Blocks that have not been used for a while are kept compressed: inode tables shrink to about a tenth. That happens in
 * `pack` alone, so a block that `get` or `change` gave stays good until then.
 */
export class MetadataBlocks {
  readonly #blockBytes: number;
  /** In the order in which they were made or unpacked. */
  readonly #plain = new Map<number, Buffer>();
  readonly #packed = new Map<number, Uint8Array>();
  readonly #dirty = new Set<number>();
  /** Buffers of blocks that were packed, for blocks to come. */
  readonly #spare: Buffer[] = [];
  readonly #scratch: Buffer;

  constructor(blockBytes: number) {
    this.#blockBytes = blockBytes;
    this.#scratch = Buffer.alloc(lz4Bound(blockBytes));
  }

  /** A block to read. Blocks that were never seen are zeros, as on a fresh device. */
  get(block: number): Buffer {
    const known = this.#plain.get(block);
    if (known) return known;
    const bytes = this.#spare.pop() ?? Buffer.allocUnsafeSlow(this.#blockBytes);
    this.#unpack(block, bytes);
    this.#packed.delete(block);
    this.#plain.set(block, bytes);
    return bytes;
  }

  /** A block's content, without keeping it unpacked. */
  peek(block: number): Buffer {
    const known = this.#plain.get(block);
    if (known) return known;
    const bytes = Buffer.allocUnsafeSlow(this.#blockBytes);
    this.#unpack(block, bytes);
    return bytes;
  }

  /** A block to change in place. */
  change(block: number): Buffer {
    this.#dirty.add(block);
    return this.get(block);
  }

  /** Takes over a block's present content from the device. */
  load(block: number, bytes: Uint8Array): void {
    this.#put(block, bytes);
    this.pack();
  }

  /** Writes a part of a block; it becomes dirty only where bytes differ. */
  write(block: number, bytes: Uint8Array, offset = 0): void {
    if (Buffer.compare(this.get(block).subarray(offset, offset + bytes.length), bytes) !== 0) this.change(block).set(bytes, offset);
  }

  /** Writes a whole block that has no earlier content worth comparing. */
  create(block: number, bytes: Uint8Array): void {
    this.#put(block, bytes);
    this.#dirty.add(block);
  }

  /** Forgets a block that was freed. */
  drop(block: number): void {
    this.#plain.delete(block);
    this.#packed.delete(block);
    this.#dirty.delete(block);
  }

  /** The numbers of all dirty blocks, ascending; they are clean afterwards. */
  takeDirty(): number[] {
    const blocks = [...this.#dirty].toSorted((a, b) => a - b);
    this.#dirty.clear();
    return blocks;
  }

  /** Packs the older half of the plain blocks, once there are many. Nobody may hold one of them across this call. */
  pack(): void {
    if (this.#plain.size <= MAX_PLAIN_BLOCKS) return;
    let left = MAX_PLAIN_BLOCKS / 2;
    for (const [block, bytes] of this.#plain) {
      if (left-- === 0) return;
      this.#packed.set(block, this.#packedForm(bytes));
      this.#plain.delete(block);
      this.#spare.push(bytes);
    }
  }

  #put(block: number, bytes: Uint8Array): void {
    this.#packed.delete(block);
    const plain = this.#plain.get(block) ?? this.#spare.pop() ?? Buffer.allocUnsafeSlow(this.#blockBytes);
    plain.set(bytes);
    this.#plain.set(block, plain);
  }

  #packedForm(bytes: Buffer): Uint8Array {
    const end = lz4Compress(viewOf(bytes), 0, bytes.length, viewOf(this.#scratch), 0);
    return Uint8Array.from(this.#scratch.subarray(0, end));
  }

  #unpack(block: number, bytes: Buffer): void {
    const packed = this.#packed.get(block);
    if (packed) lz4Decompress(viewOf(packed), 0, packed.length, viewOf(bytes), 0, bytes.length);
    else bytes.fill(0);
  }
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
