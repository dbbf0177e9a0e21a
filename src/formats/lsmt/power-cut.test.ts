import assert from "node:assert/strict";
import { test } from "node:test";
import { chanceOf, RecordedDisk, type Chance } from "../../../test/support/recorded-file.ts";
import { BOOT_ID, forms, newFiles, UUID, type Form, type LayerFiles } from "../../../test/support/writable-forms.ts";
import { MemorySink } from "../../bytes/sink.ts";
import { MemorySource } from "../../bytes/source.ts";
import { LsmtWriter } from "./lsmt-writer.ts";
import { MappingList } from "./mapping-list.ts";
import { openLayer, type LsmtLayer } from "./lsmt-reader.ts";
import { stackLayers } from "./stack.ts";
import { openWritableStack, type WritableStack } from "./writable-stack.ts";

const SECTORS = 160;
const SIZE = SECTORS * 512;
/** Values of sectors of the device below begin here. */
const LOWER_VALUES = 1_000_000;

/** Every sector is filled with one number; 0 is what nobody wrote. */
function sectorsOf(values: readonly number[]): Uint8Array {
  const words = new Uint32Array(values.length * 128);
  for (const [i, value] of values.entries()) words.fill(value, i * 128, (i + 1) * 128);
  return new Uint8Array(words.buffer);
}

function valuesOf(bytes: Uint8Array): number[] {
  const words = new Uint32Array(new Uint8Array(bytes).buffer);
  return Array.from({ length: words.length / 128 }, (_, i) => {
    const sector = words.subarray(i * 128, (i + 1) * 128);
    assert.ok(
      sector.every((word) => word === sector[0]),
      `sector ${i} is torn`,
    );
    return sector[0];
  });
}

async function lowerLayer(): Promise<{ layer: LsmtLayer; values: number[] }> {
  const sink = new MemorySink();
  const writer = new LsmtWriter(sink, { virtualSize: SIZE });
  const mappings = new MappingList();
  const values = Array.from({ length: SECTORS }, (_, i) => (i % 24 < 13 ? LOWER_VALUES + i : 0));
  for (const [i, value] of values.entries()) if (value !== 0) mappings.add(i, 1, await writer.append(sectorsOf([value])));
  await writer.close(mappings);
  return { layer: await openLayer(new MemorySource(sink.bytes(), "lower")), values };
}

/** Something that was written to a sector. */
interface Event {
  readonly value: number;
  /** Operations of the disk before it began, and before it was acknowledged. */
  readonly began: number;
  acknowledged: number | undefined;
}

/**
 * What a sector may hold: after a cut what the last flush that ended before it covers, and all that came later; after the process was
 * killed what was acknowledged last, and what was underway.
 */
class Model {
  readonly events: Event[][];
  readonly #flushes: { readonly ended: number; readonly covered: number[] }[] = [];

  /** `loose`: what each sector may go back to as long as nothing is flushed. */
  constructor(values: readonly number[], loose: readonly ReadonlySet<number>[] = []) {
    this.events = values.map((value, sector) =>
      [...(loose[sector] ?? []), value].map((held) => ({ value: held, began: 0, acknowledged: 0 })),
    );
    this.#flushes.push({ ended: 0, covered: values.map(() => 0) });
  }

  /** The last event of each sector that is acknowledged now. */
  covered(): number[] {
    return this.events.map((events) => events.findLastIndex(({ acknowledged }) => acknowledged !== undefined));
  }

  flushed(ended: number, covered: number[]): void {
    this.#flushes.push({ ended, covered });
  }

  /** After a cut behind so many operations. */
  allowed(cut: number): Set<number>[] {
    const last = this.#flushes.findLast(({ ended }) => ended <= cut)!;
    return this.events.map((events, sector) => valuesFrom(events, last.covered[sector], cut));
  }

  /** After the process was killed behind so many operations. */
  kept(killed: number): Set<number>[] {
    return this.events.map((events) => {
      const last = events.findLastIndex(({ acknowledged }) => acknowledged !== undefined && acknowledged <= killed);
      return valuesFrom(events, last, killed);
    });
  }
}

/** Of an event and all after it that had begun behind so many operations. */
function valuesFrom(events: readonly Event[], first: number, count: number): Set<number> {
  return new Set(events.filter(({ began }, i) => i === first || (i > first && began <= count)).map(({ value }) => value));
}

/** Which files make the device, from an operation of the disk on. */
interface Published {
  readonly from: number;
  readonly sealed: readonly LayerFiles[];
  readonly upper: LayerFiles;
}

class Machine {
  readonly #form: Form;
  readonly #chance: Chance;
  readonly #lower: LsmtLayer | undefined;
  readonly disk: RecordedDisk;
  readonly published: Published[] = [];
  model!: Model;
  stack!: WritableStack;
  /** Of its run. */
  bootId = BOOT_ID;
  #value: number;

