import { mkdtemp, rm } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { setFlagsFromString } from "node:v8";
import { openBaseLayer } from "../convert/base-layer.ts";
import { convertImage } from "../convert/convert-image.ts";
import type { ConvertOptions, ConvertResult, ConvertTarget } from "../convert/convert-options.ts";
import type { FilesystemType, ImageFormat } from "../convert/image-format.ts";
import { ScanThreads } from "../convert/scan-threads.ts";
import { planConversion } from "../convert/plan-conversion.ts";
import { parseReference, type ImageReference } from "../oci/reference.ts";
import { conversionDocument } from "./conversion-document.ts";
import type { ConversionOptions } from "./conversion-options.ts";
import { ConversionProgress } from "./progress/conversion-progress.ts";
import type { Environment } from "./environment.ts";
import { knownIn, openKnownConversions } from "./known-conversions.ts";
import { planDocument, planTable } from "./plan-report.ts";
import { placeName, referenceName } from "./reference-name.ts";
import { openReference, type OpenedReference, type StoreOptions } from "./store-options.ts";

const GIB = 2 ** 30;
/** Layers read at a time: decompression uses one core each. */
const MIN_SCANS = 2;

/** A result that is asked for. */
export interface RequestedTarget {
  readonly format: ImageFormat;
  /** A reference; the source's place may be among the destinations. */
  readonly destination: string;
}

/** A conversion as a command line asks for it. */
export interface ConversionRequest {
  /** A reference as it was typed, or as the command makes it up. */
  readonly source: string;
  readonly targets: readonly RequestedTarget[];
  readonly options: ConversionOptions;
  readonly filesystem: FilesystemType;
  readonly stores: StoreOptions;
  /** Temporary data goes there; without one, into a new directory among the machine's temporary ones. */
  readonly directory?: string | undefined;
  /** Build on the base layer; it decides the device's size. */
  readonly onBaseLayer?: boolean | undefined;
  readonly keep?: boolean | undefined;
  readonly dump?: boolean | undefined;
  readonly upload?: boolean | undefined;
  readonly verbose?: boolean | undefined;
  /** Layers that turboOCI layers refer to are not brought to the destination: they can be read where they are. */
  readonly dataElsewhere?: boolean | undefined;
  /** What the user should know of the call itself. */
  readonly notices?: readonly string[] | undefined;
  /** What standard output gets, a line each, when it does not get JSON. */
  readonly result: (results: readonly ConvertResult[]) => readonly string[];
  /** The last line on standard error. */
  readonly summary: (results: readonly ConvertResult[], seconds: number) => string;
}

/** Opens the places and the database, converts (or says what that would do), and tells people and programs about it. */
export async function runConversion(request: ConversionRequest, environment: Environment): Promise<void> {
  // Layers pass through buffers outside of V8's heap, which by itself V8 takes for a reason to collect garbage every 60 MB: a twelfth of
  // the processor time of a conversion. Told to hold them against the heap's own limits, it does so a quarter as often. Limits of 2.2
  // times what lives, instead of the launcher's 1.8, save three per cent more, and take 15 MB where one large layer is all there is.
  setFlagsFromString("--external-memory-accounted-in-global-limit");
  setFlagsFromString("--heap-growing-percent=120");
  const { options, upload = true } = request;
  await using cleanup = new AsyncDisposableStack();
  const { quiet = false, progress: mode = "auto" } = options;
  const formats = request.targets.map(({ format }) => format);
  const progress = new ConversionProgress(environment, { mode, quiet, verbose: request.verbose ?? false, uploads: upload, formats });
  cleanup.defer(() => progress.stop());
  for (const notice of request.notices ?? []) progress.note("notice", notice);
  const { source, targets } = await openPlaces(request, environment, progress, cleanup);
  const base = request.onBaseLayer ? await openBaseLayer(environment.baseLayer) : undefined;
  cleanup.defer(async () => await base?.device.close());
  const threads = new ScanThreads({ threads: availableParallelism() });
  cleanup.defer(async () => await threads.close());
  const convertOptions: ConvertOptions = {
    virtualSize: options.vsize * GIB,
    family: options.oci || options.referrer ? "oci" : "docker",
    platforms: options.platform,
    attestations: options.dropAttestations ? "drop" : "keep",
    referrer: options.referrer ?? false,
    filesystem: request.filesystem,
    base,
    recompress: options.recompress !== undefined,
    directory: request.directory ?? (await temporaryDirectory(environment, cleanup)),
    keep: request.keep ?? false,
    dump: request.dump ?? false,
    upload,
    threads,
    concurrency: Math.max(MIN_SCANS, availableParallelism()),
    imagesAtOnce: options.concurrencyLimit === 0 ? Infinity : options.concurrencyLimit,
    observer: progress.observer,
    signal: environment.signal,
  };
  const print = (text: string): void => void environment.stdout.write(`${text}\n`);
  if (options.dryRun) {
    const plans = await planConversion(source.store, source.target, targets, convertOptions);
    progress.stop();
    for (const [index, plan] of plans.entries()) {
      print(options.output === "json" ? JSON.stringify(planDocument(plan, targets[index].name)) : planTable(plan));
    }
    progress.note("summary", "dry run: nothing was converted, pushed or remembered");
    return;
  }
  const results = await convertImage(source.store, source.target, targets, convertOptions);
  const { bytes, seconds } = progress;
  progress.stop();
  if (options.output === "json") {
    for (const [index, result] of results.entries()) {
      print(JSON.stringify(conversionDocument(result, { reference: targets[index].name, bytes, seconds })));
    }
  } else if (!targets.some(({ usesStdout }) => usesStdout)) {
    for (const line of request.result(results)) print(line);
  }
  progress.note("summary", request.summary(results, seconds));
}

