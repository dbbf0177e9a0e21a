import assert from "node:assert/strict";
import { gunzipSync } from "node:zlib";
import { MemorySink } from "../../src/bytes/sink.ts";
import { BlockCache } from "../../src/cache/block-cache.ts";
import { compressInline } from "../../src/compression/block-codec.ts";
import type { Device } from "../../src/device/device.ts";
import { openDevice, type OpenDeviceOptions } from "../../src/device/open-device.ts";
import { parseGzipIndex } from "../../src/formats/gzip-index/gzip-index-reader.ts";
import { SECTOR_BYTES, TARGET_TAG } from "../../src/formats/lsmt/layout.ts";
import { LsmtWriter } from "../../src/formats/lsmt/lsmt-writer.ts";
import { MappingList } from "../../src/formats/lsmt/mapping-list.ts";
import { ZFileWriter } from "../../src/formats/zfile/zfile-writer.ts";
import { OCI_LAYER_TAR } from "../../src/oci/media-types.ts";
import type { TarMember } from "./tar-builder.ts";
import { TemporaryDirectory } from "./temporary-directory.ts";
import { recordedTarget, spanDigests, turboLayer, WatchedPlace, type StoredLayer } from "./turbo-image.ts";

export const CHUNK_BYTES = 64 * 1024;
export const VIRTUAL_SIZE = 32 * 2 ** 20;

export async function openCache(directory: TemporaryDirectory): Promise<BlockCache> {
  return await BlockCache.open(directory.path, { capacityBytes: 2 ** 30, chunkBytes: CHUNK_BYTES });
}

export const manifestOf = (layers: readonly StoredLayer[]) => ({ layers: layers.map(({ descriptor }) => descriptor) });

export async function openLayers(
  layers: readonly StoredLayer[],
  options: OpenDeviceOptions = {},
  place = new WatchedPlace(layers),
): Promise<Device> {
  return await openDevice(place, manifestOf(layers), options);
}

/** Opening these layers fails like that, leaves nothing open, and fails again with a cache. */
export async function refuses(
  layers: readonly StoredLayer[],
  expected: { code: string; message: RegExp },
  place = new WatchedPlace(layers),
): Promise<void> {
  await using directory = await TemporaryDirectory.create();
  for (const cache of [undefined, await openCache(directory)]) {
    await assert.rejects(openLayers(layers, { cache }, place), expected);
    assert.equal(place.open, 0, "everything is closed");
  }
}
export const BIG = recordedTarget(0);
export const BIG_INDEX = parseGzipIndex(BIG[1], "index");
export const BIG_CONTENT = gunzipSync(BIG[0]);

export type Row = readonly [firstSector: number, sectors: number, mapped: number, tag?: number];

/** A warp layer, as convert makes it: metadata in its own file, all else in a target of that size. */
export async function warpLayer(rows: readonly Row[], metadata: Uint8Array, targetBytes: number): Promise<Uint8Array> {
  const sink = new MemorySink();
  const zfile = new ZFileWriter(sink, { algorithm: "lz4", compress: compressInline, overwriteHeader: true });
  const writer = new LsmtWriter(zfile, { virtualSize: VIRTUAL_SIZE });
  await writer.append(metadata);
  const list = new MappingList();
  for (const [first, sectors, mapped, tag] of rows) list.add(first, sectors, mapped, false, tag);
  await writer.closeWarp(list, targetBytes);
  const { header } = await zfile.close();
  const bytes = sink.bytes();
  bytes.set(header, 0);
  return bytes;
}

export const METADATA = Buffer.alloc(8 * SECTOR_BYTES, "metadata ");
/** Metadata in the first sectors, then the whole target. */
const WHOLE: readonly Row[] = [
  [0, 8, 8],
  [8, BIG_CONTENT.length / SECTOR_BYTES, 0, TARGET_TAG],
];

interface Parts {
  readonly members?: (usual: TarMember[]) => TarMember[];
  readonly digests?: Uint8Array;
  readonly rows?: readonly Row[];
}

/** A layer that shows all of the big target's content behind its metadata. */
export async function bigLayer({
  members = (usual) => usual,
  digests = spanDigests(BIG_CONTENT, BIG_INDEX),
  rows = WHOLE,
}: Parts = {}): Promise<Required<StoredLayer>> {
  const metadata = await warpLayer(rows, METADATA, BIG_CONTENT.length);
  const usual = [
    { name: "erofs.fs.meta", data: metadata },
    { name: ".turbo.ociv1" },
    { name: "gzip.meta", data: BIG[1] },
    { name: "spans.sha256", data: digests },
    { name: "what.else", data: "unknown members are passed over" },
  ];
  return turboLayer({ members: members(usual), target: BIG[0] });
}

export const CONTENT_AT = 8 * SECTOR_BYTES;

export const PLAIN = BIG_CONTENT.subarray(0, 3_000_320); // whole sectors, but no whole number of spans

export async function plainLayer(more: readonly TarMember[], target: Uint8Array = PLAIN): Promise<Required<StoredLayer>> {
  const rows: Row[] = [[0, 8, 8], [8, PLAIN.length / SECTOR_BYTES, 0, TARGET_TAG]]; // prettier-ignore
  const metadata = await warpLayer(rows, METADATA, PLAIN.length);
  return turboLayer({ members: [{ name: "ext4.fs.meta", data: metadata }, ...more], target, targetMediaType: OCI_LAYER_TAR });
}
