import { PEERS, type Peer } from "../measure/round.ts";
import type { BenchResult, ImageResult } from "./result.ts";

/** Rows of cells, the first one being the header; the first column names what the others are about. */
export interface Table {
  readonly title: string;
  readonly rows: readonly (readonly string[])[];
}

const PEER_TITLES: Readonly<Record<Peer, string>> = { skopeo: "skopeo copy", umoci: "umoci unpack", mkfs: "mkfs.ext4 -d" };

/** Everything that was measured, as tables: ratios to the floor of the same round, and the figures they come from. */
export function tablesOf(result: BenchResult): Table[] {
  const tables = [imagesTable(result), conversionTable(result), costTable(result)];
  if (result.images.some(({ rounds }) => Object.keys(rounds[0].peers).length > 0)) tables.push(peersTable(result));
  if (result.images.some(({ stages }) => stages !== undefined)) tables.push(stagesTable(result));
  return tables;
}

function imagesTable({ images }: BenchResult): Table {
  const header = ["image", "what", "layers", "gzip", "tar", "the floor takes"];
  const rows = images.map((image) => [
    image.name,
    image.about,
    String(image.storedLayerBytes.length),
    size(sum(image.storedLayerBytes)),
    size(tarBytes(image)),
    spread(
      of(image, (round) => round.floor.wall),
      seconds,
    ),
  ]);
  return { title: "Images", rows: [header, ...rows] };
}

function conversionTable({ images }: BenchResult): Table {
  const header = ["image", "wall / floor", "wall", "tar per second", "CPU / floor", "CPU", "registry's CPU"];
  const rows = images.map((image) => [
    image.name,
    spread(
      of(image, ({ conversion, floor }) => conversion.wall / floor.wall),
      ratio,
    ),
    spread(
      of(image, ({ conversion }) => conversion.wall),
      seconds,
    ),
    spread(
      of(image, ({ conversion }) => tarBytes(image) / conversion.wall),
      size,
    ),
    spread(
      of(image, ({ conversion, floor }) => conversion.cpu / floor.cpu),
      ratio,
    ),
    spread(
      of(image, ({ conversion }) => conversion.cpu),
      seconds,
    ),
    spread(
      of(image, ({ conversion }) => conversion.registryCpu),
      seconds,
    ),
  ]);
  return { title: "Conversion, registry to registry", rows: [header, ...rows] };
}

function costTable({ images }: BenchResult): Table {
  const header = ["image", "memory", "scratch", "written", "out", "out / gzip", "the top layer adds", "requests"];
  const rows = images.map((image) => {
    const output = of(image, ({ conversion }) => sum(conversion.layerBytes));
    const requests = of(image, ({ conversion }) => sum(Object.values(conversion.requests)));
    const { requests: last, layerBytes } = image.rounds[image.rounds.length - 1].conversion;
    const methods = Object.entries(last).toSorted(([one], [other]) => one.localeCompare(other));
    return [
      image.name,
      spread(
        of(image, ({ conversion }) => conversion.rss),
        size,
      ),
      spread(
        of(image, ({ conversion }) => conversion.scratch),
        size,
      ),
      spread(
        of(image, ({ conversion }) => conversion.written),
        size,
      ),
      spread(output, size),
      ratio(median(output) / sum(image.storedLayerBytes)),
      size(layerBytes[layerBytes.length - 1]),
      `${median(requests)} (${methods.map(([method, count]) => `${count} ${method}`).join(", ")})`,
    ];
  });
  return { title: "What it takes and gives", rows: [header, ...rows] };
}

function peersTable({ images, missing }: BenchResult): Table {
  const header = ["image", "convert / floor", ...PEERS.flatMap((peer) => [`${PEER_TITLES[peer]} / floor`, "wall"])];
  const rows = images.map((image) => {
    const cells = PEERS.flatMap((peer) => {
      const measured = image.rounds.flatMap(({ peers, floor }) =>
        peers[peer] === undefined ? [] : [{ wall: peers[peer], floor: floor.wall }],
      );
      if (measured.length === 0) return [missing[peer] ?? "not measured", ""];
      const ratios = measured.map(({ wall, floor }) => wall / floor);
      return [
        spread(ratios, ratio),
        spread(
          measured.map(({ wall }) => wall),
          seconds,
        ),
      ];
    });
    return [
      image.name,
      spread(
        of(image, ({ conversion, floor }) => conversion.wall / floor.wall),
        ratio,
      ),
      ...cells,
    ];
  });
  return { title: "Beside it", rows: [header, ...rows] };
}

