import assert from "node:assert/strict";
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { isDeepStrictEqual } from "node:util";
import { setTimeout as sleep } from "node:timers/promises";
import type { SoakBench } from "./soak-bench.ts";

/** Memory goes up and down with what is read; this is more than that. */
const GROWTH_MIB = 96;
/** Besides the files of the cache, and connections, which come and go. */
const MAX_DESCRIPTORS = 60;
const MAX_CONNECTIONS = 100;
const PATIENCE_MS = 20_000;

/** What a device takes of the kernel, besides its process. */
const TAKES = { fuse: ["mount"], loop: ["mount", "loop"], nbd: [], "nbd-disk": [], mount: ["mount", "mount", "loop"] } as const;

/** What a process holds at a moment when nothing is under way. */
interface Footprint {
  readonly descriptors: number;
  readonly connections: number;
  readonly mebibytes: number;
}

/** Looks at checkpoints at what the daemon and the devices' processes hold: it must not become more and more. */
export class FootprintWatch {
  readonly #bench: SoakBench;
  readonly #first = new Map<number, Footprint>();
  readonly #last = new Map<number, string>();

  constructor(bench: SoakBench) {
    this.#bench = bench;
  }

  /** `ids`: of the devices that there are. */
  async look(ids: readonly string[]): Promise<void> {
    const { daemon, cacheDirectory } = this.#bench;
    const reports = await Promise.all(ids.map(async (id) => await daemon.running(id)));
    const expected = reports.flatMap(({ id, pid, expose }) => [`directory ${id}`, `process ${pid}`, ...TAKES[expose.kind]]).sort();
    // Of mounts and loop devices only how many there are.
    const found = (): string[] =>
      daemon
        .leftovers()
        .map((line) => line.replace(/^(mount|loop) .*/, "$1"))
        .sort();
    await eventually(() => isDeepStrictEqual(found(), expected));
    assert.deepEqual(found(), expected);
    await eventually(() => zombiesOf(daemon.pid).length === 0);
    assert.deepEqual(zombiesOf(daemon.pid), []);
    this.#check("daemon", daemon.pid);
    for (const { id, pid } of reports) {
      // What others have evicted is let go after a while.
      const evicted = (): string[] => openFiles(pid!).filter((path) => path.startsWith(cacheDirectory) && path.endsWith("(deleted)"));
      await eventually(() => evicted().length === 0);
      assert.deepEqual(evicted(), [], id);
      this.#check(id, pid!);
    }
  }

  /** What each process held at first and at last. */
  summary(): string {
    return [...this.#last.values()].join("\n");
  }

  #check(name: string, pid: number): void {
    const now = footprintOf(pid, this.#bench.cacheDirectory);
    const first = this.#first.get(pid) ?? now;
    this.#first.set(pid, first);
    const what = `process ${pid} of ${name}: ${first.mebibytes} to ${now.mebibytes} MiB, ${first.descriptors} to ${now.descriptors} descriptors`;
    this.#last.set(pid, what);
    assert.ok(now.connections <= MAX_CONNECTIONS, `process ${pid} of ${name}: ${now.connections} connections`);
    assert.ok(now.descriptors <= MAX_DESCRIPTORS && now.mebibytes <= first.mebibytes + GROWTH_MIB, what);
  }
}

function footprintOf(pid: number, cacheDirectory: string): Footprint {
  const open = openFiles(pid);
  const connections = open.filter((target) => target.startsWith("socket:")).length;
  const held = open.filter((target) => !target.startsWith(cacheDirectory) && !target.startsWith("socket:"));
  const [, kibibytes] = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8")) ?? assert.fail(`process ${pid}`);
  return { descriptors: held.length, connections, mebibytes: Math.round(Number(kibibytes) / 1024) };
}

function openFiles(pid: number): string[] {
  return readdirSync(`/proc/${pid}/fd`).map((name) => targetOf(`/proc/${pid}/fd/${name}`));
}

function targetOf(link: string): string {
  try {
    return readlinkSync(link);
  } catch {
    return ""; // closed meanwhile
  }
}

/** Children of a process that have ended and that it does not know of. */
function zombiesOf(pid: number): string[] {
  const stats = readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map((name) => /^(\d+ \(.*\)) Z (\d+) /s.exec(readIfThere(`/proc/${name}/stat`)));
  return stats.flatMap((match) => (match !== null && Number(match[2]) === pid ? [match[1]] : []));
}

function readIfThere(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return ""; // ended meanwhile
  }
}

/** Waits for it, if it takes a while. */
async function eventually(holds: () => boolean): Promise<void> {
  for (let waitedMs = 0; waitedMs < PATIENCE_MS && !holds(); waitedMs += 50) await sleep(50);
}
