import { convertImage } from "../../src/convert/convert-image.ts";
import type { ConvertOptions, ConvertResult, ConvertTarget } from "../../src/convert/convert-options.ts";
import { ScanThreads } from "../../src/convert/scan-threads.ts";
import { openLayoutStore } from "../../src/image-layout/layout-store.ts";
import type { ImageStore, ResolveTarget } from "../../src/oci/image-store.ts";

/** Idle threads do not keep a test process alive. */
const threads = new ScanThreads({ threads: 2 });

/** Options of a conversion to one target, whose own options are among them. */
export type TestOptions = ConvertOptions & Partial<Omit<ConvertTarget, "destination" | "tag">>;

/** What a conversion in this process is asked for unless a test wants something else: as the commands do it. */
export function convertOptions(directory: string, options: Partial<TestOptions> = {}): TestOptions {
  return {
    virtualSize: 64 * 2 ** 30,
    family: "docker",
    platforms: [],
    attestations: "keep",
    referrer: false,
    filesystem: "ext4",
    directory,
    keep: false,
    dump: false,
    upload: true,
    threads,
    concurrency: 2,
    imagesAtOnce: 4,
    observer: {},
    signal: new AbortController().signal,
    ...options,
  };
}

/** The one target of a conversion with these options. */
export function targetOf(
  destination: ImageStore,
  tag: string | undefined,
  { format = "overlaybd", known, mountFrom, dataElsewhere }: Partial<TestOptions> = {},
): ConvertTarget {
  return { format, destination, tag, known, mountFrom, dataElsewhere };
}

/** Converts for one target. */
export async function convertInto(
  source: ImageStore,
  from: ResolveTarget,
  destination: ImageStore,
  tag: string | undefined,
  options: TestOptions,
): Promise<ConvertResult> {
  const [result] = await convertImage(source, from, [targetOf(destination, tag, options)], options);
  return result;
}

/** Converts `oci:FROM:TAG` to `oci:TO:TAG`. */
export async function convertLayout(from: string, tag: string, to: string, options: Partial<TestOptions> = {}): Promise<ConvertResult> {
  const source = await openLayoutStore(from);
  const destination = await openLayoutStore(to, { create: true });
  return await convertInto(source, { tag }, destination, tag, convertOptions(`${to}.work`, options));
}

/** Converts an image from one opened store to another, there under the tag `to`. */
export async function convertStores(
  source: ImageStore,
  destination: ImageStore,
  tag: string,
  { to = tag, directory, ...options }: Partial<TestOptions> & Pick<TestOptions, "directory"> & { readonly to?: string },
): Promise<ConvertResult> {
  return await convertInto(source, { tag }, destination, to, convertOptions(directory, options));
}
