import assert from "node:assert/strict";
import { test } from "node:test";
import { constants, deflateRawSync, inflateRawSync } from "node:zlib";
import fc from "fast-check";
import { InflateKernel, type InflateLimits } from "./inflate-kernel.ts";

const { Z_FIXED, Z_HUFFMAN_ONLY, Z_RLE, Z_FILTERED, Z_DEFAULT_STRATEGY } = constants;
const KIB = 1024;
/** The kernel's memory: tables up to INPUT, output from OUTPUT, and up to 16 bytes more. */
const [INPUT, HISTORY, OUTPUT, SLACK] = [32 * KIB, 100 * KIB, 132 * KIB, 16];

type Verdict = "done" | "broken" | "cut off";
interface Outcome {
  readonly verdict: Verdict;
  readonly bytes: Buffer;
}

/** What node:zlib says; it tells no bytes of data that is not whole. */
function judged(stored: Uint8Array): Outcome {
  try {
    return { verdict: "done", bytes: inflateRawSync(stored) };
  } catch (error) {
    const isCutOff = error instanceof Error && "code" in error && error.code === "Z_BUF_ERROR";
    return { verdict: isCutOff ? "cut off" : "broken", bytes: Buffer.alloc(0) };
  }
}

/** Everything that the kernel makes of data that comes in pieces. */
function inflated(kernel: InflateKernel, stored: Uint8Array, pieceBytes: number): Outcome {
  const pieces: Buffer[] = [];
  let done = 0;
  const take = (): void => {
    pieces.push(Buffer.from(kernel.output(done, kernel.outputBytes)));
    done = kernel.outputBytes;
  };
  kernel.begin();
  done = kernel.outputBytes;
  for (let from = 0; ; from += pieceBytes) {
    kernel.push(stored.subarray(from, from + pieceBytes));
    for (let at = 0; ; at = kernel.readBytes) {
      const stop = kernel.run(at);
      take();
      if (stop === "done") return { verdict: "done", bytes: Buffer.concat(pieces) };
      if (typeof stop === "object") return { verdict: "broken", bytes: Buffer.concat(pieces) };
      if (stop === "needs input") break;
      kernel.slide();
      done = 0;
    }
    if (from + pieceBytes >= stored.length) return { verdict: "cut off", bytes: Buffer.concat(pieces) };
  }
}

/** DEFLATE as RFC 1951 tells it, a bit at a time. */
class Reference {
  readonly #stored: Uint8Array;
  #bit = 0;
  readonly #bytes: number[] = [];

  constructor(stored: Uint8Array) {
    this.#stored = stored;
  }

