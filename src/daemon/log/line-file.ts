import { messageOf } from "../../errors.ts";
import { RotatedFile, type Rotation } from "./rotated-file.ts";

/** A file that lines are appended to; what cannot be written there is given to `instead`, after a line that says why. */
export class LineFile {
  readonly #path: string;
  readonly #rotation: Rotation;
  readonly #instead: (line: string, failure: string | undefined) => void;
  #file: RotatedFile | undefined;
  #hasFailed = false;

  /** `instead` gets each line that could not be written, and at the first of several also what went wrong. */
  constructor(path: string, rotation: Rotation, instead: (line: string, failure: string | undefined) => void) {
    this.#path = path;
    this.#rotation = rotation;
    this.#instead = instead;
  }

  append(line: string): void {
    try {
      this.#file ??= new RotatedFile(this.#path, this.#rotation);
      this.#file.append(line);
      this.#hasFailed = false;
    } catch (error) {
      const failure = this.#hasFailed ? undefined : messageOf(error);
      this.#hasFailed = true;
      this.#instead(line, failure);
    }
  }

  close(): void {
    this.#file?.close();
    this.#file = undefined;
  }
}
