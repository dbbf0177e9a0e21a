const MAGIC = 0x8b1f;
const DEFLATE = 8;
const RESERVED_FLAGS = 0xe0;
const POLYNOMIAL = 0xedb88320;

/** A header's parts in their order, the flag that says whether they are there, and their bytes; -1: up to a zero byte. */
const PARTS = [
  { name: "magic", flag: 0, bytes: 2 },
  { name: "method", flag: 0, bytes: 1 },
  { name: "flags", flag: 0, bytes: 1 },
  { name: "time", flag: 0, bytes: 6 },
  { name: "extra size", flag: 0x04, bytes: 2 },
  { name: "extra", flag: 0x04, bytes: 0 },
  { name: "file name", flag: 0x08, bytes: -1 },
  { name: "comment", flag: 0x10, bytes: -1 },
  { name: "checksum", flag: 0x02, bytes: 2 },
] as const;

/** Reads the header of a gzip member (RFC 1952, section 2.3), wherever its bytes are cut; keeps none of its fields. */
export class GzipHeader {
  #part = 0;
  /** Bytes of the part that are still to come; negative: up to a zero byte. */
  #left: number = PARTS[0].bytes;
  /** The part's last four bytes, the newest highest. */
  #value = 0;
  #flags = 0;
  #crc = -1;

  get isComplete(): boolean {
    return this.#part === PARTS.length;
  }

  /** Takes a byte of the header. Returns what is wrong with it. */
  take(byte: number): string | undefined {
    const { name } = PARTS[this.#part];
    this.#value = ((this.#value >>> 8) | (byte << 24)) >>> 0;
    if (name !== "checksum") this.#crc = nextCrc(this.#crc, byte);
    this.#left--;
    if (this.#left === 0 || (this.#left < 0 && byte === 0)) return this.#endPart(name);
    return undefined;
  }

  #endPart(name: (typeof PARTS)[number]["name"]): string | undefined {
    const [byte, pair] = [this.#value >>> 24, this.#value >>> 16];
    if (name === "magic" && pair !== MAGIC) return "incorrect header check: no gzip magic number";
    if (name === "method" && byte !== DEFLATE) return `unknown compression method ${byte}`;
    if (name === "flags") this.#flags = byte;
    if (name === "flags" && (byte & RESERVED_FLAGS) !== 0) return `unknown header flags 0x${byte.toString(16)}`;
    if (name === "checksum" && pair !== (~this.#crc & 0xffff)) return "incorrect header checksum";
    this.#beginNext();
    if (name !== "extra size") return undefined;
    this.#left = pair;
    if (pair === 0) this.#beginNext();
    return undefined;
  }

  #beginNext(): void {
    do this.#part++;
    while (this.#part < PARTS.length && (PARTS[this.#part].flag & this.#flags) !== PARTS[this.#part].flag);
    if (!this.isComplete) this.#left = PARTS[this.#part].bytes;
  }
}

function nextCrc(crc: number, byte: number): number {
  crc ^= byte;
  for (let bit = 0; bit < 8; bit++) crc = (crc & 1) === 0 ? crc >>> 1 : (crc >>> 1) ^ POLYNOMIAL;
  return crc;
}
