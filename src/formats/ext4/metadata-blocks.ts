import { PackedBlocks } from "./packed-blocks.ts";

/** Blocks that are kept as they are; beyond them the older half is packed. */
const MAX_PLAIN_BLOCKS = 4096; // 16 MiB
/** Blocks that `peek` makes room for at a time. */
const PEEKED_BLOCKS = 16;

/**
 * The filesystem's metadata in memory, block by block; what was changed since it was last taken is dirty.
 * Blocks that have not been used for a while are kept compressed: inode tables shrink to about a tenth. That happens in
 * `pack` alone, so a block that `get` or `change` gave stays good until then.
 */
export class MetadataBlocks {
  readonly #blockBytes: number;
  /** In the order in which they were made or unpacked. */
  readonly #plain = new Map<number, Buffer>();
  readonly #packed: PackedBlocks;
  readonly #dirty = new Set<number>();
  /** Buffers of blocks that were packed, for blocks to come. */
  readonly #spare: Buffer[] = [];
  /** The block that was asked for last: entries of a layer come in the order of the inode table. */
  #lastBlock = -1;
  #last: Buffer = Buffer.alloc(0);
  #lastChanged = -1;
  #peeked = Buffer.alloc(0);

  constructor(blockBytes: number) {
    this.#blockBytes = blockBytes;
    this.#packed = new PackedBlocks(blockBytes);
  }

  /** A block to read. Blocks that were never seen are zeros, as on a fresh device. */
  get(block: number): Buffer {
    if (block === this.#lastBlock) return this.#last;
    this.#last = this.#plain.get(block) ?? this.#unpack(block);
    this.#lastBlock = block;
    return this.#last;
  }

  #unpack(block: number): Buffer {
    const bytes = this.#spare.pop() ?? Buffer.allocUnsafeSlow(this.#blockBytes);
    this.#packed.read(block, bytes);
    this.#packed.delete(block);
    this.#plain.set(block, bytes);
    return bytes;
  }

  /** A block's content, without keeping it unpacked. */
  peek(block: number): Buffer {
    const known = this.#plain.get(block);
    if (known) return known;
    if (this.#peeked.length === 0) this.#peeked = Buffer.allocUnsafeSlow(this.#blockBytes * PEEKED_BLOCKS);
    const bytes = this.#peeked.subarray(0, this.#blockBytes);
    this.#peeked = this.#peeked.subarray(this.#blockBytes);
    this.#packed.read(block, bytes);
    return bytes;
  }

  /** A block to change in place. */
  change(block: number): Buffer {
    if (block !== this.#lastChanged) {
      this.#dirty.add(block);
      this.#lastChanged = block;
    }
    return this.get(block);
  }

  /** Takes over a block's present content from the device. */
  load(block: number, bytes: Uint8Array): void {
    this.#put(block, bytes);
    this.pack();
  }

  /** Writes a part of a block; it becomes dirty only where bytes differ. */
  write(block: number, bytes: Uint8Array, offset = 0): void {
    if (!equalAt(this.get(block), bytes, offset)) this.change(block).set(bytes, offset);
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
    this.#forgetLast();
  }

  /** The numbers of all dirty blocks, ascending; they are clean afterwards. */
  takeDirty(): number[] {
    const blocks = Float64Array.from(this.#dirty).sort();
    this.#dirty.clear();
    this.#lastChanged = -1;
    return [...blocks];
  }

  /** Packs the older half of the plain blocks, once there are many. Nobody may hold one of them across this call. */
  pack(): void {
    if (this.#plain.size <= MAX_PLAIN_BLOCKS) return;
    this.#forgetLast();
    let left = MAX_PLAIN_BLOCKS / 2;
    for (const [block, bytes] of this.#plain) {
      if (left-- === 0) return;
      this.#packed.add(block, bytes);
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

  #forgetLast(): void {
    this.#lastBlock = -1;
    this.#lastChanged = -1;
  }
}

/** Inodes that are new differ within their first bytes, so that a loop ends sooner than a call begins. */
function equalAt(block: Uint8Array, bytes: Uint8Array, offset: number): boolean {
  for (let at = 0; at < bytes.length; at++) if (block[offset + at] !== bytes[at]) return false;
  return true;
}
