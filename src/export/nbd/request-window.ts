/** How much one connection may have under way: so many requests, and so much memory for them, or one that needs more than that. */
export class RequestWindow {
  readonly #maxRequests: number;
  readonly #maxBytes: number;
  #requests = 0;
  #bytes = 0;
  #changed: (() => void)[] = [];

  constructor(maxRequests: number, maxBytes: number) {
    this.#maxRequests = maxRequests;
    this.#maxBytes = maxBytes;
  }

  /** Takes the place for a request, if there is one now. */
  tryEnter(bytes: number): boolean {
    const fits = this.#requests < this.#maxRequests && this.#bytes + bytes <= this.#maxBytes;
    if (!fits && this.#requests > 0) return false;
    this.#requests++;
    this.#bytes += bytes;
    return true;
  }

  async enter(bytes: number): Promise<void> {
    while (!this.tryEnter(bytes)) await this.#change();
  }

  leave(bytes: number): void {
    this.#requests--;
    this.#bytes -= bytes;
    const waiting = this.#changed;
    this.#changed = [];
    for (const resolve of waiting) resolve();
  }

  /** Resolves once nothing is under way. */
  async empty(): Promise<void> {
    while (this.#requests > 0) await this.#change();
  }

  async #change(): Promise<void> {
    await new Promise<void>((resolve) => this.#changed.push(resolve));
  }
}
