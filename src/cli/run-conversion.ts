import { mkdtemp, rm } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { openBaseLayer } from "../convert/base-layer.ts";
import { convertImage } from "../convert/convert-image.ts";
import type { ConvertOptions, ConvertResult } from "../convert/convert-options.ts";
import { ScanThreads } from "../convert/scan-threads.ts";
import { planConversion } from "../convert/plan-conversion.ts";
import { parseReference, type ImageReference } from "../oci/reference.ts";
import { conversionDocument } from "./conversion-document.ts";
import type { ConversionOptions } from "./conversion-options.ts";
import { ConversionProgress } from "./progress/conversion-progress.ts";
import type { Environment } from "./environment.ts";
import { openKnownConversions } from "./known-conversions.ts";
import { planDocument, planTable } from "./plan-report.ts";
import { placeName, referenceName } from "./reference-name.ts";
import { openReference, type OpenedReference, type StoreOptions } from "./store-options.ts";

const GIB = 2 ** 30;
/** Layers read at a time: decompression uses one core each. */
const MIN_SCANS = 2;

/** A conversion as a command line asks for it. */
export interface ConversionRequest {
  /** References as they were typed, or as the command makes them up. The destination may be the source. */
  readonly source: string;
  readonly destination: string;
  readonly options: ConversionOptions;
  readonly stores: StoreOptions;
  /** Temporary data goes there; without one, into a new directory among the machine's temporary ones. */
  readonly directory?: string | undefined;
  /** Build on the base layer; it decides the device's size. */
  readonly onBaseLayer?: boolean | undefined;
  readonly keep?: boolean | undefined;
  readonly dump?: boolean | undefined;
  readonly upload?: boolean | undefined;
  readonly verbose?: boolean | undefined;
  /** What standard output gets, a line each, when it does not get JSON. */
  readonly result: (result: ConvertResult) => readonly string[];
  /** The last line on standard error. */
  readonly summary: (result: ConvertResult, seconds: number) => string;
}

/** Opens the places and the database, converts (or says what that would do), and tells people and programs about it. */
export async function runConversion(request: ConversionRequest, environment: Environment): Promise<void> {
  const { options, upload = true } = request;
  const [from, to] = [parseReference(request.source), parseReference(request.destination)];
  await using cleanup = new AsyncDisposableStack();
  const { quiet = false, progress: mode = "auto" } = options;
  const progress = new ConversionProgress(environment, { mode, quiet, verbose: request.verbose ?? false, uploads: upload });
  cleanup.defer(() => progress.stop());
  const warn = (message: string): void => progress.note("warning", message);
  const known = to.kind === "registry" ? await openKnownConversions(options, to, environment, warn) : undefined;
  cleanup.defer(async () => await known?.store.close());
  const { source, destination } = await openPlaces(request, environment, progress, cleanup);
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
    base,
    known,
    mountFrom: mountSource(from, to),
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
  const reference = referenceName(to);
  if (options.dryRun) {
    const plan = await planConversion(source.store, source.target, destination.store, convertOptions);
    progress.stop();
    print(options.output === "json" ? JSON.stringify(planDocument(plan, reference)) : planTable(plan));
    progress.note("summary", "dry run: nothing was converted, pushed or remembered");
    return;
  }
  const tag = to.tag ?? destination.target.tag;
  const result = await convertImage(source.store, source.target, destination.store, tag, convertOptions);
  const { bytes, seconds } = progress;
  progress.stop();
  if (options.output === "json") print(JSON.stringify(conversionDocument(result, { reference, bytes, seconds })));
  else if (!destination.usesStdout) for (const line of request.result(result)) print(line);
  progress.note("summary", request.summary(result, seconds));
}

/** Both ends. One repository, or one directory, is opened once: it is one place. */
async function openPlaces(
  { source: from, destination: to, stores }: ConversionRequest,
  environment: Environment,
  progress: ConversionProgress,
  cleanup: AsyncDisposableStack,
): Promise<{ source: OpenedReference; destination: OpenedReference }> {
  const notify = (message: string): void => progress.note("notice", message);
  const source = await openReference(from, stores, environment, { notify });
  cleanup.defer(async () => await source.store.close());
  if (isOnePlace(parseReference(from), parseReference(to))) return { source, destination: source };
  const destination = await openReference(to, stores, environment, { create: true, notify });
  cleanup.defer(async () => await destination.store.close());
  return { source, destination };
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
