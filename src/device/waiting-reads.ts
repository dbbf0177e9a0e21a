/** Knows whether somebody waits for a read, so that what nobody waits for can stand back. */
export class WaitingReads {
  #waiting = 0;
  #idle: PromiseWithResolvers<void> | undefined;

  async run<T>(read: () => Promise<T>): Promise<T> {
    this.#waiting++;
    try {
      return await read();
    } finally {
      if (--this.#waiting === 0) {
        this.#idle?.resolve();
        this.#idle = undefined;
      }
    }
  }

  /** Resolves when no read is waiting: at once, or at the end of the last one. */
  async idle(): Promise<void> {
    while (this.#waiting > 0) {
      this.#idle ??= Promise.withResolvers();
      await this.#idle.promise;
    }
  }
}
