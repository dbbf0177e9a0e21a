import assert from "node:assert/strict";
import { test } from "node:test";
import { chanceOf, RecordedDisk, type Chance } from "../../../test/support/recorded-file.ts";
import { forms, newFiles, UUID, type Form, type LayerFiles } from "../../../test/support/writable-forms.ts";
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
  /** Operations of the disk before it began. */
  readonly began: number;
  acknowledged: boolean;
}

/** What a sector may hold after a cut: what the last flush that ended before it covers, and all that came later. */
class Model {
  readonly events: Event[][];
  readonly #flushes: { readonly ended: number; readonly covered: number[] }[] = [];

  constructor(values: readonly number[]) {
    this.events = values.map((value) => [{ value, began: 0, acknowledged: true }]);
    this.#flushes.push({ ended: 0, covered: values.map(() => 0) });
  }

  /** The last event of each sector that is acknowledged now. */
  covered(): number[] {
    return this.events.map((events) => events.findLastIndex(({ acknowledged }) => acknowledged));
  }

  flushed(ended: number, covered: number[]): void {
    this.#flushes.push({ ended, covered });
  }

  allowed(cut: number): Set<number>[] {
    const last = this.#flushes.findLast(({ ended }) => ended <= cut)!;
    return this.events.map(
      (events, sector) =>
        new Set(
          events
            .filter(({ began }, i) => i === last.covered[sector] || (i > last.covered[sector] && began <= cut))
            .map(({ value }) => value),
        ),
    );
  }
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
  #value: number;

  constructor(form: Form, chance: Chance, lower: LsmtLayer | undefined, disk: RecordedDisk, firstValue: number) {
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

  async open({ sealed, upper }: Omit<Published, "from">): Promise<number[]> {
    const layers = await Promise.all(sealed.map(async ({ data }) => await openLayer(data)));
    this.stack = await openWritableStack(this.#lowers(layers), await this.#form.open(upper));
    this.published.push({ from: 0, sealed, upper });
    const values = valuesOf(await this.stack.read(0, SIZE));
    this.model = new Model(values);
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
    const after = ({ data, index }: LayerFiles): LayerFiles => ({
      data: this.disk.cut(data, count, this.#chance, disk),
      index: this.disk.cut(index, count, this.#chance, disk),
    });
    return { files: { sealed: sealed.map(after), upper: after(upper) }, disk, allowed: this.model.allowed(count) };
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
    const events = values.map((value): Event => ({ value, began, acknowledged: false }));
    for (const [i, event] of events.entries()) this.model.events[first + i].push(event);
    return () => {
      for (const event of events) event.acknowledged = true;
    };
  }
}

const SEEDS = 10;
const CUTS = 10;

for (const form of forms) {
  for (const below of [false, true]) {
    test(`${form.name}${below ? " over a layer" : ""}: whenever the power is cut, what was flushed is there and nothing is that nobody wrote`, async () => {
      const lower = await lowerLayer();
      for (let seed = 1; seed <= SEEDS; seed++) {
        const chance = chanceOf(seed * 7919);
        const machine = new Machine(form, chance, below ? lower.layer : undefined, new RecordedDisk(), 1);
        await machine.create(below ? lower.values : lower.values.map(() => 0));
        const created = machine.disk.operations.length;
        await machine.work(40);
        for (let i = 0; i < CUTS; i++) {
          const count = created + chance.below(machine.disk.operations.length - created + 1);
          await checkCut(machine, count, `seed ${seed}, cut after ${count} operations`, async (files, disk, where) => {
            // A machine that was cut once is cut again.
            const second = new Machine(form, chance, below ? lower.layer : undefined, disk, machine.nextValue);
            const values = await opened(second, files, where);
            await second.work(8);
            const again = chance.below(disk.operations.length + 1);
            await checkCut(second, again, `${where}, and again after ${again}`, async (lastFiles, lastDisk, lastWhere) => {
              const last = new Machine(form, chance, below ? lower.layer : undefined, lastDisk, second.nextValue);
              return await opened(last, lastFiles, lastWhere);
            });
            return values;
          });
        }
      }
    });
  }
}

async function opened(machine: Machine, files: Omit<Published, "from">, where: string): Promise<number[]> {
  try {
    return await machine.open(files);
  } catch (cause) {
    throw new Error(`${where}: the device does not open`, { cause });
  }
}

async function checkCut(
  machine: Machine,
  count: number,
  where: string,
  open: (files: Omit<Published, "from">, disk: RecordedDisk, where: string) => Promise<number[]>,
): Promise<void> {
  const { files, disk, allowed } = machine.cut(count);
  const values = await open(files, disk, where);
  for (const [sector, value] of values.entries()) {
    assert.ok(allowed[sector].has(value), `${where}: sector ${sector} is ${value}, allowed are ${[...allowed[sector]].join(", ")}`);
  }
}
