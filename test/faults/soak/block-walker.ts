import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { readdir, writeFile } from "node:fs/promises";
import type { Exposure } from "../../../src/daemon/exposure-schema.ts";
import { messageOf } from "../../../src/errors.ts";
import type { Chance } from "../../support/recorded-file.ts";
import { openAccess, type BlockAccess } from "./block-access.ts";
import { SECTOR_BYTES, sectorBytes, type Range, type SectorModel } from "./sector-model.ts";
import type { SoakBench } from "./soak-bench.ts";
import { createUpper, type BlockImage, type LowerImage, type UpperForm } from "./soak-images.ts";
import { HangError } from "./timely.ts";
import { amid, Clock, oneOf, type Walker } from "./walk.ts";

const EXPOSURES = [{ kind: "fuse" }, { kind: "loop" }, { kind: "nbd" }] as const satisfies readonly Exposure[];
const MAX_READ_SECTORS = 256;
const MAX_WRITE_SECTORS = 128;
/** What direct and cached writes at the same time must not share. */
const PAGE_SECTORS = 8;
const MAX_UPPERS = 6;
const FIRST_VERSION = 100;
const EVENT_MS = 4000;

/** What a walk is on. */
export interface BlockWalk {
  readonly bench: SoakBench;
  readonly id: string;
  readonly image: BlockImage;
  readonly chance: Chance;
  /** Nothing for a device that is only read. */
  readonly upper?: { readonly form: UpperForm; readonly directory: string };
  /** It is never killed, removed or shown in another way. */
  readonly isSteady?: boolean;
}

/** Reads, writes, discards and flushes a device, kills and removes it, and takes live snapshots of it. */
export class BlockWalker implements Walker {
  readonly id: string;
  readonly #walk: BlockWalk;
  readonly #model: SectorModel;
  readonly #chance: Chance;
  readonly #clock: Clock;
  readonly #config: string;
  #image: LowerImage & { readonly upper?: { readonly data: string; readonly index: string } };
  #uppers = 0;
  #version = FIRST_VERSION;
  #expose: Exposure = EXPOSURES[0];
  #access: BlockAccess | undefined;
  #pid: number | undefined;
  /** A process that may still look as if it ran. */
  #killed: number | undefined;
  /** Where it wrote last: errors are near. */
  #recent = 0;
  /** Its process is being killed, or it is being removed. */
  #isStruck = false;

  private constructor(walk: BlockWalk) {
    this.id = walk.id;
    this.#walk = walk;
    this.#model = walk.image.model();
    this.#chance = walk.chance;
    this.#clock = new Clock(walk.chance, EVENT_MS);
    this.#config = walk.bench.daemon.join(`${walk.id}.json`);
    const { repoBlobUrl, lowers } = walk.image;
    this.#image = { repoBlobUrl, lowers };
  }

