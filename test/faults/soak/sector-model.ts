import assert from "node:assert/strict";

export const SECTOR_BYTES = 512;
const WORDS = SECTOR_BYTES / 4;

/** The content of a sector that was written as a version: 0 is zeros, odd ones do not compress, even ones do. */
function fillSector(words: Uint32Array, version: number, sector: number): void {
  if (version === 0) return void words.fill(0);
  if (version % 2 === 0) words.fill(Math.imul(version, 0x9e37_79b1) ^ sector);
  else {
    let state = (Math.imul(version, 0x9e37_79b1) ^ Math.imul(sector + 1, 0x85eb_ca6b)) >>> 0 || 1;
    for (let i = 0; i < WORDS; i++) {
      state ^= state << 13;
      state ^= state >>> 17;
      state ^= state << 5;
      words[i] = state;
    }
  }
  words[0] = version;
  words[1] = sector;
}

/** Neighbouring sectors as they are after they were written as one version. */
export function sectorBytes(version: number, first: number, count: number): Buffer {
  const words = new Uint32Array(count * WORDS);
  for (let i = 0; i < count; i++) fillSector(words.subarray(i * WORDS, (i + 1) * WORDS), version, first + i);
  return Buffer.from(words.buffer);
}

/** Neighbouring sectors. */
export interface Range {
  readonly first: number;
  readonly count: number;
}

/**
 * What each sector of a device may hold. Reads show what was written last. When the device's process is killed, what it has acknowledged
 * stays: a sector has that, or anything that was written to it since and is only in the kernel's memory of the device, which is settled
 * by looking once. A write or a flush that failed leaves it open until then.
 */
export class SectorModel {
  readonly #now: Uint32Array;
  /** Of sectors that were changed and not kept, or are unsure: whatever they may hold when the process was killed. */
  readonly #possible = new Map<number, Set<number>>();
  readonly #unsure = new Set<number>();
  readonly #scratch = new Uint32Array(WORDS);

  constructor(now: Uint32Array) {
    this.#now = now;
  }

  get sectors(): number {
    return this.#now.length;
  }

  /** A range is about to be written as a version. */
  begin({ first, count }: Range, version: number): void {
    for (let sector = first; sector < first + count; sector++) {
      const possible = this.#possible.get(sector) ?? new Set([this.#now[sector]]);
      this.#possible.set(sector, possible.add(version));
      this.#unsure.add(sector);
    }
  }

  /** The writing was acknowledged; `isKept`: by the device's process, not by the kernel for it. */
  done({ first, count }: Range, version: number, isKept: boolean): void {
    this.#now.fill(version, first, first + count);
    for (let sector = first; sector < first + count; sector++) {
      this.#unsure.delete(sector);
      if (isKept) this.#possible.delete(sector);
    }
  }

  /** A flush was acknowledged that began after all writes had ended. */
  flushed(): void {
    for (const sector of this.#possible.keys()) if (!this.#unsure.has(sector)) this.#possible.delete(sector);
  }

  /** The process was killed: what was neither flushed nor kept may be lost. */
  killed(): void {
    for (const sector of this.#possible.keys()) this.#unsure.add(sector);
  }

  /** The device was closed in good order: what was acknowledged is there. */
  closed(): void {
    this.flushed();
  }

  /** Sectors that have to be looked at before anything is known of them, as ranges of at most `most`. */
  unsettled(most: number): Range[] {
    const ranges: { first: number; count: number }[] = [];
    for (const sector of [...this.#unsure].sort((a, b) => a - b)) {
      const last = ranges.at(-1);
      if (last !== undefined && last.first + last.count === sector && last.count < most) last.count++;
      else ranges.push({ first: sector, count: 1 });
    }
    return ranges;
  }

  /** Throws unless the sectors that were read hold what they may. */
  check(first: number, bytes: Uint8Array, where: string): void {
    this.#forEach(first, bytes, where, () => {});
  }

  /** The same, of a device that was opened anew: from now on they hold what they do. */
  settle(first: number, bytes: Uint8Array, where: string): void {
    this.#forEach(first, bytes, where, (sector, version) => {
      this.#now[sector] = version;
      this.#possible.delete(sector);
      this.#unsure.delete(sector);
    });
  }

  #forEach(first: number, bytes: Uint8Array, where: string, found: (sector: number, version: number) => void): void {
    assert.equal(bytes.length % SECTOR_BYTES, 0, where);
    // Words of a copy: what was read may begin anywhere in memory.
    const words = new Uint32Array(new Uint8Array(bytes).buffer);
    for (let i = 0; i < words.length / WORDS; i++) {
      const sector = first + i;
      const content = words.subarray(i * WORDS, (i + 1) * WORDS);
      const allowed = this.#unsure.has(sector) ? this.#possible.get(sector)! : [this.#now[sector]];
      const version = [...allowed].find((candidate) => this.#holds(content, candidate, sector));
      if (version === undefined) {
        const head = [...content.subarray(0, 4)].map((word) => word.toString(16));
        const possible = [...(this.#possible.get(sector) ?? [])].join();
        assert.fail(
          `${where}: sector ${sector} begins with ${head.join(" ")}, as version ${content[0]} of sector ${content[1]}; ` +
            `expected version ${[...allowed].join(" or ")}${possible === "" ? "" : ` (once it was killed ${possible})`}`,
        );
      }
      found(sector, version);
    }
  }

  #holds(content: Uint32Array, version: number, sector: number): boolean {
    fillSector(this.#scratch, version, sector);
    return Buffer.compare(Buffer.from(content.buffer, content.byteOffset, SECTOR_BYTES), Buffer.from(this.#scratch.buffer)) === 0;
  }
}
