/** What a device's process has counted since it began. */
export interface ProcessCounts {
  /** Of the device. */
  readonly id: string;
  readonly pid: number;
  readonly upSeconds: number;
  /** Each grows, or stays; always as many, in the same order. */
  readonly counts: readonly number[];
}

/**
 * Sums of what processes of devices count, which never fall: what ended ones had stays, and of those that do not answer counts what they
 * said last. Keeps one entry for each device that is there, and one for all that ended.
 */
export class LastingSums {
  readonly #living = new Map<string, ProcessCounts>();
  #ended: readonly number[];
  #sums: readonly number[];

  /** @param length how many counts a process has */
  constructor(length: number) {
    this.#ended = Array.from({ length }, () => 0);
    this.#sums = this.#ended;
  }

  /** Takes in what processes say, and answers the sums. `ids`: all devices that are there, those that say nothing among them. */
  add(said: readonly ProcessCounts[], ids: ReadonlySet<string>): readonly number[] {
    for (const now of said) {
      const before = this.#living.get(now.id);
      if (before !== undefined && !isSameProcess(before, now)) this.#end(before);
      this.#living.set(now.id, now);
    }
    for (const process of this.#living.values()) if (!ids.has(process.id)) this.#end(process);
    const sums = [...this.#living.values()].reduce((sum, { counts }) => added(sum, counts), this.#ended);
    // Fractions that are added in another order may give a little less.
    this.#sums = sums.map((sum, index) => Math.max(sum, this.#sums[index]));
    return this.#sums;
  }

  #end(process: ProcessCounts): void {
    this.#living.delete(process.id);
    this.#ended = added(this.#ended, process.counts);
  }
}

/** The kernel gives the numbers of processes again. */
function isSameProcess(before: ProcessCounts, now: ProcessCounts): boolean {
  return before.pid === now.pid && before.upSeconds <= now.upSeconds;
}

function added(one: readonly number[], other: readonly number[]): readonly number[] {
  return one.map((value, index) => value + other[index]);
}
