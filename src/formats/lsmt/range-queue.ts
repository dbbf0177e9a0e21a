interface Waiting {
  readonly first: number;
  readonly end: number;
  readonly done: Promise<void>;
}

/** Lets tasks run at once unless their ranges overlap; those that do run in the order in which they came. */
export class RangeQueue {
  readonly #waiting = new Set<Waiting>();

  async run<T>(first: number, end: number, task: () => Promise<T>): Promise<T> {
    const before: Promise<void>[] = [];
    for (const other of this.#waiting) if (other.first < end && first < other.end) before.push(other.done);
    const { promise: done, resolve } = Promise.withResolvers<void>();
    const entry: Waiting = { first, end, done };
    this.#waiting.add(entry);
    try {
      if (before.length > 0) await Promise.all(before);
      return await task();
    } finally {
      this.#waiting.delete(entry);
      resolve();
    }
  }

  /** Runs a task alone. */
  async runAlone<T>(task: () => Promise<T>): Promise<T> {
    return await this.run(0, Infinity, task);
  }
}