  static async start(walk: BlockWalk): Promise<BlockWalker> {
    const walker = new BlockWalker(walk);
    if (walk.upper !== undefined) walker.#image = { ...walker.#image, upper: await walker.#newUpper() };
    await writeFile(walker.#config, JSON.stringify(walker.#image));
    walker.#expose = oneOf(walk.chance, EXPOSURES);
    await walker.#open();
    return walker;
  }

  async step(): Promise<void> {
    if (this.#access === undefined) return await this.#open();
    if (this.#clock.isTime() && this.#walk.isSteady !== true) return await this.#event();
    const kind = this.#chance.below(20);
    if (this.#walk.upper === undefined || kind < 10) await this.#readSome();
    else if (kind < 15) await this.#tryChange("write", this.#someRange(MAX_WRITE_SECTORS));
    else if (kind < 16) await this.#writeMany();
    else if (kind < 18) await this.#tryChange("discard", this.#someRange(4 * MAX_WRITE_SECTORS));
    else await this.#tryFlush();
  }

  async checkpoint(): Promise<void> {
    this.#note("checkpoint");
    if (this.#access === undefined) await this.#open();
    const access = this.#access ?? assert.fail(`${this.id} cannot be opened, although nothing is wrong`);
    if (this.#walk.upper !== undefined) {
      // What failed before works again.
      await this.#change("write", this.#someRange(MAX_WRITE_SECTORS));
      await access.flush();
      this.#model.flushed();
    }
    for (let first = 0; first < this.#model.sectors; first += 2 * MAX_READ_SECTORS) {
      await this.#read(access, { first, count: 2 * MAX_READ_SECTORS }, this.#chance.below(2) === 0);
    }
  }

  async end(): Promise<void> {
    await this.#removeIdle();
  }

  async #event(): Promise<void> {
    const isWritable = this.#walk.upper !== undefined;
    const kind = this.#chance.below(isWritable ? 5 : 4);
    if (kind < 2) await this.#kill();
    else if (kind === 2) await this.#removeIdle();
    else if (kind === 3) await this.#removeInUse();
    else await this.#snapshot();
  }

  /** The process is killed in the middle of something. */
  async #kill(): Promise<void> {
    this.#note(`kill ${this.#pid}`);
    this.#isStruck = true;
    await amid(this.#chance, this.#somethingLong(), () => {
      assert.ok(this.#pid !== undefined);
      process.kill(this.#pid, "SIGKILL");
    });
    await this.#leave();
    this.#model.killed();
    this.#killed = this.#pid;
    // Now and then it is removed while it comes back.
    if (this.#chance.below(3) === 0) {
      await this.#walk.bench.gone(this.id);
      this.#killed = undefined;
    }
    await this.#open();
  }

  async #removeIdle(): Promise<void> {
    this.#note("remove");
    const { upper, bench } = this.#walk;
    // Removing it writes everything, too, unless there is no room.
    if (upper !== undefined && this.#access !== undefined && (upper.directory === bench.uppersDirectory || this.#chance.below(2) === 0)) {
      await this.#tryFlush();
    }
    await this.#leave();
    await this.#walk.bench.gone(this.id);
    this.#expose = oneOf(this.#chance, EXPOSURES);
  }

  async #removeInUse(): Promise<void> {
    this.#note("remove --force");
    this.#isStruck = true;
    await amid(this.#chance, this.#somethingLong(), async () => await this.#walk.bench.gone(this.id, true));
    await this.#leave();
    this.#model.killed();
    this.#expose = oneOf(this.#chance, EXPOSURES);
  }

  /** What was written becomes a lower layer; writing goes on meanwhile. */
  async #snapshot(): Promise<void> {
    const { upper } = this.#image;
    if (upper === undefined || this.#uppers >= MAX_UPPERS) return;
    this.#note("snapshot");
    const next = { ...this.#image, lowers: [...this.#image.lowers, { file: upper.data }], upper: await this.#newUpper() };
    const path = `${this.#config}.next`;
    await writeFile(path, JSON.stringify(next));
    await amid(this.#chance, this.#somethingLong(), async () => {
      await this.#walk.bench.snapshot(this.id, path, () => existsSync(path));
    });
    this.#image = next;
  }

  /** Tried until there is room for it. */
  async #newUpper(): Promise<{ data: string; index: string }> {
    const { form, directory } = this.#walk.upper!;
    for (;;) {
      const path = `${directory}/${this.id}${this.#uppers}-${this.#version++}`;
      try {
        const upper = await createUpper(path, form, this.#image.lowers.length === 0 ? "1" : "0");
        this.#uppers++;
        return upper;
      } catch (error) {
        if (!/ENOSPC|No space/.test(messageOf(error))) throw error;
        this.#note(`failed: ${messageOf(error)}`);
        for (const name of await readdir(directory)) assert.ok(!`${directory}/${name}`.startsWith(path), `${name} is left half made`);
      }
    }
  }

  async #open(): Promise<void> {
    const { bench } = this.#walk;
    const report = await bench.present({ id: this.id, config: this.#config, expose: this.#expose }, this.#killed);
    this.#killed = undefined;
    this.#pid = report.pid;
    this.#note(`open ${this.#expose.kind}, process ${this.#pid}`);
    assert.ok(report.access !== undefined);
    try {
      this.#access = await openAccess(report.access, this.#walk.upper === undefined);
      for (const range of this.#model.unsettled(MAX_READ_SECTORS)) {
        const bytes = await this.#access.read(range.first * SECTOR_BYTES, range.count * SECTOR_BYTES, true);
        this.#model.settle(range.first, bytes, this.#where("after it was opened anew", range));
      }
    } catch (error) {
      this.#mayFail(error, "opening");
      await this.#leave();
    }
  }

  async #leave(): Promise<void> {
    this.#isStruck = false;
    await this.#access?.close();
    this.#access = undefined;
  }

  /** Something that takes so long that other things happen meanwhile, which may make it fail. */
  async #somethingLong(): Promise<void> {
    for (let i = 0; i < 12; i++) {
      if (this.#walk.upper === undefined) await this.#readSome();
      else if (i % 4 === 3) await this.#tryFlush();
      else await this.#tryChange("write", this.#someRange(MAX_WRITE_SECTORS));
    }
  }

  /** Several changes to places apart from each other at the same time. */
  async #writeMany(): Promise<void> {
    const piece = 8 * PAGE_SECTORS;
    const first = Math.floor(this.#chance.below(this.#model.sectors - 6 * piece) / PAGE_SECTORS) * PAGE_SECTORS;
    await Promise.all(
      Array.from({ length: 6 }, async (_, i) => {
        await this.#tryChange(this.#chance.below(4) === 0 ? "discard" : "write", {
          first: first + i * piece,
          count: PAGE_SECTORS * (1 + this.#chance.below(8)),
        });
      }),
    );
  }

  async #readSome(): Promise<void> {
    const range = this.#someRange(MAX_READ_SECTORS);
    try {
      await this.#read(this.#access!, range, this.#chance.below(2) === 0);
    } catch (error) {
      if (this.#readsWork) throw error;
      this.#mayFail(error, `read of ${range.first}+${range.count}`);
    }
  }

  async #read(access: BlockAccess, range: Range, direct: boolean): Promise<void> {
    this.#note(`read ${direct ? "direct" : "cached"} ${range.first}+${range.count}`);
    const bytes = await access.read(range.first * SECTOR_BYTES, range.count * SECTOR_BYTES, direct);
    this.#model.check(range.first, bytes, this.#where(direct ? "read directly" : "read", range));
  }

  async #tryChange(kind: "write" | "discard", range: Range): Promise<void> {
    try {
      await this.#change(kind, range);
    } catch (error) {
      this.#mayFail(error, `${kind} of ${range.first}+${range.count}`);
    }
  }

