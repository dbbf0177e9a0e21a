import { LazyError, messageOf } from "../errors.ts";
import type { JsonObject } from "../oci/json.ts";
import { findAuth, readCredentialFile } from "./credential-files.ts";
import type { Credential, CredentialSource } from "./credentials.ts";

/**
 * One file with an `auths` object, of which the longest matching entry counts; other keys of docker's `config.json` are not looked at.
 * It is read again at each question. While it is missing or broken, what it said last counts, and `notice` is told why.
 */
export class CredentialFile implements CredentialSource {
  readonly #path: string;
  readonly #notice: (message: string) => void;
  #last: JsonObject | undefined;

  constructor(path: string, notice: (message: string) => void) {
    this.#path = path;
    this.#notice = notice;
  }

  async credentialFor(host: string, repository: string): Promise<Credential | undefined> {
    try {
      const file = await readCredentialFile(this.#path);
      if (file === undefined) throw new LazyError("NOT_FOUND", `${this.#path}: does not exist`);
      const found = findAuth(file, host, repository, this.#path);
      this.#last = file;
      return found;
    } catch (error) {
      if (!(error instanceof LazyError)) throw error;
      this.#notice(`${messageOf(error)}; going on ${this.#last === undefined ? "without credentials" : "with what it said before"}`);
      return this.#last && findAuth(this.#last, host, repository, this.#path);
    }
  }
}