interface OpenedTarget extends ConvertTarget {
  /** The destination's reference. */
  readonly name: string;
  readonly usesStdout: boolean;
}

/** Both ends, and the database. One repository, or one directory, is opened once: it is one place. */
async function openPlaces(
  { source: from, targets: requested, stores, options, dataElsewhere }: ConversionRequest,
  environment: Environment,
  progress: ConversionProgress,
  cleanup: AsyncDisposableStack,
): Promise<{ source: OpenedReference; targets: OpenedTarget[] }> {
  const notify = (message: string): void => progress.note("notice", message);
  const warn = (message: string): void => progress.note("warning", message);
  // What is wrong with the call shows before anything is opened.
  const references = { from: parseReference(from), to: requested.map(({ destination }) => parseReference(destination)) };
  const database = references.to.some(({ kind }) => kind === "registry")
    ? await openKnownConversions(options, environment, warn)
    : undefined;
  cleanup.defer(async () => await database?.close());
  const source = await openReference(from, stores, environment, { notify });
  cleanup.defer(async () => await source.store.close());
  const opened = [{ reference: references.from, place: source }];
  const targets: OpenedTarget[] = [];
  for (const [index, { format, destination }] of requested.entries()) {
    const to = references.to[index];
    const before = opened.find(({ reference }) => isOnePlace(reference, to))?.place;
    const place = before ?? (await openReference(destination, stores, environment, { create: true, notify }));
    if (before === undefined) cleanup.defer(async () => await place.store.close());
    opened.push({ reference: to, place });
    targets.push({
      format,
      destination: place.store,
      tag: to.tag ?? place.target.tag,
      known: knownIn(database, to),
      mountFrom: mountSource(references.from, to),
      dataElsewhere,
      isArchive: to.kind !== "registry" && to.kind !== "layout",
      name: referenceName(to),
      usesStdout: place.usesStdout,
    });
  }
  return { source, targets };
}

/** Archives are read in one place and made anew in another, even if they have one name. */
function isOnePlace(from: ImageReference, to: ImageReference): boolean {
  return (to.kind === "registry" || to.kind === "layout") && placeName(from) === placeName(to);
}

function mountSource(from: ImageReference, to: ImageReference): string | undefined {
  const isNeighbour = from.kind === "registry" && to.kind === "registry" && from.host === to.host && from.repository !== to.repository;
  return isNeighbour ? from.repository : undefined;
}

async function temporaryDirectory(environment: Environment, cleanup: AsyncDisposableStack): Promise<string> {
  const directory = await mkdtemp(join(environment.temporaryDirectory, "lazylayer-"));
  cleanup.defer(async () => await rm(directory, { recursive: true, force: true }));
  return directory;
}