  async #change(kind: "write" | "discard", range: Range): Promise<void> {
    const version = kind === "discard" ? 0 : this.#version++;
    const direct = this.#chance.below(3) > 0 || this.#mayLoseCached;
    const offset = range.first * SECTOR_BYTES;
    this.#recent = range.first;
    this.#note(`${kind} ${direct ? "direct" : "cached"} ${range.first}+${range.count} version ${version}`);
    this.#model.begin(range, version);
    if (kind === "discard") await this.#access!.discard(offset, range.count * SECTOR_BYTES);
    else await this.#access!.write(offset, sectorBytes(version, range.first, range.count), direct);
    // A loop device's cached writes are the kernel's alone until it writes them; a file's are not.
    this.#model.done(range, version, kind === "discard" || direct || this.#expose.kind !== "loop");
  }

  async #tryFlush(): Promise<void> {
    this.#note("flush");
    try {
      await this.#access!.flush();
      this.#model.flushed();
    } catch (error) {
      // What the kernel had taken may be lost.
      this.#model.killed();
      this.#mayFail(error, "flush");
    }
  }

  /** What a kernel has acknowledged for a block device and cannot write for want of room it forgets, and says so to anybody, once. */
  get #mayLoseCached(): boolean {
    return this.#expose.kind === "loop" && this.#walk.upper?.directory === this.#walk.bench.uppersDirectory;
  }

  /** Nothing of it comes from elsewhere: as long as it is left alone reading does not fail. */
  get #readsWork(): boolean {
    return this.#walk.image.repoBlobUrl === "" && !this.#isStruck;
  }

  #someRange(most: number): Range {
    const { sectors } = this.#model;
    const count = 1 + this.#chance.below(this.#chance.below(2) === 0 ? 8 : most);
    const near = Math.max(0, this.#recent - most);
    const first = this.#chance.below(3) === 0 ? near + this.#chance.below(2 * most) : this.#chance.below(sectors);
    return { first: Math.min(first, sectors - count), count };
  }

  #mayFail(error: unknown, what: string): void {
    if (error instanceof assert.AssertionError || error instanceof HangError) throw error;
    this.#note(`failed: ${what}: ${messageOf(error)}`);
  }

  #where(what: string, { first, count }: Range): string {
    return `${this.id} (${this.#expose.kind}), sectors ${first}+${count} ${what}`;
  }

  #note(what: string): void {
    this.#walk.bench.note(this.id, what);
  }
}
