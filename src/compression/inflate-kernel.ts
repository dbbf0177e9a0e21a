import { KernelModule, type KernelNumber } from "./kernel-module.ts";
import { INFLATE_WASM } from "./kernels/inflate-wasm.ts";

/** What `assembly/inflate.ts` exports. */
interface InflateExports {
  readonly memory: { readonly buffer: ArrayBuffer };
  readonly INPUT_START: KernelNumber;
  readonly INPUT_LIMIT: KernelNumber;
  readonly OUTPUT_START: KernelNumber;
  readonly OUTPUT_LIMIT: KernelNumber;
  readonly inputAt: KernelNumber;
  readonly outputAt: KernelNumber;
  readonly bitCount: KernelNumber;
  readonly begin: () => void;
  readonly slide: () => void;
  readonly inflate: (inputEnd: number, outputEnd: number, stopAt: number) => number;
}

/** Why decoding stopped: what the kernel returns, by its number. */
const STOPS = ["needs input", "output full", "at a block", "done"] as const;
const FAILURES = [
  "invalid block type",
  "invalid stored block lengths",
  "too many length or distance symbols",
  "invalid code lengths set",
  "invalid literal/length codes",
  "invalid distance codes",
  "invalid literal/length code",
  "invalid distance code",
  "invalid distance too far back",
];

export type InflateStop = (typeof STOPS)[number] | { readonly failure: string };

const WINDOW_BYTES = 32 * 1024;
const NEVER = 0xffffffff;
/** An instance has 448 KiB. */
const MAX_IDLE = 4;

const MODULE = new KernelModule(INFLATE_WASM);
const idle: InflateKernel[] = [];

/** Smaller windows than there are, for tests. */
export interface InflateLimits {
  readonly inputBytes?: number;
  readonly outputBytes?: number;
}

/**
 * An instance of the inflate kernel: DEFLATE data from `stored`, decoded to a window in its memory. `output` is what one
 * `run` after the other has put there; `slide` makes room, after which it starts anew.
 */
export class InflateKernel {
  /** All of the instance's memory. */
  readonly memory: Uint8Array;
  readonly #exports: InflateExports;
  readonly #inputStart: number;
  readonly #inputLimit: number;
  readonly #outputStart: number;
  readonly #outputLimit: number;
  #stored = new Uint8Array(0);
  /** The part of `stored` that is in the input window. */
  #from = 0;
  #to = 0;

  constructor({ inputBytes = Infinity, outputBytes = Infinity }: InflateLimits = {}) {
    this.#exports = MODULE.instantiate() as InflateExports;
    this.memory = new Uint8Array(this.#exports.memory.buffer);
    this.#inputStart = this.#exports.INPUT_START.value;
    this.#inputLimit = Math.min(this.#exports.INPUT_LIMIT.value, this.#inputStart + inputBytes);
    this.#outputStart = this.#exports.OUTPUT_START.value;
    this.#outputLimit = Math.min(this.#exports.OUTPUT_LIMIT.value, this.#outputStart + outputBytes);
  }

  /** One that was given back, or a new one. Its output is empty. */
  static take(): InflateKernel {
    const kernel = idle.pop() ?? new InflateKernel();
    kernel.#exports.outputAt.value = kernel.#outputStart;
    return kernel;
  }

  /** Gives it back for others to use. */
  release(): void {
    this.push(new Uint8Array(0));
    if (idle.length < MAX_IDLE && !idle.includes(this)) idle.push(this);
  }

  /** What `run` reads from now on; it must not change until then. */
  push(stored: Uint8Array): void {
    this.#stored = stored as Uint8Array<ArrayBuffer>;
    this.#from = 0;
    this.#to = 0;
  }

  /** Starts new DEFLATE data, which refers to nothing that was decoded before. */
  begin(): void {
    this.#exports.begin();
  }

  /**
   * Decodes `stored` from `at`, which is behind what earlier runs have read. Stops at the first header of a block that
   * has at least `stopAt` bytes of the output in front of it, before anything that is missing, and after the last block.
   */
  run(at: number, stopAt = NEVER): InflateStop {
    for (;;) {
      if (at < this.#from || at >= this.#to) this.#fill(at);
      this.#exports.inputAt.value = this.#inputStart + at - this.#from;
      const inputEnd = this.#inputStart + this.#to - this.#from;
      const result = this.#exports.inflate(inputEnd, this.#outputLimit, Math.min(this.#outputStart + Math.max(stopAt, 0), NEVER));
      if (result < 0) return { failure: FAILURES[-1 - result] };
      const stop = STOPS[result];
      if (stop !== "needs input" || this.#to === this.#stored.length) return stop;
      at = this.#to;
    }
  }

  #fill(at: number): void {
    const input = this.#stored.subarray(at, at + this.#inputLimit - this.#inputStart);
    this.memory.set(input, this.#inputStart);
    this.#from = at;
    this.#to = at + input.length;
  }

  /** Of `stored`, what has been read. */
  get readBytes(): number {
    return this.#from + this.#exports.inputAt.value - this.#inputStart;
  }

  /** How many bits of the last byte that was read belong to what comes next. */
  get unusedBits(): number {
    return this.#exports.bitCount.value;
  }

  get outputBytes(): number {
    return this.#exports.outputAt.value - this.#outputStart;
  }

  /** A view of the output, valid until the next run. */
  output(start: number, end: number): Uint8Array {
    return this.memory.subarray(this.#outputStart + start, this.#outputStart + end);
  }

  /** A copy of the last bytes before the output's end, also of what has slid away: at most 32 KiB. */
  history(length: number): Uint8Array {
    const end = this.#exports.outputAt.value;
    return this.memory.slice(end - Math.min(length, WINDOW_BYTES), end);
  }

  slide(): void {
    this.#exports.slide();
  }
}
