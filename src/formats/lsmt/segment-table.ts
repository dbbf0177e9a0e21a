/** Mappings in columns; entry `i` is the `i`-th value of each. */
export interface Segments {
  readonly count: number;
  /** First sector on the device. */
  readonly firstSector: Float64Array;
  readonly sectors: Float64Array | Uint32Array;
  /** First sector in the file. */
  readonly mappedSector: Float64Array;
  /** 1 where the segment reads as zeros. */
  readonly zeroed: Uint8Array;
  /** Which file the segment's data is in: of its layer, or of all layers once they are merged. */
  readonly tag: Uint16Array;
}

const BYTES_PER_SEGMENT = 8 + 8 + 4 + 2 + 1;

/**
 * Mappings sorted by their place on the device, without overlaps, packed into one shared buffer: a worker that is given
 * `shared` and `count` makes a table of its own over the same memory.
 */
export class SegmentTable implements Segments {
  readonly shared: SharedArrayBuffer;
  readonly count: number;
  readonly firstSector: Float64Array;
  readonly mappedSector: Float64Array;
  readonly sectors: Uint32Array;
  readonly tag: Uint16Array;
  readonly zeroed: Uint8Array;

  constructor(shared: SharedArrayBuffer, count: number) {
    this.shared = shared;
    this.count = count;
    this.firstSector = new Float64Array(shared, 0, count);
    this.mappedSector = new Float64Array(shared, count * 8, count);
    this.sectors = new Uint32Array(shared, count * 16, count);
    this.tag = new Uint16Array(shared, count * 20, count);
    this.zeroed = new Uint8Array(shared, count * 22, count);
  }

  /** A table of mappings that are sorted and do not overlap. */
  static from(segments: Segments): SegmentTable {
    const { count } = segments;
    const table = new SegmentTable(new SharedArrayBuffer(count * BYTES_PER_SEGMENT), count);
    table.firstSector.set(segments.firstSector.subarray(0, count));
    table.mappedSector.set(segments.mappedSector.subarray(0, count));
    table.sectors.set(segments.sectors.subarray(0, count));
    table.zeroed.set(segments.zeroed.subarray(0, count));
    table.tag.set(segments.tag.subarray(0, count));
    return table;
  }

  /** The first segment that ends behind `sector`: it holds the sector, or the sector is in a hole before it. `count` if there is none. */
  find(sector: number): number {
    let low = 0;
    let high = this.count;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.firstSector[middle] + this.sectors[middle] > sector) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  /**
   * Visits `[firstSector, endSector)` from front to back without gaps: pieces of segments, and holes between them with tag
   * `HOLE`. `mappedSector` is where the piece's data begins, `ZEROS` where it reads as zeros.
   */
  forRange(
    firstSector: number,
    endSector: number,
    visit: (firstSector: number, sectors: number, mappedSector: number, tag: number) => void,
  ): void {
    let at = firstSector;
    for (let i = this.find(firstSector); at < endSector; i++) {
      const start = i < this.count ? Math.min(this.firstSector[i], endSector) : endSector;
      if (start > at) {
        visit(at, start - at, ZEROS, HOLE);
        at = start;
      }
      if (at >= endSector) return;
      const end = Math.min(this.firstSector[i] + this.sectors[i], endSector);
      visit(at, end - at, this.zeroed[i] ? ZEROS : this.mappedSector[i] + at - this.firstSector[i], this.tag[i]);
      at = end;
    }
  }
}

/** The tag of what no segment maps. */
export const HOLE = -1;
/** The mapped sector of what reads as zeros. */
export const ZEROS = -1;
