/** How long a mirror that failed is left out at first, and at most. */
const FIRST_PAUSE_MS = 10_000;
const MAX_PAUSE_MS = 300_000;
/** The same for one whose bytes were wrong: nobody but the reader of an image notices that. */
const WRONG_BYTES_PAUSE_MS = 600_000;

interface Setback {
  pauseMs: number;
  /** On the monotonic clock. */
  untilMs: number;
  /** Somebody asks it again. */
  isOnTrial: boolean;
}

/**
 * Which mirrors are left out, after a failure: for a while, after which one caller may ask again. When that fails too, the while is twice
 * as long; when it succeeds, all may ask.
 */
export class MirrorSetbacks<Mirror> {
  readonly #setbacks = new Map<Mirror, Setback>();

  /** Whether the caller may ask the mirror now. */
  admits(mirror: Mirror): boolean {
    const setback = this.#setbacks.get(mirror);
    if (setback === undefined) return true;
    const nowMs = performance.now();
    if (nowMs < setback.untilMs) return false;
    // The trial counts as failed until it has succeeded: so nobody else asks, and one that is given up needs no end.
    setback.pauseMs = Math.min(setback.pauseMs * 2, MAX_PAUSE_MS);
    setback.untilMs = nowMs + setback.pauseMs;
    setback.isOnTrial = true;
    return true;
  }

  /** The mirror has answered. What was asked before it failed does not count. */
  succeeded(mirror: Mirror): void {
    if (this.#setbacks.get(mirror)?.isOnTrial === true) this.#setbacks.delete(mirror);
  }

  /** Leaves the mirror out; true if it was not left out already. */
  failed(mirror: Mirror): boolean {
    const setback = this.#setbacks.get(mirror);
    if (setback === undefined) return this.#leaveOut(mirror, FIRST_PAUSE_MS);
    setback.isOnTrial = false;
    return false;
  }

  /** Leaves the mirror out for longer; true if it was not left out already. */
  gaveWrongBytes(mirror: Mirror): boolean {
    const isNews = !this.#setbacks.has(mirror);
    this.#leaveOut(mirror, WRONG_BYTES_PAUSE_MS);
    return isNews;
  }

  #leaveOut(mirror: Mirror, pauseMs: number): true {
    this.#setbacks.set(mirror, { pauseMs, untilMs: performance.now() + pauseMs, isOnTrial: false });
    return true;
  }
}
