import {
  closeSync,
  fstatSync,
  lstatSync,
  openSync,
  readlinkSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeSync,
  type Stats,
} from "node:fs";

/** A lock so old was left by a process that was killed, whoever has its number now. */
const MAX_LOCK_AGE_MS = 60_000;

export interface Rotation {
  /** A file is put aside before it grows beyond this, or somewhat later, as others write to it while one does that. */
  readonly limitBytes: number;
  /** How many there are at most, the one that is written to among them. */
  readonly files: number;
}

/**
 * A file that any number of processes append lines to. When it is full one of them renames it to `PATH.1`, which was `PATH.2` from then
 * on, and so forth; the others notice that the path leads to another file. No line is torn: each is one write to the end of the file,
 * and no line is lost with it, but those of the oldest file when it goes away.
 */
export class RotatedFile {
  readonly path: string;
  readonly #rotation: Rotation;
  #descriptor: number;
  #opened: Stats;

  /** Opens or makes the file. Throws as the file system does. */
  constructor(path: string, rotation: Rotation) {
    this.path = path;
    this.#rotation = rotation;
    this.#descriptor = openSync(path, "a", 0o640);
    this.#opened = fstatSync(this.#descriptor);
  }

  /** `line` has its end. Throws as the file system does. */
  append(line: string): void {
    const bytes = Buffer.from(line);
    const size = this.#follow();
    if (size > 0 && size + bytes.length > this.#rotation.limitBytes) this.#rotate();
    const written = writeSync(this.#descriptor, bytes);
    if (written < bytes.length) throw new Error(`${written} of ${bytes.length} bytes of a line were written; the disk may be full`);
  }

  close(): void {
    closeSync(this.#descriptor);
  }

  /** Goes where the path leads, and answers how much is there. */
  #follow(): number {
    const found = statSync(this.path, { throwIfNoEntry: false });
    if (found !== undefined && isSame(found, this.#opened)) return found.size;
    const descriptor = openSync(this.path, "a", 0o640);
    closeSync(this.#descriptor);
    this.#descriptor = descriptor;
    this.#opened = fstatSync(descriptor);
    return this.#opened.size;
  }

  /** While another process does it, lines still go to the file as it is. */
  #rotate(): void {
    const lock = `${this.path}.lock`;
    if (!takeLock(lock)) return;
    try {
      // Another process may have done it before the lock was taken.
      const found = statSync(this.path, { throwIfNoEntry: false });
      if (found !== undefined && isSame(found, this.#opened)) this.#shift();
    } finally {
      rmSync(lock, { force: true });
    }
    this.#follow();
  }

  #shift(): void {
    const nameOf = (number: number): string => (number === 0 ? this.path : `${this.path}.${number}`);
    const last = this.#rotation.files - 1;
    if (last === 0) rmSync(this.path, { force: true });
    for (let number = last - 1; number >= 0; number--) renameIfThere(nameOf(number), nameOf(number + 1));
  }
}

function isSame(one: Stats, other: Stats): boolean {
  return one.ino === other.ino && one.dev === other.dev;
}

function renameIfThere(from: string, to: string): void {
  try {
    renameSync(from, to);
  } catch (error) {
    if (codeOf(error) !== "ENOENT") throw error;
  }
}

/** A lock is a symbolic link, made in one step, which leads to the number of the process that has it. */
function takeLock(lock: string): boolean {
  try {
    symlinkSync(String(process.pid), lock);
    return true;
  } catch (error) {
    if (codeOf(error) !== "EEXIST") throw error;
  }
  const found = lstatSync(lock, { throwIfNoEntry: false });
  if (found === undefined || isHeld(lock, found)) return false;
  // Of those who find that nobody holds it one takes it away, and whoever writes the next line may have it.
  const aside = `${lock}.${process.pid}`;
  renameIfThere(lock, aside);
  const moved = lstatSync(aside, { throwIfNoEntry: false });
  if (moved !== undefined && !isSame(moved, found)) renameSync(aside, lock);
  rmSync(aside, { force: true });
  return false;
}

function isHeld(lock: string, { mtimeMs }: Stats): boolean {
  if (Date.now() - mtimeMs > MAX_LOCK_AGE_MS) return false;
  try {
    process.kill(Number(readlinkSync(lock)), 0);
    return true;
  } catch (error) {
    return codeOf(error) !== "ESRCH";
  }
}

function codeOf(error: unknown): string {
  return error instanceof Error && "code" in error ? String(error.code) : "";
}
