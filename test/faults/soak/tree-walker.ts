import assert from "node:assert/strict";
import { constants } from "node:fs";
import { mkdir, open, readdir, rename, unlink, writeFile, type FileHandle } from "node:fs/promises";
import { messageOf } from "../../../src/errors.ts";
import { noise } from "../../journeys/turbo-support.ts";
import { run } from "../../support/command.ts";
import type { Chance } from "../../support/recorded-file.ts";
import { pages } from "./block-access.ts";
import type { SoakBench } from "./soak-bench.ts";
import { createUpper, type FileImage } from "./soak-images.ts";
import { HangError, timely } from "./timely.ts";
import { amid, Clock, oneOf, type Walker } from "./walk.ts";

const EVENT_MS = 5000;
const FILES = 12;
const MAX_FILE_BYTES = 400_000;
const PAGE_BYTES = 4096;

/** A mounted device: what is the same for those that are written and those that are not. */
abstract class MountWalker implements Walker {
  readonly id: string;
  protected readonly bench: SoakBench;
  protected readonly chance: Chance;
  readonly #clock: Clock;
  readonly #config: string;
  readonly #mountPoint: string;
  #root: FileHandle | undefined;
  #pid: number | undefined;

  protected constructor(id: string, bench: SoakBench, chance: Chance) {
    this.id = id;
    this.bench = bench;
    this.chance = chance;
    this.#clock = new Clock(chance, EVENT_MS);
    this.#config = bench.daemon.join(`${id}.json`);
    this.#mountPoint = bench.daemon.join(`${id}-mnt`);
  }

  /** Nothing of it comes from elsewhere: as long as it is left alone nothing fails. */
  protected abstract readonly isLocal: boolean;
  /** Does one small thing. */
  protected abstract act(): Promise<void>;
  /** All of it is right, and nothing fails. */
  abstract checkpoint(): Promise<void>;
  /** It is mounted anew: after a crash, or in good order. */
  protected abstract mounted(): Promise<void>;