function stagesTable({ images }: BenchResult): Table {
  const measured = images.flatMap(({ name, stages }) => (stages === undefined ? [] : [{ name, stages }]));
  const totals = measured.map(({ stages }) => sum(stages.map(({ mainThread, otherThreads }) => mainThread + otherThreads)));
  const names = [...new Set(measured.flatMap(({ stages }) => stages.map(({ name }) => name)))];
  const rows = names.map((name) => [
    name,
    ...measured.map(({ stages }, at) => {
      const { mainThread, otherThreads } = stages.find((stage) => stage.name === name) ?? { mainThread: 0, otherThreads: 0 };
      return `${percent((mainThread + otherThreads) / totals[at])} (${percent(mainThread / totals[at])})`;
    }),
  ]);
  const all = ["all threads together", ...totals.map(seconds)];
  return { title: "Where the time goes (of it on the main thread)", rows: [["stage", ...measured.map(({ name }) => name)], ...rows, all] };
}

/** How a run compares with an earlier one, image by image: what is now over what was. Ratios of walls are those to the floor. */
export function comparisonTable(now: BenchResult, then: BenchResult): Table {
  const header = ["image", "wall / floor, then", "now", "now / then", "CPU / floor", "memory", "written", "out", "requests"];
  const rows = now.images.flatMap((image) => {
    const before = then.images.find(({ name }) => name === image.name);
    if (before === undefined) return [];
    const change = (figure: (round: ImageResult["rounds"][number]) => number): string => {
      const [old, fresh] = [median(of(before, figure)), median(of(image, figure))];
      return old === 0 ? `${fresh} after 0` : ratio(fresh / old);
    };
    const wall = (round: ImageResult["rounds"][number]): number => round.conversion.wall / round.floor.wall;
    return [
      [
        image.name,
        spread(of(before, wall), ratio),
        spread(of(image, wall), ratio),
        change(wall),
        change(({ conversion, floor }) => conversion.cpu / floor.cpu),
        change(({ conversion }) => conversion.rss),
        change(({ conversion }) => conversion.written),
        change(({ conversion }) => sum(conversion.layerBytes)),
        change(({ conversion }) => sum(Object.values(conversion.requests))),
      ],
    ];
  });
  return { title: `Compared with ${then.commit} of ${then.date}: now / then`, rows: [header, ...rows] };
}

export function plainText({ title, rows }: Table): string {
  const widths = rows[0].map((_, column) => Math.max(...rows.map((row) => row[column].length)));
  const lines = rows.map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column]))
      .join("  ")
      .trimEnd(),
  );
  return `${title}\n${lines.map((line) => `  ${line}`).join("\n")}\n`;
}

export function markdown({ title, rows: [header, ...rows] }: Table): string {
  const line = (cells: readonly string[]): string => `| ${cells.join(" | ")} |`;
  return `**${title}**\n\n${[line(header), line(header.map(() => "---")), ...rows.map(line)].join("\n")}\n`;
}

function of(image: ImageResult, figure: (round: ImageResult["rounds"][number]) => number): number[] {
  return image.rounds.map(figure);
}

function tarBytes(image: ImageResult): number {
  return image.rounds[0].floor.tarBytes;
}

/** The median, and the least and the most when they are told apart. */
function spread(values: readonly number[], text: (value: number) => string): string {
  const [least, middle, most] = [Math.min(...values), median(values), Math.max(...values)].map(text);
  return least === most ? middle : `${middle} (${least}–${most})`;
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

function ratio(value: number): string {
  return value.toFixed(2);
}

function percent(value: number): string {
  return `${(100 * value).toFixed(0)} %`;
}

function seconds(value: number): string {
  return `${value.toFixed(value < 10 ? 2 : 1)} s`;
}

function size(bytes: number): string {
  if (bytes < 1e6) return `${(bytes / 1e3).toFixed(1)} kB`;
  return `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;
}
