import type { ConversionPlan, ImagePlan } from "../convert/convert-options.ts";
import type { ImageFormat } from "../convert/image-format.ts";
import { byteText } from "./progress/byte-text.ts";
import { platformName } from "./conversion-document.ts";
import { shortDigest } from "./progress/conversion-lines.ts";
import { BLOB_BYTES_PER_STORED_BYTE } from "./progress/conversion-tally.ts";

/** Bytes of layers that a conversion would handle; `push` is an estimate as far as layers are yet to be converted. */
interface PlanBytes {
  readonly fetch: number;
  readonly convert: number;
  readonly reuse: number;
  readonly mount: number;
  readonly push: number;
}

const COLUMNS = ["fetch", "convert", "reuse", "mount", "push"] as const satisfies readonly (keyof PlanBytes)[];

/** What `--dry-run --output json` prints; as stable as the document of a conversion. */
export function planDocument(plan: ConversionPlan, reference: string) {
  return {
    reference,
    format: plan.format,
    images: plan.images.map((image) => ({
      platform: platformName(image.platform),
      source: image.source.digest,
      outcome: image.outcome,
      layers: image.layers.map(({ source, outcome, converted }) => ({
        source: source.digest,
        sourceSize: source.size,
        outcome,
        digest: converted?.digest ?? null,
        size: converted?.size ?? null,
      })),
      bytes: bytesOf(image, plan.format),
    })),
    bytes: sumOf(plan.images.map((image) => bytesOf(image, plan.format))),
    pushIsEstimate: isEstimate(plan),
  };
}

/** What `--dry-run` prints for people. */
export function planTable(plan: ConversionPlan): string {
  const row = (name: string, outcome: string, bytes: PlanBytes): string[] => [
    name,
    outcome,
    ...COLUMNS.map((column) => (column === "push" && bytes.convert > 0 ? `about ${byteText(bytes.push)}` : byteText(bytes[column]))),
  ];
  const rows = [
    ["image", "outcome", ...COLUMNS],
    ...plan.images.map((image) => row(imageName(image), image.outcome, bytesOf(image, plan.format))),
    row("in total", "", sumOf(plan.images.map((image) => bytesOf(image, plan.format)))),
  ];
  const widths = rows[0].map((_, column) => Math.max(...rows.map((cells) => cells[column].length)));
  const lines = rows.map((cells) =>
    cells
      .map((cell, column) => (column < 2 ? cell.padEnd(widths[column]) : cell.padStart(widths[column])))
      .join("  ")
      .trimEnd(),
  );
  const note =
    `about: how large converted layers are is known once they are converted; they usually have ${BLOB_BYTES_PER_STORED_BYTE[plan.format]} times ` +
    "the bytes of their gzip layers";
  return [...lines, ...(isEstimate(plan) ? [note] : [])].join("\n");
}

function imageName({ source, platform }: ImagePlan): string {
  return `${platform === undefined ? "" : `${platformName(platform)} `}${shortDigest(source.digest)}`;
}

function isEstimate(plan: ConversionPlan): boolean {
  return plan.images.some((image) => image.layers.some(({ outcome }) => outcome === "convert"));
}

function bytesOf({ layers }: ImagePlan, format: ImageFormat): PlanBytes {
  const bytes = { fetch: 0, convert: 0, reuse: 0, mount: 0, push: 0 };
  for (const { source, outcome, converted } of layers) {
    if (outcome === "convert") {
      bytes.fetch += source.size;
      bytes.convert += source.size;
      bytes.push += estimate(source.size, format);
    } else {
      // Not known yet when another image of the same index brings it along.
      bytes[outcome] += converted?.size ?? estimate(source.size, format);
    }
  }
  return bytes;
}

function estimate(storedBytes: number, format: ImageFormat): number {
  return Math.round(storedBytes * BLOB_BYTES_PER_STORED_BYTE[format]);
}

function sumOf(all: readonly PlanBytes[]): PlanBytes {
  const sum = { fetch: 0, convert: 0, reuse: 0, mount: 0, push: 0 };
  for (const bytes of all) for (const column of COLUMNS) sum[column] += bytes[column];
  return sum;
}
