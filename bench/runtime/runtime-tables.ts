import type { Table } from "../report/tables.ts";
import type { LayerCount } from "./images.ts";
import { DEPTHS, type ReadFigures, type SequentialFigures } from "./reads.ts";

type Place = "local" | "remote";

export interface Opening {
  readonly layers: LayerCount;
  readonly place: Place;
  /** From the call of the daemon to its answer. */
  readonly milliseconds: number;
}

export interface Memory {
  readonly place: Place;
  readonly idleBytes: number;
  readonly busyBytes: number;
}

/** Every figure of every round. */
export interface RuntimeResult {
  readonly reads: ReadFigures[];
  readonly openings: Opening[];
  readonly memory: Memory[];
  many:
    | { readonly devices: number; readonly seconds: number; readonly residentTotal: number; readonly proportionalTotal: number }
    | undefined;
}

const WAYS: Readonly<Record<string, string>> = {
  plain: "loop device over a file",
  nbdkit: "nbdkit, nbdfuse, loop device",
  local: "lazylayer, layers in files",
  remote: "lazylayer, layers in a registry",
};

export function tablesOf({ reads, openings, memory, many }: RuntimeResult): Table[] {
  const tables = [readTable(reads), openingTable(openings), memoryTable(memory)].filter(({ rows }) => rows.length > 1);
  if (many !== undefined) {
    const { devices, seconds, residentTotal, proportionalTotal } = many;
    const row = [String(devices), `${seconds.toFixed(1)} s`, `${mega(residentTotal)} MB`, `${mega(proportionalTotal)} MB`];
    tables.push({
      title: "Many devices at once",
      rows: [["devices", "to open all", "resident, added up", "of it, shared pages once"], row],
    });
  }
  return tables;
}

function readTable(reads: readonly ReadFigures[]): Table {
  const header = [
    "state",
    "way",
    "front to back, first",
    "/ plain",
    "again",
    "/ plain",
    ...DEPTHS.map((depth) => `4 KiB reads/s, depth ${depth}`),
    "/ plain",
    "CPU s/GB",
  ];
  const rows = groups(reads, ({ state, way }) => `${state} ${way}`).map((rounds) => {
    const [{ state, way }] = rounds;
    const peers = reads.filter((each) => each.state === state && each.way === "plain");
    const [first, again] = [firstTimes, laterTimes].map((times) => ({ own: speedOf(times(rounds)), plain: speedOf(times(peers)) }));
    const random = DEPTHS.map((_, at) => middle(rounds, (each) => each.randomReadsPerSecond[at]));
    const plainRandom = middle(peers, (each) => each.randomReadsPerSecond[1]);
    return [
      state,
      WAYS[way],
      ...[first, again].flatMap(({ own, plain }) => [own === undefined ? "" : `${mega(own)} MB/s`, ratio(own, plain)]),
      ...random.map((iops) => (iops === undefined ? "" : `${(iops / 1000).toFixed(1)}k`)),
      ratio(random[1], plainRandom),
      middle(state === "cold" ? firstTimes(rounds) : laterTimes(rounds), (each) => each.cpuSecondsPerGigabyte)?.toFixed(2) ?? "",
    ];
  });
  rows.sort(([one], [other]) => one.localeCompare(other));
  return { title: "Reads through the mount", rows: [header, ...rows] };
}

function firstTimes(rounds: readonly ReadFigures[]): SequentialFigures[] {
  return rounds.flatMap(({ sequential }) => sequential.slice(0, 1));
}

function laterTimes(rounds: readonly ReadFigures[]): SequentialFigures[] {
  return rounds.flatMap(({ sequential }) => sequential.slice(1));
}

function speedOf(times: readonly SequentialFigures[]): number | undefined {
  return middle(times, ({ bytesPerSecond }) => bytesPerSecond);
}

function openingTable(openings: readonly Opening[]): Table {
  const rows = groups(openings, ({ layers, place }) => `${layers} ${place}`).map((rounds) => [
    String(rounds[0].layers),
    rounds[0].place === "local" ? "files" : "registry, nothing cached",
    `${middle(rounds, ({ milliseconds }) => milliseconds)?.toFixed(0)} ms`,
  ]);
  return { title: "Until a device can be used", rows: [["layers", "in", "time"], ...rows] };
}

function memoryTable(memory: readonly Memory[]): Table {
  const rows = groups(memory, ({ place }) => place).map((rounds) => [
    rounds[0].place === "local" ? "files" : "a registry",
    `${mega(middle(rounds, ({ idleBytes }) => idleBytes) ?? 0)} MB`,
    `${mega(middle(rounds, ({ busyBytes }) => busyBytes) ?? 0)} MB`,
  ]);
  return { title: "Memory of a device process (resident)", rows: [["layers in", "idle", "after heavy reading"], ...rows] };
}

function ratio(figure: number | undefined, plain: number | undefined): string {
  return figure === undefined || plain === undefined ? "" : (figure / plain).toFixed(2);
}

function groups<T>(all: readonly T[], key: (each: T) => string): T[][] {
  return [...Map.groupBy(all, key).values()];
}

function middle<T>(rounds: readonly T[], figure: (round: T) => number | undefined): number | undefined {
  const values = rounds
    .map(figure)
    .filter((value) => value !== undefined)
    .toSorted((a, b) => a - b);
  return values[Math.floor(values.length / 2)];
}

function mega(bytes: number): string {
  return (bytes / 1e6).toFixed(0);
}
