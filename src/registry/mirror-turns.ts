import { LazyError, messageOf } from "../errors.ts";
import type { ImageStore } from "../oci/image-store.ts";
import { Setbacks } from "./setbacks.ts";

/** A repository, and what a reader has of it. */
interface Asked {
  readonly store: ImageStore;
}

/** Asks mirrors in their order and then the registry that they mirror; remembers which of them are better left out. */
export class MirrorTurns {
  readonly #setbacks = new Setbacks<ImageStore>();
  readonly #server: ImageStore;
  readonly #notice: (message: string) => void;

  constructor(server: ImageStore, notice: (message: string) => void) {
    this.#server = server;
    this.#notice = notice;
  }

  /** The answer of the first that gives one. Throws what the registry throws, and what no other place can help with. */
  async ask<A extends Asked, T>(mirrors: Iterable<A>, server: A, question: (place: A) => Promise<T>): Promise<T> {
    for (const mirror of this.admitted(mirrors)) {
      try {
        const answer = await question(mirror);
        this.succeeded(mirror.store);
        return answer;
      } catch (error) {
        this.giveUp(mirror.store, error);
      }
    }
    return await question(server);
  }

  /** Those that are not left out at the time when it is their turn. */
  *admitted<A extends Asked>(mirrors: Iterable<A>): Generator<A> {
    for (const mirror of mirrors) if (this.#setbacks.admits(mirror.store)) yield mirror;
  }

  succeeded(mirror: ImageStore): void {
    this.#setbacks.succeeded(mirror);
  }

  /** Leaves a mirror out that failed, unless the one thing asked for was merely missing there; throws errors that are not the mirror's. */
  giveUp(mirror: ImageStore, error: unknown): void {
    if (!(error instanceof LazyError) || error.code === "USAGE") throw error;
    if (error.code === "NOT_FOUND") return this.succeeded(mirror);
    const isNews = error.code === "CORRUPT" ? this.#setbacks.gaveWrongBytes(mirror) : this.#setbacks.failed(mirror);
    if (isNews) this.#notice(`mirror ${mirror.name}: ${messageOf(error)}; asking ${this.#server.name} instead`);
  }
}
