import { formatPlatform } from "../../oci/platform.ts";
import { byteText, durationText, megabyteCount } from "./byte-text.ts";
import type { ConversionTally, ImageTally, LayerTally, Totals } from "./conversion-tally.ts";

const DIGEST_LETTERS = 12;
const STAGE_WIDTH = "converting".length;

export interface Rates {
  /** Source bytes read in a second. */
  readonly read: number;
  /** Work done in a second, see `Totals`. */
  readonly work: number;
}

/** `converting: 3 of 7 layers, 812 of 1,343 MB, 95 MB/s, about 6 s left` */
export function totalLine({ layers, layersDone, bytes, readBytes, work, workDone }: Totals, rates: Rates): string {
  const isRead = readBytes >= bytes;
  const speed = isRead ? rates.work : rates.read;
  const left = rates.work > 0 && workDone < work ? `, about ${durationText((work - workDone) / rates.work)} left` : "";
  return (
    `converting: ${layersDone} of ${layers} layers, ${megabyteCount(readBytes)} of ${megabyteCount(bytes)} MB` +
    `${speed >= 1e6 ? `, ${megabyteCount(speed)} MB/s` : ""}${left}`
  );
}

export interface DisplayLine {
  readonly text: string;
  /** Something is happening there. */
  readonly isActive: boolean;
}

/** Lines for a terminal: one a layer, in order, as far as they fit into `rows`; `rateOf` gives bytes in a second of a layer. */
export function layerLines(tally: ConversionTally, rows: number, rateOf: (layer: LayerTally) => number): DisplayLine[] {
  const images = tally.images.filter((image) => image !== undefined);
  const platformWidth = images.length < 2 ? 0 : Math.max(...images.map((image) => platformText(image).length));
  const all = images.flatMap((image) => image.layers.map((layer) => ({ image, layer })));
  const line = ({ image, layer }: (typeof all)[number]): DisplayLine => {
    const platform = platformWidth === 0 ? "" : `${platformText(image).padEnd(platformWidth)}  `;
    return { text: `${platform}${layerLine(layer, rateOf(layer))}`, isActive: isActive(layer) };
  };
  if (all.length <= rows) return all.map(line);
  const active = all.filter(({ layer }) => isActive(layer));
  const done = all.filter(({ layer }) => layer.stage === "done").length;
  const waiting = all.length - done - active.length;
  const room = Math.max(0, rows - (done > 0 ? 1 : 0) - (waiting > 0 || active.length > rows ? 1 : 0));
  const hidden = waiting + Math.max(0, active.length - room);
  return [
    ...(done > 0 ? [{ text: `${done} layers done`, isActive: false }] : []),
    ...active.slice(0, room).map(line),
    ...(hidden > 0 ? [{ text: `${hidden} more layers`, isActive: false }] : []),
  ].slice(0, Math.max(0, rows));
}

function isActive({ stage }: LayerTally): boolean {
  return stage !== "done" && stage !== "waiting";
}

function platformText({ platform }: ImageTally): string {
  return platform === undefined ? "" : formatPlatform(platform);
}

function layerLine(layer: LayerTally, rate: number): string {
  const { digest, stage, bytes, readBytes, sentBytes, blobBytes, outcome } = layer;
  const name = shortDigest(digest);
  const speed = rate > 0 ? `  ${byteText(rate)}/s` : "";
  const row = (text: string, rest: string): string => `${name}  ${text.padEnd(STAGE_WIDTH)}  ${rest}`.trimEnd();
  switch (stage) {
    case "reading":
      return row(stage, `${byteText(readBytes)} of ${byteText(bytes)}${speed}`);
    case "sending":
      return row(stage, `${byteText(sentBytes)}${blobBytes === undefined ? "" : ` of ${byteText(blobBytes)}`}${speed}`);
    case "waiting":
    case "converting":
      return row(stage, byteText(bytes));
    case "converted":
      return row(stage, byteText(blobBytes ?? 0));
    case "done":
      return row(outcome === undefined ? "done" : OUTCOME_WORDS[outcome], byteText(blobBytes ?? bytes));
  }
}

const OUTCOME_WORDS = { uploaded: "sent", exists: "was there", reused: "reused", mounted: "mounted", kept: "kept" } as const;

/** Enough of a digest to tell layers apart. */
export function shortDigest(digest: string): string {
  return digest.slice(digest.indexOf(":") + 1).slice(0, DIGEST_LETTERS);
}