  read(): Outcome {
    let verdict: Verdict = "done";
    try {
      while (!this.#readBlock());
    } catch (error) {
      if (error !== "broken" && error !== "cut off") throw error;
      verdict = error;
    }
    return { verdict, bytes: Buffer.from(this.#bytes) };
  }

  #take(count: number): number {
    let value = 0;
    for (let i = 0; i < count; i++, this.#bit++) {
      // oxlint-disable-next-line typescript/only-throw-error -- a verdict, which `read` catches
      if (this.#bit >> 3 >= this.#stored.length) throw "cut off";
      value |= ((this.#stored[this.#bit >> 3] >> (this.#bit & 7)) & 1) << i;
    }
    return value;
  }

  #check(isRight: boolean): void {
    // oxlint-disable-next-line typescript/only-throw-error -- a verdict, which `read` catches
    if (!isRight) throw "broken";
  }

  #readBlock(): boolean {
    const isLast = this.#take(1) === 1;
    const type = this.#take(2);
    this.#check(type !== 3);
    if (type === 0) this.#readStored();
    if (type === 1) this.#readSymbols(codes(FIXED_LENGTHS), codes(zeros(32).fill(5)));
    if (type === 2) this.#readDynamic();
    return isLast;
  }

  #readStored(): void {
    this.#take(-this.#bit & 7);
    const size = this.#take(16);
    this.#check((size ^ this.#take(16)) === 0xffff);
    for (let i = 0; i < size; i++) this.#bytes.push(this.#take(8));
  }

  #readDynamic(): void {
    const [literals, distances, lengthCodes] = [this.#take(5) + 257, this.#take(5) + 1, this.#take(4) + 4];
    this.#check(literals <= 286 && distances <= 30);
    const lengthLengths = zeros(19);
    for (const symbol of LENGTH_ORDER.slice(0, lengthCodes)) lengthLengths[symbol] = this.#take(3);
    this.#check(room(lengthLengths) === 0);
    const lengthCode = codes(lengthLengths);
    const lengths: number[] = [];
    while (lengths.length < literals + distances) {
      const symbol = this.#readSymbol(lengthCode);
      if (symbol < 16) {
        lengths.push(symbol);
        continue;
      }
      const repeats = symbol === 16 ? 3 + this.#take(2) : symbol === 17 ? 3 + this.#take(3) : 11 + this.#take(7);
      this.#check(symbol !== 16 || lengths.length > 0);
      this.#check(lengths.length + repeats <= literals + distances);
      lengths.push(...zeros(repeats).fill(symbol === 16 ? lengths.at(-1)! : 0));
    }
    this.#check(lengths[256] !== 0);
    for (const part of [lengths.slice(0, literals), lengths.slice(literals)]) {
      this.#check(room(part) === 0 || (room(part) > 0 && Math.max(...part) <= 1));
    }
    this.#readSymbols(codes(lengths.slice(0, literals)), codes(lengths.slice(literals)));
  }

  /** Codes are looked up with their length: a 1 in front of them. */
  #readSymbol(code: Map<number, number>): number {
    if (code.size === 0) this.#take(1);
    for (let length = 1, bits = 1; length <= 15 && code.size > 0; length++) {
      bits = bits * 2 + this.#take(1);
      const symbol = code.get(bits);
      if (symbol !== undefined) return symbol;
      if (code.size === 1) break;
    }
    this.#check(false);
    return 0;
  }

  #readSymbols(literals: Map<number, number>, distances: Map<number, number>): void {
    for (;;) {
      const symbol = this.#readSymbol(literals);
      if (symbol === 256) return;
      if (symbol < 256) {
        this.#bytes.push(symbol);
        continue;
      }
      this.#check(symbol < 286);
      const lengthBits = symbol < 265 || symbol === 285 ? 0 : (symbol - 261) >> 2;
      const length = symbol === 285 ? 258 : LENGTH_BASES[symbol - 257] + this.#take(lengthBits);
      const distanceSymbol = this.#readSymbol(distances);
      this.#check(distanceSymbol < 30);
      const distance = DISTANCE_BASES[distanceSymbol] + this.#take(distanceSymbol < 4 ? 0 : (distanceSymbol - 2) >> 1);
      this.#check(distance <= this.#bytes.length);
      for (let i = 0; i < length; i++) this.#bytes.push(this.#bytes.at(-distance)!);
    }
  }
}

const LENGTH_ORDER = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
const FIXED_LENGTHS = Array.from({ length: 288 }, (_, symbol) => (symbol < 144 ? 8 : symbol < 256 ? 9 : symbol < 280 ? 7 : 8));
const LENGTH_BASES = [3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227];
const DISTANCE_BASES = [1, 2, 3, 4, ...Array.from({ length: 26 }, (_, i) => 1 + ((2 + (i & 1)) << ((i >> 1) + 1)))];

function zeros(count: number): number[] {
  return Array.from({ length: count }, () => 0);
}

/** Of all codes of 15 bits, how many are free; negative when there are too many. */
function room(lengths: readonly number[]): number {
  return lengths.reduce((free, length) => free - (length === 0 ? 0 : 2 ** (15 - length)), 2 ** 15);
}

/** The canonical code of symbols by their lengths (RFC 1951, section 3.2.2). */
function codes(lengths: readonly number[]): Map<number, number> {
  const result = new Map<number, number>();
  for (let length = 1, code = 0; length <= 15; length++, code *= 2) {
    for (const [symbol, own] of lengths.entries()) if (own === length) result.set(2 ** length + code++, symbol);
  }
  return result;
}

/** A random generator of one seed: mulberry32. */
function generator(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * below);
  };
}

/** Content of many kinds: noise, few different bytes, words, and repeats at all distances, one after the other. */
function content(seed: number, length: number): Buffer {
  const random = generator(seed);
  const bytes = Buffer.alloc(length);
  for (let at = 0; at < length;) {
    const end = Math.min(length, at + 1 + random(random(2) === 0 ? 40 : 4000));
    const [kind, span] = [random(4), [1, 2, 3, 5, 8, 13, 15, 16, 17, 40, 300, 5000, 32768][random(13)]];
    for (; at < end; at++) {
      if (kind === 0) bytes[at] = random(256);
      else if (kind === 1) bytes[at] = 97 + random(4);
      else bytes[at] = at >= span ? bytes[at - span] : random(256);
    }
  }
  return bytes;
}