  constructor({ form, chance, lower }: Setup, disk: RecordedDisk, firstValue: number) {
    this.#form = form;
    this.#chance = chance;
    this.#lower = lower;
    this.disk = disk;
    this.#value = firstValue;
  }

  async create(values: readonly number[]): Promise<void> {
    const upper = newFiles(this.disk, "first");
    this.stack = await openWritableStack(this.#lowers([]), await this.#form.create(upper, SIZE, UUID));
    this.published.push({ from: this.disk.operations.length, sealed: [], upper });
    this.model = new Model(values);
  }

  /** `loose`: of each sector, as long as nothing is flushed. `bootId`: of the machine's run. */
  async open({ sealed, upper }: Omit<Published, "from">, loose: readonly ReadonlySet<number>[], bootId: string): Promise<number[]> {
    const layers = await Promise.all(sealed.map(async ({ data }) => await openLayer(data)));
    this.bootId = bootId;
    this.stack = await openWritableStack(this.#lowers(layers), await this.#form.open(upper, bootId));
    this.published.push({ from: 0, sealed, upper });
    const values = valuesOf(await this.stack.read(0, SIZE));
    this.model = new Model(values, loose);
    return values;
  }

  /** Does `steps` random things, some of them at the same time. */
  async work(steps: number): Promise<void> {
    for (let i = 0; i < steps; i++) {
      const kind = this.#chance.below(10);
      if (kind < 5) await this.#write(this.#chance.below(SECTORS), 1 + this.#chance.below(24));
      else if (kind < 7) await this.#burst();
      else if (kind < 8) await this.#discard(this.#chance.below(SECTORS), 1 + this.#chance.below(60));
      else if (kind < 9) await this.#flush();
      else if (this.#form.name !== "warp" && this.#chance.below(3) === 0) await this.#restack();
    }
  }

  /** The files after a power cut, and what may be in them. */
  cut(count: number): { files: Omit<Published, "from">; disk: RecordedDisk; allowed: Set<number>[] } {
    const disk = new RecordedDisk();
    const { sealed, upper } = this.published.findLast(({ from }) => from <= count)!;
    const after = ({ data, index, unsynced }: LayerFiles): LayerFiles => ({
      data: this.disk.cut(data, count, this.#chance, disk),
      index: this.disk.cut(index, count, this.#chance, disk),
      unsynced: this.disk.cut(unsynced, count, this.#chance, disk),
    });
    return { files: { sealed: sealed.map(after), upper: after(upper) }, disk, allowed: this.model.allowed(count) };
  }

  /** The files after the process was killed, what must be in them, and what a cut could make of them. */
  kill(count: number): { files: Omit<Published, "from">; disk: RecordedDisk; kept: Set<number>[]; allowed: Set<number>[] } {
    const { sealed, upper } = this.published.findLast(({ from }) => from <= count)!;
    const all = [...sealed, upper];
    const copies = this.disk.killed(
      all.flatMap(({ data, index, unsynced }) => [data, index, unsynced]),
      count,
    );
    const layers = all.map((_, i): LayerFiles => {
      const [data, index, unsynced] = copies.slice(3 * i);
      return { data, index, unsynced };
    });
    const files = { sealed: layers.slice(0, -1), upper: layers.at(-1)! };
    return { files, disk: copies[0].disk, kept: this.model.kept(count), allowed: this.model.allowed(count) };
  }

  get nextValue(): number {
    return this.#value;
  }

  #lowers(sealed: readonly LsmtLayer[]): ReturnType<typeof stackLayers> | undefined {
    const layers = this.#lower === undefined ? sealed : [this.#lower, ...sealed];
    return layers.length === 0 ? undefined : stackLayers(layers);
  }

  async #write(first: number, most: number): Promise<void> {
    const values = Array.from({ length: Math.min(most, SECTORS - first) }, () => this.#value++);
    const acknowledge = this.#begin(first, values);
    await this.stack.write(first * 512, sectorsOf(values));
    acknowledge();
  }

  async #discard(first: number, most: number): Promise<void> {
    const sectors = Math.min(most, SECTORS - first);
    const acknowledge = this.#begin(
      first,
      Array.from({ length: sectors }, () => 0),
    );
    await this.stack.discard(first * 512, sectors * 512);
    acknowledge();
  }

  /** Changes to places apart from each other, and flushes, all underway at once. */
  async #burst(): Promise<void> {
    const first = this.#chance.below(SECTORS - 48);
    await Promise.all(
      Array.from({ length: 6 }, async (_, i) => {
        if (this.#chance.below(4) === 0) await this.#flush();
        if (this.#chance.below(4) > 0) await this.#write(first + i * 8, 8);
        else await this.#discard(first + i * 8, 8);
        if (this.#chance.below(3) === 0) await this.#flush();
      }),
    );
  }

  async #flush(): Promise<void> {
    const covered = this.model.covered();
    await this.stack.flush();
    this.model.flushed(this.disk.operations.length, covered);
  }

  async #restack(): Promise<void> {
    const upper = newFiles(this.disk, "next");
    const before = this.published.at(-1)!;
    const next = await this.#form.create(upper, 0, UUID);
    await Promise.all([
      this.#write(this.#chance.below(SECTORS), 5),
      this.stack.restack(next, async () => {
        this.published.push({ from: this.disk.operations.length, sealed: [...before.sealed, before.upper], upper });
      }),
      this.#flush(),
    ]);
  }

  #begin(first: number, values: readonly number[]): () => void {
    const began = this.disk.operations.length;
    const events = values.map((value): Event => ({ value, began, acknowledged: undefined }));
    for (const [i, event] of events.entries()) this.model.events[first + i].push(event);
    return () => {
      for (const event of events) event.acknowledged = this.disk.operations.length;
    };
  }
}

const SEEDS = 10;
const CUTS = 10;
const KILLS = 6;

/** What a machine is made of, but for its disk. */
interface Setup {
  readonly form: Form;
  readonly chance: Chance;
  readonly lower: LsmtLayer | undefined;
}

for (const form of forms) {
  for (const below of [false, true]) {
    const over = `${form.name}${below ? " over a layer" : ""}`;

    test(`${over}: whenever the power is cut, what was flushed is there and nothing is that nobody wrote`, async () => {
      await forEachSeed(form, below, async (setup, machine, created, seed) => {
        for (let i = 0; i < CUTS; i++) {
          const count = created + setup.chance.below(machine.disk.operations.length - created + 1);
          const where = `seed ${seed}, cut after ${count} operations`;
          const second = await checkCut(setup, machine, count, where, bootIdOf(2));
          // A machine that was cut once is cut again.
          await second.work(8);
          const again = setup.chance.below(second.disk.operations.length + 1);
          await checkCut(setup, second, again, `${where}, and again after ${again}`, bootIdOf(3));
        }
      });
    });

    test(`${over}: whenever the process is killed, what was acknowledged is there, and a later cut takes nothing that was flushed`, async () => {
      await forEachSeed(form, below, async (setup, machine, created, seed) => {
        for (let i = 0; i < KILLS; i++) {
          const count = created + setup.chance.below(machine.disk.operations.length - created + 1);
          const where = `seed ${seed}, killed after ${count} operations`;
          const second = await checkKill(setup, machine, count, where);
          const killed = second.disk.operations.length;
          await second.work(8);
          for (let j = 0; j < 4; j++) {
            const again = killed + setup.chance.below(second.disk.operations.length - killed + 1);
            const third = await checkKill(setup, second, again, `${where}, and again after ${again}`);
            await third.stack.flush();
            third.model.flushed(third.disk.operations.length, third.model.covered());
            const last = third.disk.operations.length;
            await checkCut(setup, third, last, `${where}, again after ${again}, then flushed and cut`, bootIdOf(2));
            await checkCut(setup, second, again, `${where}, and cut after ${again}`, bootIdOf(2));
          }
        }
      });
    });
  }
}

async function forEachSeed(
  form: Form,
  below: boolean,
  check: (setup: Setup, machine: Machine, created: number, seed: number) => Promise<void>,
): Promise<void> {
  const lower = await lowerLayer();
  for (let seed = 1; seed <= SEEDS; seed++) {
    const setup = { form, chance: chanceOf(seed * 7919), lower: below ? lower.layer : undefined };
    const machine = new Machine(setup, new RecordedDisk(), 1);
    await machine.create(below ? lower.values : lower.values.map(() => 0));
    const created = machine.disk.operations.length;
    await machine.work(40);
    await check(setup, machine, created, seed);
  }
}

function bootIdOf(run: number): string {
  return `${BOOT_ID.slice(0, -1)}${run}`;
}

/** The machine that goes on after a cut. */
async function checkCut(setup: Setup, machine: Machine, count: number, where: string, bootId: string): Promise<Machine> {
  const { files, disk, allowed } = machine.cut(count);
  const next = new Machine(setup, disk, machine.nextValue);
  await check(async () => await next.open(files, [], bootId), allowed, where);
  return next;
}

/** The machine that goes on after its process was killed, and the device was opened again. */
async function checkKill(setup: Setup, machine: Machine, count: number, where: string): Promise<Machine> {
  const { files, disk, kept, allowed } = machine.kill(count);
  const next = new Machine(setup, disk, machine.nextValue);
  await check(async () => await next.open(files, allowed, machine.bootId), kept, where);
  return next;
}

async function check(open: () => Promise<number[]>, allowed: readonly ReadonlySet<number>[], where: string): Promise<void> {
  let values: number[];
  try {
    values = await open();
  } catch (cause) {
    throw new Error(`${where}: the device does not open`, { cause });
  }
  for (const [sector, value] of values.entries()) {
    assert.ok(allowed[sector].has(value), `${where}: sector ${sector} is ${value}, allowed are ${[...allowed[sector]].join(", ")}`);
  }
}
