import { DiskFile } from "../bytes/file.ts";
import type { ByteSource } from "../bytes/source.ts";
import { unsupported } from "../errors.ts";
import { AppendLayer } from "../formats/lsmt/append-layer.ts";
import { SparseLayer } from "../formats/lsmt/sparse-layer.ts";
import { writableFormOf } from "../formats/lsmt/unsealed-layer.ts";
import { WarpUpper } from "../formats/lsmt/warp-upper.ts";
import type { WritableLayer } from "../formats/lsmt/writable-layer.ts";
import { openLocalFile } from "./image-config-file.ts";
import type { ImagePlaces } from "./image-config-places.ts";
import type { ImageConfig } from "./image-config-schema.ts";
import { openUnsynced } from "./unsynced-file.ts";

type UpperConfig = ImageConfig["upper"];

/** Opens the layer that takes what is written, as it was closed or as a crash left it. Closing it closes its files. */
export async function openUpper(upper: UpperConfig, places: ImagePlaces): Promise<WritableLayer> {
  const opened: ByteSource[] = [];
  const keep = <T extends ByteSource>(file: T): T => {
    opened.push(file);
    return file;
  };
  try {
    const data = keep(await DiskFile.open(upper.data));
    if (upper.target !== "" || (await writableFormOf(data)) === "append") {
      const index = keep(await DiskFile.open(upper.index));
      const target = upper.target === "" ? undefined : keep(await openUpperTarget(upper));
      const place = await openUnsynced(upper.index, places.notice);
      if (place !== undefined) keep(place.file);
      return await (target === undefined ? AppendLayer.open(data, index, place) : WarpUpper.open(data, index, target, place));
    }
    if (places.findDataExtents === undefined) throw unsupported(`${upper.data}: is sparse, and where it has data cannot be found here`);
    return await SparseLayer.open(data, await places.findDataExtents(upper.data));
  } catch (error) {
    for (const file of opened) await file.close();
    throw error;
  }
}

/** Opens what a turboOCI layer that is being written has its data in: the uncompressed tar. Closing it closes the file. */
export async function openUpperTarget({ target, gzipIndex }: UpperConfig): Promise<ByteSource> {
  const { readGzipIndex } = await import("./image-config-target.ts");
  const { openLocalTarget } = await import("./turbo-layer.ts");
  const file = await openLocalFile(target, "upper.target");
  try {
    const parts = gzipIndex === "" ? {} : await readGzipIndex(gzipIndex);
    return (await openLocalTarget(file, parts, { digest: undefined, cache: undefined })).source;
  } catch (error) {
    await file.close();
    throw error;
  }
}
