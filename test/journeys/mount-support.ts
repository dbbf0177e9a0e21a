import assert from "node:assert/strict";
import { appendFileSync, existsSync, readdirSync, readFileSync } from "node:fs";
import { mkdir, symlink } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { zstdDecompressSync } from "node:zlib";
import { Command } from "commander";
import { MemorySource, type ByteSource } from "../../src/bytes/source.ts";
import { addMountCommand } from "../../src/cli/mount.ts";
import type { MountEnvironment } from "../../src/cli/mount-request.ts";
import { addServeMountCommand } from "../../src/cli/serve-mount.ts";
import { addUmountCommand } from "../../src/cli/umount.ts";
import { LazyError, messageOf } from "../../src/errors.ts";
import { openLayoutStore } from "../../src/image-layout/layout-store.ts";
import { parseMountInfo } from "../../src/native/mounts.ts";
import { digestOf } from "../../src/oci/digest.ts";
import type { Descriptor } from "../../src/oci/descriptor.ts";
import type { ImageStore } from "../../src/oci/image-store.ts";
import { parseManifest } from "../../src/oci/manifest.ts";
import { OCI_CONFIG, OCI_LAYER_TAR, OCI_MANIFEST } from "../../src/oci/media-types.ts";
import { execute, type CommandResult } from "../support/command.ts";
import { TemporaryDirectory } from "../support/temporary-directory.ts";

const TESTDATA = new URL("../../testdata/overlaybd/", import.meta.url);

function testdata(name: string): Buffer {
  return zstdDecompressSync(readFileSync(new URL(`${name}.zst`, TESTDATA)));
}

/** The three layers of the image in testdata, the lowest first. */
export function stackLayerBlobs(): Buffer[] {
  return [0, 1, 2].map((layer) => testdata(`stack-layer${layer}.commit`));
}

/** The entries of its tree. */
export function stackTree(): unknown[] {
  return parseLines(testdata("stack-tree.jsonl").toString());
}

function parseLines(text: string): unknown[] {
  return text
    .trimEnd()
    .split("\n")
    .map((line): unknown => JSON.parse(line));
}

/** What a mounted tree holds, as the kernel shows it. */
export async function listTree(directory: string): Promise<unknown[]> {
  const { status, stdout, stderr } = await execute("python3", [fileURLToPath(new URL("mount-listing.py", import.meta.url)), directory]);
  assert.equal(status, 0, stderr);
  return parseLines(stdout.toString());
}

/** A place for one test: an image layout, a state and a cache directory, and mount points. On disposal nothing may be mounted there. */
export class MountBench implements AsyncDisposable {
  readonly #directory: TemporaryDirectory;

  private constructor(directory: TemporaryDirectory) {
    this.#directory = directory;
  }

  static async create(blobs: readonly Uint8Array[] = stackLayerBlobs()): Promise<MountBench> {
    assert.equal(process.geteuid?.(), 0, "this test mounts file systems: run it as root");
    const bench = new MountBench(await TemporaryDirectory.create());
    await bench.#writeLayout(blobs);
    return bench;
  }

  join(...names: string[]): string {
    return this.#directory.join(...names);
  }

  async mountPoint(name = "mnt"): Promise<string> {
    await mkdir(this.join(name), { recursive: true });
    return this.join(name);
  }

