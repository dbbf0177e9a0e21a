/** How long a place that failed is left out at first, and at most. */
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
 * Which places, mirrors or proxies, are left out after a failure: for a while, after which one caller may ask again. When that fails
 * too, the while is twice as long; when it succeeds, all may ask.
 */
export class Setbacks<Place> {
  readonly #setbacks = new Map<Place, Setback>();

  /** Whether the caller may ask the place now. */
  admits(place: Place): boolean {
    const setback = this.#setbacks.get(place);
    if (setback === undefined) return true;
    const nowMs = performance.now();
    if (nowMs < setback.untilMs) return false;
    // The trial counts as failed until it has succeeded: so nobody else asks, and one that is given up needs no end.
    setback.pauseMs = Math.min(setback.pauseMs * 2, MAX_PAUSE_MS);
    setback.untilMs = nowMs + setback.pauseMs;
    setback.isOnTrial = true;
    return true;
  }

  /** Whether nobody may ask the place now, or nobody besides the one who tries it again. */
  isLeftOut(place: Place): boolean {
    const setback = this.#setbacks.get(place);
    return setback !== undefined && performance.now() < setback.untilMs;
  }

  /** The place has answered. What was asked before it failed does not count. */
  succeeded(place: Place): void {
    if (this.#setbacks.get(place)?.isOnTrial === true) this.#setbacks.delete(place);
  }

  /** Leaves the place out; true if it was not left out already. */
  failed(place: Place): boolean {
    const setback = this.#setbacks.get(place);
    if (setback === undefined) return this.#leaveOut(place, FIRST_PAUSE_MS);
    setback.isOnTrial = false;
    return false;
  }

  /** Leaves the place out for longer; true if it was not left out already. */
  gaveWrongBytes(place: Place): boolean {
    const isNews = !this.#setbacks.has(place);
    this.#leaveOut(place, WRONG_BYTES_PAUSE_MS);
    return isNews;
  }

  #leaveOut(place: Place, pauseMs: number): true {
    this.#setbacks.set(place, { pauseMs, untilMs: performance.now() + pauseMs, isOnTrial: false });
    return true;
  }
}
