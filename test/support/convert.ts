import { compressInline } from "../../src/compression/block-codec.ts";
import { convertImage, type ConvertOptions, type ConvertResult } from "../../src/convert/convert-image.ts";
import { openLayoutStore } from "../../src/image-layout/layout-store.ts";
import type { ImageStore } from "../../src/oci/image-store.ts";

/** Converts `oci:FROM:TAG` to `oci:TO:TAG` in this process, with one thread, by default as the command does. */
export async function convertLayout(from: string, tag: string, to: string, options: Partial<ConvertOptions> = {}): Promise<ConvertResult> {
  const source = await openLayoutStore(from);
  const destination = await openLayoutStore(to, { create: true });
  return await convertStores(source, destination, tag, { directory: `${to}.work`, ...options });
}

/** The same from one opened store to another, there under the tag `to`. */
export async function convertStores(
  source: ImageStore,
  destination: ImageStore,
  tag: string,
  { to = tag, ...options }: Partial<ConvertOptions> & Pick<ConvertOptions, "directory"> & { readonly to?: string },
): Promise<ConvertResult> {
  return await convertImage(source, { tag }, destination, to, {
    virtualSize: 64 * 2 ** 30,
    family: "docker",
    platforms: [],
    keep: false,
    dump: false,
    dryRun: false,
    compress: compressInline,
    concurrency: 2,
    observer: {},
    signal: new AbortController().signal,
    ...options,
  });
}
