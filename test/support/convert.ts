import { convertImage } from "../../src/convert/convert-image.ts";
import type { ConvertOptions, ConvertResult } from "../../src/convert/convert-options.ts";
import { ScanThreads } from "../../src/convert/scan-threads.ts";
import { openLayoutStore } from "../../src/image-layout/layout-store.ts";
import type { ImageStore } from "../../src/oci/image-store.ts";

/** Idle threads do not keep a test process alive. */
const threads = new ScanThreads({ threads: 2 });

/** What a conversion in this process is asked for unless a test wants something else: as the commands do it. */
export function convertOptions(directory: string, options: Partial<ConvertOptions> = {}): ConvertOptions {
  return {
    virtualSize: 64 * 2 ** 30,
    family: "docker",
    platforms: [],
    attestations: "keep",
    referrer: false,
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

/** Converts `oci:FROM:TAG` to `oci:TO:TAG`. */
export async function convertLayout(from: string, tag: string, to: string, options: Partial<ConvertOptions> = {}): Promise<ConvertResult> {
  const source = await openLayoutStore(from);
  const destination = await openLayoutStore(to, { create: true });
  return await convertImage(source, { tag }, destination, tag, convertOptions(`${to}.work`, options));
}

/** Converts an image from one opened store to another, there under the tag `to`. */
export async function convertStores(
  source: ImageStore,
  destination: ImageStore,
  tag: string,
  { to = tag, directory, ...options }: Partial<ConvertOptions> & Pick<ConvertOptions, "directory"> & { readonly to?: string },
): Promise<ConvertResult> {
  return await convertImage(source, { tag }, destination, to, convertOptions(directory, options));
}