  /** The root of what is mounted, also when it is not to be found at its place any more. */
  protected get directory(): string {
    assert.ok(this.#root !== undefined);
    return `/proc/self/fd/${this.#root.fd}`;
  }

  protected async start(config: object): Promise<void> {
    await mkdir(this.#mountPoint);
    await writeFile(this.#config, JSON.stringify(config));
    await this.#open();
  }

  async step(): Promise<void> {
    if (!this.#clock.isTime()) return await this.#tryAct(!this.isLocal);
    const kind = this.chance.below(4);
    if (kind < 2) await this.#kill();
    else await this.#remove(kind === 2);
    await this.#open();
  }

  async end(): Promise<void> {
    await this.#remove(false);
  }

  protected note(what: string): void {
    this.bench.note(this.id, what);
  }

  async #kill(): Promise<void> {
    this.note(`kill ${this.#pid}`);
    await amid(this.chance, this.#actOften(), () => {
      assert.ok(this.#pid !== undefined);
      process.kill(this.#pid, "SIGKILL");
    });
    await this.#leave();
  }

  async #remove(force: boolean): Promise<void> {
    this.note(`remove${force ? " --force" : ""}`);
    const removal = async (): Promise<void> => await this.bench.gone(this.id, force);
    if (!force) await this.#leave();
    if (force) await amid(this.chance, this.#actOften(), removal);
    else await removal();
    await this.#leave();
    this.#pid = undefined;
  }

  async #open(): Promise<void> {
    const expose = { kind: "mount", directory: this.#mountPoint } as const;
    const report = await this.bench.present({ id: this.id, config: this.#config, expose }, this.#pid);
    this.#pid = report.pid;
    this.note(`open, process ${this.#pid}`);
    this.#root = await timely("open", open(this.#mountPoint, "r"));
    await this.mounted();
  }

  async #leave(): Promise<void> {
    await this.#root?.close();
    this.#root = undefined;
  }

  async #actOften(): Promise<void> {
    for (let i = 0; i < 12; i++) await this.#tryAct(true);
  }

  async #tryAct(mayFail: boolean): Promise<void> {
    try {
      await this.act();
    } catch (error) {
      if (error instanceof assert.AssertionError || error instanceof HangError || !mayFail) throw error;
      this.note(`failed: ${messageOf(error)}`);
    }
  }
}

/** Reads the files of a turboOCI image. */
export class FileReader extends MountWalker {
  protected readonly isLocal = false;
  readonly #files: FileImage["files"];

  private constructor(id: string, bench: SoakBench, chance: Chance, files: FileImage["files"]) {
    super(id, bench, chance);
    this.#files = files;
  }

  static async start(id: string, bench: SoakBench, chance: Chance, { image, files }: FileImage): Promise<FileReader> {
    const walker = new FileReader(id, bench, chance, files);
    await walker.start(image);
    return walker;
  }

  async checkpoint(): Promise<void> {
    this.note("checkpoint");
    for (const [name, expected] of this.#files) await this.#compare(name, expected, 0, expected.length, false);
  }

  protected async act(): Promise<void> {
    const [name, expected] = oneOf(this.chance, [...this.#files]);
    const offset = Math.floor(this.chance.below(expected.length) / PAGE_BYTES) * PAGE_BYTES;
    await this.#compare(name, expected, offset, 1 + this.chance.below(200_000), this.chance.below(2) === 0);
  }

  protected async mounted(): Promise<void> {}

  async #compare(name: string, expected: Buffer, offset: number, length: number, direct: boolean): Promise<void> {
    this.note(`read ${direct ? "direct" : "cached"} ${name} ${offset}+${length}`);
    const found = await readRange(`${this.directory}/${name}`, offset, length, direct);
    assert.ok(found.equals(expected.subarray(offset, offset + length)), `${this.id}: ${name}, ${offset}+${length} differs`);
  }
}

/** Writes files, each so that it is there whole or not at all, and looks whether they are after crashes. */
export class FileWriter extends MountWalker {
  protected readonly isLocal = true;
  /** What a name may stand for: versions, or nothing. More than one while it is being changed, and from a crash to the next mount. */
  readonly #files = new Map<string, (string | undefined)[]>();
  #version = 0;

  static async start(id: string, bench: SoakBench, chance: Chance): Promise<FileWriter> {
    const upper = await createUpper(bench.daemon.join(id), "append", "1");
    const config = bench.daemon.join(`${id}-mkfs.json`);
    await writeFile(config, JSON.stringify({ upper }));
    // With a journal, without which no file system bears a crash.
    const { access } = await bench.present({ id, config, expose: { kind: "loop" } });
    assert.ok(access?.kind === "loop");
    await run("mkfs.ext4", ["-q", access.device]);
    await bench.gone(id);
    const walker = new FileWriter(id, bench, chance);
    await walker.start({ upper });
    return walker;
  }

  async checkpoint(): Promise<void> {
    this.note("checkpoint");
    await this.#write("checkpoint");
    for (const name of this.#files.keys()) await this.#compare(name);
  }

  protected async act(): Promise<void> {
    const name = `f${this.chance.below(FILES)}`;
    const kind = this.chance.below(10);
    if (kind < 4) await this.#write(name);
    else if (kind < 5) await this.#delete(name);
    else await this.#compare(name);
  }

  protected async mounted(): Promise<void> {
    for (const name of await timely("list", readdir(this.directory))) {
      if (name.endsWith(".new")) await timely("unlink", unlink(`${this.directory}/${name}`));
    }
    // What is found now came from the disk, and stays.
    for (const name of this.#files.keys()) this.#files.set(name, [await this.#compare(name)]);
  }

  async #write(name: string): Promise<void> {
    const version = `${name} ${this.#version++}`;
    const bytes = contentOf(version);
    this.note(`write ${version}, ${bytes.length} bytes`);
    const path = `${this.directory}/${name}`;
    await using file = await timely("open", open(`${path}.new`, "w"));
    await timely("write", file.writeFile(bytes));
    await timely("fsync", file.sync());
    await this.#change(name, version, async () => await rename(`${path}.new`, path));
  }

  async #delete(name: string): Promise<void> {
    if (this.#files.get(name)?.at(-1) === undefined) return;
    this.note(`delete ${name}`);
    await this.#change(name, undefined, async () => await unlink(`${this.directory}/${name}`));
  }

  /** From now on a name may stand for something else; once that is on disk, for nothing besides. */
  async #change(name: string, version: string | undefined, change: () => Promise<void>): Promise<void> {
    this.#files.set(name, [...(this.#files.get(name) ?? [undefined]), version]);
    await timely("change", change());
    await using directory = await timely("open", open(this.directory, "r"));
    await timely("fsync", directory.sync());
    this.#files.set(name, [version]);
  }

  /** What of all it may stand for it does. */
  async #compare(name: string): Promise<string | undefined> {
    const possible = this.#files.get(name) ?? [undefined];
    const found = await this.#read(name);
    const at = possible.findIndex((candidate) => (candidate === undefined ? found === undefined : found?.equals(contentOf(candidate))));
    assert.ok(at >= 0, `${this.id}: ${name} has ${found?.length ?? "no"} bytes that are not ${possible.join(" or ")}`);
    this.note(`read ${name}`);
    return possible[at];
  }

  async #read(name: string): Promise<Buffer | undefined> {
    try {
      return await readRange(`${this.directory}/${name}`, 0, 2 * MAX_FILE_BYTES, this.chance.below(2) === 0);
    } catch (error) {
      if (error instanceof Error && "code" in error && error.code === "ENOENT") return undefined;
      throw error;
    }
  }
}

function contentOf(version: string): Buffer {
  const size = 1 + (noise(`size of ${version}`, 4).readUInt32LE() % MAX_FILE_BYTES);
  return noise(version, size);
}

/** Up to `length` bytes; fewer at the end of the file. */
async function readRange(path: string, offset: number, length: number, direct: boolean): Promise<Buffer> {
  await using file = await timely("open", open(path, constants.O_RDONLY | (direct ? constants.O_DIRECT : 0)));
  const target = pages(Math.ceil(length / PAGE_BYTES) * PAGE_BYTES);
  let done = 0;
  while (done < length) {
    const { bytesRead } = await timely("read", file.read(target, done, target.length - done, offset + done));
    done += bytesRead;
    // The end of a file is where direct reading leaves the grid.
    if (bytesRead === 0 || done % PAGE_BYTES !== 0) break;
  }
  return target.subarray(0, Math.min(done, length));
}