  /** Command line of the program under test, with this bench's directories. */
  arguments(...args: string[]): string[] {
    return [fileURLToPath(import.meta.url), this.#directory.path, ...args];
  }

  async lazylayer(...args: string[]): Promise<CommandResult> {
    return await execute(process.execPath, this.arguments(...args));
  }

  async mount(directory: string, ...options: string[]): Promise<void> {
    const { status, stdout, stderr } = await this.lazylayer("mount", ...options, "image", directory);
    assert.equal(stderr, "");
    assert.equal(stdout.toString(), `${directory}\n`);
    assert.equal(status, 0);
  }

  async umount(...args: string[]): Promise<void> {
    const { status, stderr } = await this.lazylayer("umount", ...args);
    assert.equal(stderr, "");
    assert.equal(status, 0);
  }

  /** Makes the cache's disk refuse whatever is written to it. */
  async fillDisk(): Promise<void> {
    await mkdir(this.join("cache"));
    for (const blob of stackLayerBlobs()) {
      await symlink("/dev/full", this.join("cache", `${digestOf(blob).replace(":", "-")}.65536.0`));
    }
  }

  /** Ranges fetched of each layer, by digest. */
  fetched(): Map<string, string[]> {
    const ranges = new Map<string, string[]>();
    for (const line of existsSync(this.join("fetches")) ? readFileSync(this.join("fetches"), "utf8").trimEnd().split("\n") : []) {
      const [digest, range] = line.split(" ");
      ranges.set(digest, [...(ranges.get(digest) ?? []), range]);
    }
    return ranges;
  }

  /** Mounts of file systems, loop devices' files, processes and state directories that belong to this bench. */
  leftovers(): string[] {
    const mounts = parseMountInfo(readFileSync("/proc/self/mountinfo", "utf8"));
    const path = this.#directory.path;
    return [
      ...mounts.filter(({ directory }) => directory.startsWith(path)).map(({ directory }) => `mount ${directory}`),
      ...loopFiles()
        .filter((file) => file.startsWith(path))
        .map((file) => `loop ${file}`),
      ...this.servers().map((pid) => `process ${pid}`),
      ...(existsSync(this.join("state")) ? readdirSync(this.join("state")) : []).map((name) => `state ${name}`),
    ];
  }

  /** Process ids of this bench's serving processes. */
  servers(): number[] {
    const isServer = (pid: string): boolean => {
      const commandLine = readIfThere(`/proc/${pid}/cmdline`);
      return commandLine.includes("serve-mount") && commandLine.includes(this.#directory.path);
    };
    return readdirSync("/proc")
      .filter((name) => /^\d+$/.test(name) && isServer(name))
      .map(Number);
  }

  /** Waits until nothing is left; says what is after ten seconds. */
  async allGone(): Promise<void> {
    for (let i = 0; i < 500 && this.leftovers().length > 0; i++) await sleep(20);
    assert.deepEqual(this.leftovers(), []);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const left = this.leftovers();
    for (const pid of this.servers()) process.kill(pid, "SIGCONT");
    for (const pid of this.servers()) process.kill(pid, "SIGTERM");
    for (let i = 0; i < 250 && this.servers().length > 0; i++) await sleep(20);
    if (this.leftovers().length === 0) await this.#directory[Symbol.asyncDispose]();
    assert.deepEqual(left, [], "the test leaves nothing behind");
  }

  async #writeLayout(blobs: readonly Uint8Array[]): Promise<void> {
    const store = await openLayoutStore(this.join("image"), { create: true });
    const put = async (bytes: Uint8Array, mediaType: string): Promise<Descriptor> => {
      const descriptor = { mediaType, digest: digestOf(bytes), size: bytes.length };
      await store.putBlob(descriptor, new MemorySource(bytes));
      return descriptor;
    };
    const config = await put(Buffer.from(`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}`), OCI_CONFIG);
    const layers = await Promise.all(blobs.map(async (blob) => await put(blob, OCI_LAYER_TAR)));
    const manifest = { schemaVersion: 2, mediaType: OCI_MANIFEST, config, layers };
    await store.putManifest(Buffer.from(JSON.stringify(manifest)), OCI_MANIFEST, { tag: "latest" });
    await store.close();
  }
}

function readIfThere(path: string): string {
  try {
    return readFileSync(path, "latin1");
  } catch {
    return ""; // gone meanwhile
  }
}

function loopFiles(): string[] {
  return readdirSync("/sys/block")
    .map((name) => readIfThere(`/sys/block/${name}/loop/backing_file`))
    .filter((file) => file !== "");
}

/**
 * A layer whose reads are noted in `fetches`. While a file of that name is there, they fail (`failing`), wait (`stalling`), or wait
 * if the layers are served already (`stalling-served`).
 */
class ProbedSource implements ByteSource {
  readonly name: string;
  readonly size: number;
  readonly #inner: ByteSource;
  readonly #directory: string;
  readonly #digest: string;

  constructor(inner: ByteSource, directory: string, digest: string) {
    this.name = inner.name;
    this.size = inner.size;
    this.#inner = inner;
    this.#directory = directory;
    this.#digest = digest;
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    appendFileSync(`${this.#directory}/fetches`, `${this.#digest} ${offset}+${length}\n`);
    while (existsSync(`${this.#directory}/stalling`) || (existsSync(`${this.#directory}/stalling-served`) && isServed(this.#directory))) {
      await sleep(20);
    }
    if (existsSync(`${this.#directory}/failing`)) throw new LazyError("UNAVAILABLE", `${this.name}: gone`);
    return await this.#inner.read(offset, length);
  }

  async close(): Promise<void> {
    await this.#inner.close();
  }
}

function isServed(directory: string): boolean {
  const mounts = parseMountInfo(readFileSync("/proc/self/mountinfo", "utf8"));
  return mounts.some((mount) => mount.type === "fuse.lazylayer" && mount.directory.startsWith(`${directory}/`));
}

function probing(store: ImageStore, directory: string): ImageStore {
  return new Proxy(store, {
    get: (target, name: keyof ImageStore) =>
      name === "blobSource"
        ? async (descriptor: Descriptor) => new ProbedSource(await target.blobSource(descriptor), directory, descriptor.digest)
        : typeof target[name] === "function"
          ? target[name].bind(target)
          : target[name],
  });
}

/** The program under test: the commands, on a layout whose blobs can be made to fail. Arguments: the bench's directory, then as usual. */
async function main(): Promise<void> {
  const [directory, ...args] = process.argv.slice(2);
  const stopped = new AbortController();
  for (const name of ["SIGINT", "SIGTERM"] as const)
    process.on(name, () => stopped.abort(new LazyError("UNAVAILABLE", `ended by ${name}`)));
  const environment: MountEnvironment = {
    openImage: async (image) => {
      const store = probing(await openLayoutStore(`${directory}/${image}`), directory);
      const { descriptor, bytes } = await store.resolve({ tag: "latest" });
      const manifest = parseManifest(bytes, descriptor.mediaType, image);
      return { store, dataPlace: undefined, manifest, close: async () => await store.close() };
    },
    stdout: process.stdout,
    stderr: process.stderr,
    stateDirectory: `${directory}/state`,
    cacheDirectory: `${directory}/cache`,
    launcher: [process.execPath, process.argv[1], directory],
    signal: stopped.signal,
  };
  const program = new Command("lazylayer");
  addMountCommand(program, environment);
  addUmountCommand(program, environment);
  addServeMountCommand(program, environment);
  try {
    await program.parseAsync(args, { from: "user" });
  } catch (error) {
    process.stderr.write(`lazylayer: ${messageOf(error)}\n`);
    process.exitCode = 1;
  }
}

if (import.meta.main) await main();
