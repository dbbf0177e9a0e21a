import { readdir, rm, truncate } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { Digest } from "../../../src/oci/digest.ts";
import type { Fault, SeenRequest } from "../../support/hostile-registry.ts";
import type { Chance } from "../../support/recorded-file.ts";
import type { SoakBench } from "./soak-bench.ts";
import { oneOf, type Walker } from "./walk.ts";

/** Of a hundred requests, how many go wrong. */
const WEATHERS = [0, 5, 30];

/** Kills the daemon and the registry, spoils the network, fills disks and robs the cache. */
export class Havoc implements Walker {
  readonly id = "havoc";
  readonly #bench: SoakBench;
  readonly #chance: Chance;
  readonly #unprotected: Digest;
  #weather = 0;
  /** Every other time between two checkpoints, so that one daemon is looked at twice. */
  #sparesDaemon = false;

  /** `unprotected`: a blob that nothing vouches for, of which no bit may be flipped. */
  constructor(bench: SoakBench, chance: Chance, unprotected: Digest) {
    this.#bench = bench;
    this.#chance = chance;
    this.#unprotected = unprotected;
    bench.proxy.inject((request) => this.#fault(request), Infinity);
  }

  async step(): Promise<void> {
    await sleep(200 + this.#chance.below(2500));
    switch (this.#chance.below(8)) {
      case 0:
      case 1:
        return this.#sparesDaemon ? undefined : await this.#killDaemon();
      case 2:
        return await this.#killRegistry();
      case 3:
      case 4:
        return this.#changeWeather(oneOf(this.#chance, WEATHERS));
      case 5:
        return await this.#robCache();
      default:
        return await this.#fillDisk();
    }
  }

  async checkpoint(): Promise<void> {}

  /** The sky clears. */
  async end(): Promise<void> {
    this.#changeWeather(0);
    this.#sparesDaemon = !this.#sparesDaemon;
  }

  async #killDaemon(): Promise<void> {
    const signal = this.#chance.below(3) === 0 ? "SIGTERM" : "SIGKILL";
    this.#note(`${signal} to the daemon`);
    await this.#bench.daemon.endDaemon(signal);
    await sleep(this.#chance.below(1500));
    await this.#bench.daemon.startDaemon();
    this.#note("daemon is back");
  }

  async #killRegistry(): Promise<void> {
    this.#note("registry goes");
    await this.#bench.registry.kill();
    await sleep(this.#chance.below(4000));
    await this.#bench.registry.restart();
    this.#note("registry is back");
  }

  #changeWeather(percent: number): void {
    this.#note(`faults: ${percent} %`);
    this.#weather = percent;
    this.#bench.proxy.seen.length = 0;
  }

  #fault({ method, url }: SeenRequest): Fault | undefined {
    if (method !== "GET" || this.#chance.below(100) >= this.#weather) return undefined;
    const at = this.#chance.below(20_000);
    const fault = oneOf<Fault>(this.#chance, [
      { kind: "truncate", afterBytes: at },
      { kind: "shorten", toBytes: at },
      { kind: "corrupt", at },
      { kind: "ignoreRange" },
      { kind: "reset" },
      { kind: "wait", until: sleep(at / 10) },
      { kind: "answer", status: 500 },
      { kind: "answer", status: 503, headers: { "retry-after": "1" } },
      { kind: "answer", status: 429, headers: { "retry-after": "0" } },
      { kind: "answer", status: 401 },
      { kind: "answer", status: 403 },
    ]);
    return fault.kind === "corrupt" && url.endsWith(this.#unprotected) ? { kind: "reset" } : fault;
  }

  /** As if somebody else's cache had needed the room, or a disk had lost something. */
  async #robCache(): Promise<void> {
    const directory = this.#bench.cacheDirectory;
    const names = await readdir(directory);
    this.#note(`rob ${names.length} files of the cache`);
    for (const name of names) {
      const kind = this.#chance.below(4);
      // A device that needs room may have been there first.
      if (kind < 2) await rm(join(directory, name), { force: true });
      else if (kind === 2) await truncate(join(directory, name), this.#chance.below(1 << 20)).catch(unlessMissing);
    }
  }

  /** For a while there is hardly any room for what is written. */
  async #fillDisk(): Promise<void> {
    const left = this.#chance.below(1 << 20);
    this.#note(`${left} bytes of room are left`);
    await this.#bench.leaveRoom(left);
    await sleep(200 + this.#chance.below(2500));
    await this.#bench.leaveRoom(undefined);
    this.#note("there is room again");
  }

  #note(what: string): void {
    this.#bench.note(this.id, what);
  }
}

function unlessMissing(error: unknown): void {
  if (!(error instanceof Error && "code" in error && error.code === "ENOENT")) throw error;
}