const strategies = fc.constantFrom(Z_DEFAULT_STRATEGY, Z_FIXED, Z_HUFFMAN_ONLY, Z_RLE, Z_FILTERED);
const deflated = fc
  .record({
    seed: fc.nat(),
    length: fc.oneof(fc.nat(300), fc.nat(100_000)),
    level: fc.integer({ min: 0, max: 9 }),
    strategy: strategies,
    windowBits: fc.integer({ min: 9, max: 15 }),
    memLevel: fc.integer({ min: 1, max: 9 }),
  })
  .map(({ seed, length, ...options }) => {
    const bytes = content(seed, length);
    return { bytes, stored: deflateRawSync(bytes, options) };
  });
const windows = fc.record<InflateLimits>({
  inputBytes: fc.oneof(fc.integer({ min: 1, max: 60 }), fc.integer({ min: 1, max: 65536 })),
  outputBytes: fc.oneof(fc.integer({ min: 1, max: 600 }), fc.integer({ min: 1, max: 262144 })),
});
const pieceSizes = fc.oneof(fc.integer({ min: 1, max: 50 }), fc.integer({ min: 1, max: 100_000 }));

test("data of all kinds is decoded, through windows and in pieces of any size", () => {
  fc.assert(
    fc.property(deflated, windows, pieceSizes, ({ bytes, stored }, limits, pieceBytes) => {
      const found = inflated(new InflateKernel(limits), stored, pieceBytes);
      assert.equal(found.verdict, "done");
      assert.ok(found.bytes.equals(bytes));
    }),
    { numRuns: 150 },
  );
});

test("what follows the last block is not taken, whatever the pieces", () => {
  const kernel = new InflateKernel({ outputBytes: 20_000 });
  for (const content of ["", "a", "hello hello hello", "x".repeat(5000)]) {
    for (const level of [0, 6]) {
      const stored = deflateRawSync(content, { level });
      const followed = Buffer.concat([stored, Buffer.alloc(100, 0xff)]);
      for (let pieceBytes = 1; pieceBytes < 60; pieceBytes++) {
        kernel.slide();
        kernel.begin();
        let taken = 0;
        for (let stop; stop !== "done"; taken += kernel.readBytes) {
          kernel.push(followed.subarray(taken, taken + pieceBytes));
          stop = kernel.run(0);
        }
        assert.equal(taken, stored.length);
      }
    }
  }
});

/** Two runs in memories that differ wherever the kernel must not look, with what lies around its windows guarded. */
function guarded(stored: Uint8Array, limits: Required<InflateLimits>, pieceBytes: number): Outcome {
  const outcomes = [0x00, 0xff].map((fill) => {
    const kernel = new InflateKernel(limits);
    const { memory } = kernel;
    memory.fill(fill, INPUT);
    const before = memory.slice();
    const outcome = inflated(kernel, stored, pieceBytes);
    const same = (from: number, to: number): void => assert.ok(Buffer.compare(memory.subarray(from, to), before.subarray(from, to)) === 0);
    same(0, 2 * KIB);
    same(INPUT + limits.inputBytes, HISTORY);
    same(OUTPUT + limits.outputBytes + SLACK, memory.length);
    return outcome;
  });
  assert.deepEqual(outcomes[0], outcomes[1]);
  return outcomes[0];
}

/** The kernel says what node:zlib says and what the reference says, and gives every byte up to there. */
function agrees(stored: Uint8Array, limits: Required<InflateLimits>, pieceBytes: number): Verdict {
  const [found, reference, judge] = [guarded(stored, limits, pieceBytes), new Reference(stored).read(), judged(stored)];
  assert.equal(reference.verdict, judge.verdict);
  assert.equal(found.verdict, judge.verdict);
  assert.ok(found.bytes.equals(reference.bytes), `${found.bytes.length} bytes instead of ${reference.bytes.length}`);
  if (judge.verdict === "done") assert.ok(found.bytes.equals(judge.bytes));
  return found.verdict;
}

const guardedWindows = fc.record({
  inputBytes: fc.constantFrom(1, 7, 30, 300, 4000),
  outputBytes: fc.constantFrom(1, 2, 259, 300, 700, 5000, 100_000),
});

