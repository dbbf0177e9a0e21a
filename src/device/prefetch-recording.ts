import { access, rm, writeFile } from "node:fs/promises";
import { LazyError, messageOf } from "../errors.ts";
import { TraceRecorder } from "../formats/trace/trace-recorder.ts";
import { writeTrace } from "./prefetch-file.ts";

const POLL_MS = 1000;

export interface TraceRecordingOptions {
  /** Hears of a trace that could not be written when the lock was removed, and of one that is full. */
  readonly onFailure: (error: unknown) => void;
  /** Milliseconds since the recording began. */
  readonly now?: () => number;
  /** How often to look for the lock. */
  readonly pollMs?: number;
  /** What comes after so many is not recorded. By default as the recorder has it. */
  readonly maxRecords?: number | undefined;
}

/**
 * A trace that is being recorded. While it is, there is a file `PATH.lock`: whoever removes that ends the recording. Then the trace
 * is written, and there is a file `PATH.ok`. See docs/formats/trace.md.
 */
export class TraceRecording {
  /** What notes the reads. */
  readonly recorder: TraceRecorder;
  /** Resolves when nothing more is noted, whatever became of the trace. */
  readonly ended: Promise<void>;
  readonly #ended = Promise.withResolvers<void>();
  readonly #path: string;
  readonly #onFailure: (error: unknown) => void;
  readonly #poll: NodeJS.Timeout;
  #end: Promise<void> | undefined;

  private constructor(path: string, { onFailure, now, pollMs = POLL_MS, maxRecords }: TraceRecordingOptions) {
    this.recorder = new TraceRecorder({ now, maxRecords, onFull: () => onFailure(this.#full()) });
    this.ended = this.#ended.promise;
    this.#path = path;
    this.#onFailure = onFailure;
    this.#poll = setInterval(() => void this.#endIfUnlocked(), pollMs).unref();
  }

  /** Begins a recording. Throws `USAGE` when the file is being recorded already, or no file can be written there. */
  static async start(path: string, options: TraceRecordingOptions): Promise<TraceRecording> {
    try {
      await writeFile(lockOf(path), "", { flag: "wx" });
      await rm(`${path}.ok`, { force: true });
    } catch (cause) {
      const isLocked = cause instanceof Error && "code" in cause && cause.code === "EEXIST";
      const what = isLocked
        ? `${lockOf(path)} is there: it is being recorded; remove that file if whoever did was killed`
        : messageOf(cause);
      throw new LazyError("USAGE", `${path}: no trace can be recorded: ${what}`, { cause });
    }
    return new TraceRecording(path, options);
  }

  /** Writes what was recorded, once, however often it is called. Throws `UNAVAILABLE` when that fails. */
  async end(): Promise<void> {
    await (this.#end ??= this.#write());
  }

  /** Ends it without a trace, unless it has ended already. */
  async discard(): Promise<void> {
    await (this.#end ??= this.#stop());
  }

  #full(): LazyError {
    const { length } = this.recorder.records;
    return new LazyError("UNSUPPORTED", `${this.#path}: the recording is full, with ${length} reads; what else is read is not recorded`);
  }

  async #write(): Promise<void> {
    try {
      await writeTrace(this.#path, this.recorder.records);
    } finally {
      await this.#stop();
    }
    await writeFile(`${this.#path}.ok`, "");
  }

  async #stop(): Promise<void> {
    clearInterval(this.#poll);
    this.recorder.stop();
    this.#ended.resolve();
    await rm(lockOf(this.#path), { force: true });
  }

  async #endIfUnlocked(): Promise<void> {
    const isLocked = await access(lockOf(this.#path)).then(
      () => true,
      () => false,
    );
    if (isLocked) return;
    try {
      await this.end();
    } catch (error) {
      this.#onFailure(error);
    }
  }
}

function lockOf(path: string): string {
  return `${path}.lock`;
}
