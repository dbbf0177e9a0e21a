import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { RecordedDisk } from "../../../test/support/recorded-file.ts";
import { forms, newFiles, UUID, type Form, type LayerFiles } from "../../../test/support/writable-forms.ts";
import { MemorySink } from "../../bytes/sink.ts";
import { MemorySource, type ByteSource } from "../../bytes/source.ts";
import { LsmtWriter } from "./lsmt-writer.ts";
import { MappingList } from "./mapping-list.ts";
import { openLayer } from "./lsmt-reader.ts";
import { stackLayers } from "./stack.ts";
import { openWritableStack, type LowerDevice, type WritableStack } from "./writable-stack.ts";

const SIZE = 96 * 512;

/** A device below, and what it shows: some data, some zeros that are mapped, holes. */
async function lowerDevice(): Promise<{ lowers: LowerDevice; bytes: Uint8Array }> {
  const sink = new MemorySink();
  const writer = new LsmtWriter(sink, { virtualSize: SIZE });
  const mappings = new MappingList();
  const bytes = new Uint8Array(SIZE);
  for (const [first, sectors] of [
    [3, 10],
    [40, 5],
    [60, 30],
  ]) {
    const data = new Uint8Array(sectors * 512).map((_, i) => 1 + ((first * 7 + i) % 251));
    bytes.set(data, first * 512);
    mappings.add(first, sectors, await writer.append(data));
  }
  mappings.add(20, 10, 8, true);
  await writer.close(mappings);
  return { lowers: stackLayers([await openLayer(new MemorySource(sink.bytes(), "lower"))]), bytes };
}

/** The same device, of which nothing is known but its bytes. */
function opaque(source: ByteSource): LowerDevice {
  return { name: source.name, size: source.size, read: async (offset, length) => await source.read(offset, length), close: async () => {} };
}

type Step =
  | { readonly kind: "write"; readonly offset: number; readonly length: number; readonly seed: number }
  | { readonly kind: "discard"; readonly offset: number; readonly length: number }
  | { readonly kind: "flush" | "reopen" | "restack" };

const range = fc
  .tuple(fc.nat(SIZE - 1), fc.oneof(fc.integer({ min: 1, max: 9 }), fc.nat(8000)), fc.boolean())
  .map(([offset, length, aligned]) => {
    const start = aligned ? Math.floor(offset / 512) * 512 : offset;
    const end = Math.min(SIZE, start + (aligned ? Math.ceil((length + 1) / 512) * 512 : length + 1));
    return { offset: start, length: end - start };
  });

const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 6, arbitrary: fc.tuple(range, fc.nat()).map(([place, seed]): Step => ({ kind: "write", ...place, seed })) },
  { weight: 3, arbitrary: range.map((place): Step => ({ kind: "discard", ...place })) },
  { weight: 1, arbitrary: fc.constantFrom<Step>({ kind: "flush" }, { kind: "reopen" }, { kind: "restack" }) },
);

function written(length: number, seed: number): Uint8Array {
  return new Uint8Array(length).map((_, i) => (seed + i * 13) % 256);
}

/** A device with its files, which can be opened again. */
class Fixture {
  readonly #form: Form;
  readonly #disk = new RecordedDisk();
  readonly #lowers: LowerDevice | undefined;
  readonly #sealed: LayerFiles[] = [];
  #files: LayerFiles;
  stack!: WritableStack;

  constructor(form: Form, lowers: LowerDevice | undefined) {
    this.#form = form;
    this.#lowers = lowers;
    this.#files = newFiles(this.#disk, "first");
  }

  async create(): Promise<void> {
    this.stack = await openWritableStack(this.#lowers, await this.#form.create(this.#files, SIZE, UUID));
  }

  async reopen(): Promise<void> {
    await this.stack.close();
    for (const { data, index } of [this.#files, ...this.#sealed]) data.closed = index.closed = false;
    const sealed = await Promise.all(this.#sealed.map(async ({ data }) => await openLayer(data)));
    const below = this.#lowers && "layers" in this.#lowers ? (this.#lowers.layers as never[]) : [];
    const lowers = sealed.length === 0 ? this.#lowers : stackLayers([...below, ...sealed]);
    this.stack = await openWritableStack(lowers, await this.#form.open(this.#files));
  }

  async restack(): Promise<void> {
    const files = newFiles(this.#disk, `after ${this.#sealed.length}`);
    const next = await this.#form.create(files, this.#sealed.length % 2 === 0 ? SIZE : 0, UUID);
    await this.stack.restack(next, async () => {
      this.#sealed.push(this.#files);
      this.#files = files;
    });
  }
}

for (const form of forms) {
  for (const below of ["nothing", "layers", "a device of unknown holes"] as const) {
    test(`${form.name}: random writes and discards over ${below} read as a model says, also when opened again`, async () => {
      const lower = await lowerDevice();
      await fc.assert(
        fc.asyncProperty(fc.array(step, { maxLength: 30 }), async (steps) => {
          const model = below === "nothing" ? new Uint8Array(SIZE) : lower.bytes.slice();
          const fixture = new Fixture(form, below === "nothing" ? undefined : below === "layers" ? lower.lowers : opaque(lower.lowers));
          await fixture.create();
          for (const each of steps) {
            if (each.kind === "write") {
              const bytes = written(each.length, each.seed);
              model.set(bytes, each.offset);
              await fixture.stack.write(each.offset, bytes);
            } else if (each.kind === "discard") {
              model.fill(0, each.offset, each.offset + each.length);
              await fixture.stack.discard(each.offset, each.length);
            } else if (each.kind === "flush") await fixture.stack.flush();
            else if (each.kind === "reopen") await fixture.reopen();
            else if (form.name !== "warp" && below === "layers") await fixture.restack();
          }
          assert.equal(Buffer.compare(await fixture.stack.read(0, SIZE), model), 0);
          await fixture.reopen();
          assert.equal(Buffer.compare(await fixture.stack.read(0, SIZE), model), 0, "opened again");
        }),
        { numRuns: 60 },
      );
    });
  }
}
