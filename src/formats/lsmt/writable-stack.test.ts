import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { RecordedDisk } from "../../../test/support/recorded-file.ts";
import { forms, newFiles, reopened, UUID, type Form, type LayerFiles } from "../../../test/support/writable-forms.ts";
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
    for (const files of [this.#files, ...this.#sealed]) reopened(files);
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

test("reads go on during a snapshot, writes wait for the new layer, and a flush covers both", async () => {
  for (const form of forms.slice(0, 2)) {
    const disk = new RecordedDisk();
    const [old, next] = [newFiles(disk, "old"), newFiles(disk, "next")];
    const stack = await openWritableStack(undefined, await form.create(old, SIZE, UUID));
    await stack.write(0, written(8192, 1));
    const published = Promise.withResolvers<void>();
    const begun = Promise.withResolvers<void>();
    const early = stack.write(8192, written(4096, 2));
    const snapshot = stack.restack(await form.create(next, SIZE, UUID), async () => {
      begun.resolve();
      await published.promise;
    });
    const late = stack.write(4096, written(4096, 3));
    await begun.promise;
    await early;
    assert.equal(Buffer.compare(await stack.read(4096, 4096), written(8192, 1).subarray(4096)), 0);
    await stack.flush();
    const finished = await openLayer(old.data);
    assert.equal(Buffer.compare(await stackLayers([finished]).read(8192, 4096), written(4096, 2)), 0);
    published.resolve();
    await Promise.all([snapshot, late]);
    assert.equal(Buffer.compare(await stack.read(4096, 4096), written(4096, 3)), 0);
    assert.equal(Buffer.compare(await stack.read(0, 4096), written(4096, 1)), 0);
    assert.equal(Buffer.compare(await stackLayers([finished]).read(4096, 4096), written(8192, 1).subarray(4096)), 0);
    await stack.close();
    assert.ok(old.data.closed && next.data.closed);
  }
});

test("a read that began before a snapshot ends with what was there", async () => {
  const disk = new RecordedDisk();
  const [form] = forms;
  const stack = await openWritableStack(undefined, await form.create(newFiles(disk, "old"), SIZE, UUID));
  await stack.write(0, written(SIZE, 1));
  const next = await form.create(newFiles(disk, "next"), 0, UUID);
  const reads = Array.from({ length: 20 }, async () => await stack.read(512, SIZE - 1024));
  await stack.restack(next, async () => {});
  const overwriting = stack.write(0, written(SIZE, 9));
  for (const bytes of await Promise.all(reads)) assert.equal(Buffer.compare(bytes, written(SIZE, 1).subarray(512, SIZE - 512)), 0);
  await overwriting;
  assert.equal(stack.upper, next);
});

test("a snapshot that cannot be published leaves the old layer on top, which is written to as before", async () => {
  for (const form of forms) {
    const disk = new RecordedDisk();
    const files = newFiles(disk, "old");
    const stack = await openWritableStack(undefined, await form.create(files, SIZE, UUID));
    await stack.write(0, written(5000, 1));
    const next = await form.create(newFiles(disk, "next"), SIZE, UUID);
    const failure = form.name === "warp" ? /cannot be sealed in place/ : /no room for the configuration/;
    await assert.rejects(
      stack.restack(next, async () => {
        throw new Error("no room for the configuration");
      }),
      failure,
    );
    await stack.write(3000, written(5000, 2));
    await stack.close();
    reopened(files);
    const again = await openWritableStack(undefined, await form.open(files));
    assert.equal(Buffer.compare(await again.read(0, 8000), Buffer.concat([written(3000, 1), written(5000, 2)])), 0);
    assert.equal(next.segments.count, 0);
  }
});

test("a layer that holds data or is for another size is no next layer of a snapshot", async () => {
  const disk = new RecordedDisk();
  const [form] = forms;
  const stack = await openWritableStack(undefined, await form.create(newFiles(disk, "old"), SIZE, UUID));
  const publish = async (): Promise<void> => assert.fail("published");
  const used = await form.create(newFiles(disk, "used"), SIZE, UUID);
  await used.write(0, written(512, 1));
  await assert.rejects(stack.restack(used, publish), /holds data already/);
  await assert.rejects(stack.restack(await form.create(newFiles(disk, "large"), 2 * SIZE, UUID), publish), /is for a device of/);
});

test("writes to parts of the same block at the same time are all there", async () => {
  for (const form of forms) {
    const { lowers, bytes } = await lowerDevice();
    const stack = await openWritableStack(lowers, await form.create(newFiles(new RecordedDisk(), form.name), SIZE, UUID));
    const places = Array.from({ length: 300 }, (_, i) => i * 37);
    await Promise.all(places.map(async (offset, i) => await stack.write(offset, written(20, i))));
    for (const [i, offset] of places.entries()) bytes.set(written(20, i), offset);
    assert.equal(Buffer.compare(await stack.read(0, SIZE), bytes), 0);
  }
});

test("a layer without a size gets that of the device below, and one alone is refused", async () => {
  const { lowers } = await lowerDevice();
  for (const form of forms) {
    const files = newFiles(new RecordedDisk(), form.name);
    const upper = await form.create(files, 0, UUID);
    await assert.rejects(openWritableStack(undefined, upper), { code: "USAGE" });
    const stack = await openWritableStack(lowers, upper);
    assert.equal(stack.size, SIZE);
    assert.equal((await form.open(files)).virtualSize, SIZE);
  }
});

test("a device that grows has zeros at its new end, whatever was there below or before", async () => {
  for (const form of forms) {
    const { lowers, bytes } = await lowerDevice();
    const files = newFiles(new RecordedDisk(), form.name);
    const stack = await openWritableStack(lowers, await form.create(files, SIZE, UUID));
    await stack.write(SIZE - 512, written(512, 5));
    await stack.resize(62 * 512);
    await assert.rejects(stack.write(62 * 512, written(512, 5)), { code: "USAGE" });
    await assert.rejects(stack.read(62 * 512, 512), { code: "CORRUPT" });
    await stack.resize(SIZE);
    bytes.fill(0, 62 * 512);
    assert.equal(Buffer.compare(await stack.read(0, SIZE), bytes), 0, form.name);
    await stack.close();
    reopened(files);
    const again = await openWritableStack(lowers, await form.open(files));
    assert.equal(Buffer.compare(await again.read(0, SIZE), bytes), 0, `${form.name}, opened again`);
  }
});

test("discarding what reads as zeros already takes no room", async () => {
  const size = 64 * 2 ** 30;
  for (const form of forms) {
    const files = newFiles(new RecordedDisk(), form.name);
    const stack = await openWritableStack(undefined, await form.create(files, size, UUID));
    await stack.discard(0, size);
    await stack.write(1 << 30, written(4096, 1));
    await stack.discard(0, size);
    await stack.discard(0, size);
    await stack.flush();
    assert.equal(stack.upper.segments.count, 1, form.name);
    assert.equal(Buffer.compare(await stack.read(1 << 30, 4096), Buffer.alloc(4096)), 0);
  }
});