test("damaged and cut data gets the verdict of node:zlib and nothing is touched outside of the windows", () => {
  const verdicts = new Set<Verdict>();
  const small = fc.record({ seed: fc.nat(), length: fc.nat(6000), level: fc.integer({ min: 0, max: 9 }), strategy: strategies });
  const damage = fc.array(fc.record({ at: fc.nat(), bit: fc.nat(7) }), { maxLength: 3 });
  fc.assert(
    fc.property(small, damage, fc.option(fc.nat()), guardedWindows, pieceSizes, (source, flips, cut, limits, pieceBytes) => {
      const { seed, length, ...options } = source;
      const whole = deflateRawSync(content(seed, length), options);
      const stored = whole.subarray(0, cut === null ? whole.length : cut % whole.length);
      for (const { at, bit } of flips) if (stored.length > 0) stored[at % stored.length] ^= 1 << bit;
      verdicts.add(agrees(stored, limits, pieceBytes));
    }),
    { numRuns: 250 },
  );
  assert.equal(verdicts.size, 3);
});

class BitWriter {
  readonly #bits: number[] = [];

  put(value: number, count: number): this {
    for (let i = 0; i < count; i++) this.#bits.push((value >> i) & 1);
    return this;
  }

  /** A code, whose highest bit comes first. */
  putCode(code: number, count: number): this {
    for (let i = count - 1; i >= 0; i--) this.#bits.push((code >> i) & 1);
    return this;
  }

  bytes(): Buffer {
    const bytes = Buffer.alloc(Math.ceil(this.#bits.length / 8));
    for (const [at, bit] of this.#bits.entries()) bytes[at >> 3] |= bit << (at & 7);
    return bytes;
  }
}

/** The head of a block whose literal and distance codes have these lengths: each is told in 4 bits. */
function dynamicBlock(literals: readonly number[], distances: readonly number[]): BitWriter {
  const writer = new BitWriter().put(1, 1).put(2, 2);
  writer
    .put(literals.length - 257, 5)
    .put(distances.length - 1, 5)
    .put(15, 4);
  for (const symbol of LENGTH_ORDER) writer.put(symbol < 16 ? 4 : 0, 3);
  for (const length of [...literals, ...distances]) writer.putCode(length, 4);
  return writer;
}

/** Lengths of a complete code of two or more symbols, scattered over as many places as there are. */
function completeLengths(random: (below: number) => number, places: number, always: readonly number[]): number[] {
  const lengths = [1, 1];
  for (const used = 2 + random(places - 1); lengths.length < used;) {
    const wanted = random(4) === 0 ? random(lengths.length) : lengths.length - 1;
    const at = lengths[wanted] < 15 ? wanted : lengths.findIndex((length) => length < 15);
    const [length] = lengths.splice(at, 1);
    lengths.push(length + 1, length + 1);
  }
  const result = zeros(places);
  const free = result.map((_, place) => place).filter((place) => !always.includes(place));
  for (const place of always) result[place] = lengths.splice(random(lengths.length), 1)[0];
  for (const length of lengths) result[free.splice(random(free.length), 1)[0]] = length;
  return result;
}

test("codes of any lengths, complete or not, get the verdict of node:zlib", () => {
  const verdicts = new Set<Verdict>();
  fc.assert(
    fc.property(fc.nat(), guardedWindows, pieceSizes, fc.nat(5), (seed, limits, pieceBytes, broken) => {
      const random = generator(seed);
      const literals = completeLengths(random, 257 + random(30), [256]);
      const places = 1 + random(30);
      const distances = places === 1 ? [random(3)] : completeLengths(random, places, []);
      const target = random(2) === 0 ? literals : distances;
      if (broken === 0) target[random(target.length)] = random(16);
      if (broken === 1) target.fill(0).fill(1 + random(2), 0, random(3));
      if (broken === 1 && target === literals && random(2) === 0) target[256] = 1;
      const writer = dynamicBlock(literals, distances);
      for (let i = random(600); i > 0; i--) writer.put(random(256), 8);
      verdicts.add(agrees(writer.bytes(), limits, pieceBytes));
    }),
    { numRuns: 300 },
  );
  assert.equal(verdicts.size, 3);
});

test("noise gets the verdict of node:zlib", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), fc.nat(7), guardedWindows, pieceSizes, (noise, type, limits, pieceBytes) => {
      if (noise.length > 0) noise[0] = (noise[0] & ~7) | type;
      agrees(noise, limits, pieceBytes);
    }),
    { numRuns: 250 },
  );
});

/** A block of fixed codes with a literal and a match of 3 bytes at a distance code. */
function fixedBlock(distanceCode: number): BitWriter {
  return new BitWriter()
    .put(1, 1)
    .put(1, 2)
    .putCode(0x30 + 97, 8)
    .putCode(1, 7)
    .putCode(distanceCode, 5);
}

/** The literals 255 and 256, and that many zeros too many behind the lengths of 11 distance codes, none of which is used. */
function repeatedLengths(tooMany: number): BitWriter {
  const writer = new BitWriter().put(1, 1).put(2, 2).put(0, 5).put(10, 5).put(14, 4);
  const lengthLengths = new Map([
    [18, 1],
    [0, 2],
    [1, 2],
  ]);
  for (const symbol of LENGTH_ORDER.slice(0, 18)) writer.put(lengthLengths.get(symbol) ?? 0, 3);
  const zerosOf = (count: number): void => void writer.putCode(0, 1).put(count - 11, 7);
  zerosOf(138);
  zerosOf(117);
  writer.putCode(3, 2).putCode(3, 2);
  zerosOf(11 + tooMany);
  return writer.put(1, 1);
}

const WIDE = { inputBytes: 4000, outputBytes: 5000 };
const LITERALS = [...zeros(255), 1, 1];
for (const [what, stored, expected] of [
  ["a match at the first byte", fixedBlock(0).put(0, 7), "done"],
  ["a match before the first byte", fixedBlock(1).put(0, 7), "broken"],
  ["a distance code that means nothing", fixedBlock(30).put(0, 7), "broken"],
  ["a length code that means nothing", new BitWriter().put(1, 1).put(1, 2).putCode(0xc6, 8).put(0, 20), "broken"],
  ["the reserved block type", new BitWriter().put(1, 1).put(3, 2), "broken"],
  ["an empty stored block", new BitWriter().put(1, 8).put(0, 16).put(0xffff, 16), "done"],
  ["a stored block whose lengths differ", new BitWriter().put(1, 8).put(5, 16).put(0xfffb, 16).put(0, 40), "broken"],
  ["no distance codes at all", dynamicBlock(LITERALS, [0]).put(0, 3).put(1, 1), "done"],
  [
    "a single distance code",
    dynamicBlock([...LITERALS.slice(0, 255), 2, 2, 1], [1])
      .put(1, 2)
      .put(0, 1)
      .put(0, 1)
      .put(3, 2),
    "done",
  ],
  [
    "the other code of one distance",
    dynamicBlock([...LITERALS.slice(0, 255), 2, 2, 1], [1])
      .put(1, 2)
      .put(0, 1)
      .put(1, 9),
    "broken",
  ],
  ["a single distance code of two bits", dynamicBlock(LITERALS, [2]).put(1, 1), "broken"],
  ["nothing but an end of block", dynamicBlock([...zeros(256), 1], [0]).put(0, 1), "done"],
  ["the other code beside an end of block", dynamicBlock([...zeros(256), 1], [0]).put(1, 9), "broken"],
  ["no end of block", dynamicBlock([1, 1, ...zeros(255)], [0]).put(1, 9), "broken"],
  ["more literal codes than there are", new BitWriter().put(1, 1).put(2, 2).put(30, 5).put(0, 5).put(0, 40), "broken"],
  ["more distance codes than there are", new BitWriter().put(1, 1).put(2, 2).put(0, 5).put(30, 5).put(0, 40), "broken"],
  ["code lengths without a code", new BitWriter().put(1, 1).put(2, 2).put(0, 10).put(15, 4).put(0, 400), "broken"],
  ["a repeat up to the last length", repeatedLengths(0), "done"],
  ["a repeat over the last length", repeatedLengths(1), "broken"],
  ["a single code for code lengths", new BitWriter().put(1, 1).put(2, 2).put(0, 10).put(0, 4).put(0, 9).put(1, 3), "broken"],
  ["a repeat of nothing", new BitWriter().put(1, 1).put(2, 2).put(0, 10).put(0, 4).put(1, 3).put(1, 3).put(0, 6).put(0, 40), "broken"],
] as const) {
  test(`${what} is ${expected}`, () => {
    for (const pieceBytes of [1, 1000]) {
      assert.equal(agrees(stored.bytes(), WIDE, pieceBytes), expected);
      assert.equal(agrees(Buffer.concat([stored.bytes(), Buffer.alloc(40)]), WIDE, pieceBytes), expected);
    }
  });
}

test("the farthest match reaches over a window's end, and no farther than to the data's beginning", () => {
  const first = Buffer.from(content(7, 32768));
  const stored = deflateRawSync(Buffer.concat([first, first, first]), { level: 9, memLevel: 9 });
  for (const outputBytes of [1, 300, 32_768, 40_000, 262_144]) {
    const kernel = new InflateKernel({ outputBytes });
    assert.ok(inflated(kernel, stored, 5000).bytes.equals(Buffer.concat([first, first, first])));
    assert.equal(inflated(kernel, fixedBlock(1).put(0, 7).bytes(), 100).verdict, "broken", "what was decoded before is not reached");
  }
});
