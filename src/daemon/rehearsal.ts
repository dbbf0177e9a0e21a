import { once } from "node:events";
import { rmSync } from "node:fs";
import type { IncomingMessage, Server, ServerResponse } from "node:http";
import { MemorySink } from "../bytes/sink.ts";
import { BlockCache } from "../cache/block-cache.ts";
import { compressInline } from "../compression/block-codec.ts";
import { openImageConfig } from "../device/image-config.ts";
import type { ImageConfig } from "../device/image-config-schema.ts";
import { LazyError } from "../errors.ts";
import { SECTOR_BYTES } from "../formats/lsmt/layout.ts";
import { LsmtWriter } from "../formats/lsmt/lsmt-writer.ts";
import { MappingList } from "../formats/lsmt/mapping-list.ts";
import { ZFileWriter } from "../formats/zfile/zfile-writer.ts";
import { http } from "../registry/node-http.ts";
import { openRegistryStore } from "../registry/registry-store.ts";
import { meteredPlaces, newMeters } from "./metered-places.ts";

const REPOSITORY = "rehearsal";
const LAYERS = 2;
/** The first finds most to compile, the second leaves it warm; more take memory and gain little. */
const ROUNDS = 2;
const LAYER_BYTES = 128 << 10;
/** Of which every other has data: an index that is worth a loop. */
const PIECE_BYTES = 8 << 10;
const CACHE = { capacityBytes: 2 ** 30, chunkBytes: 2 ** 18, onDiskFailure: () => {} };

/**
 * Opens and reads a small image of a registry of its own, on this machine and in this process, as the image of a device is opened later:
 * what runs for the first time takes three times as long. `directory` is for its cache, and is gone when it resolves.
 * Throws whatever goes wrong, and the signal's reason.
 */
export async function rehearse(directory: string, signal: AbortSignal): Promise<void> {
  const clear = (): void => rmSync(directory, { recursive: true, force: true });
  process.once("exit", clear);
  try {
    const layer = await makeLayer();
    await using registry = await RehearsalRegistry.listen(layer);
    for (let round = 0; round < ROUNDS; round++) {
      clear();
      await openOnce(registry.host, layer.length, directory, signal);
    }
  } finally {
    process.off("exit", clear);
    clear();
  }
}

async function openOnce(host: string, layerBytes: number, directory: string, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted();
  const store = openRegistryStore({ kind: "registry", host, repository: REPOSITORY }, { signal });
  try {
    const cache = await BlockCache.open(directory, CACHE);
    const places = { openRemote: async () => store, cache, gzipCache: undefined, notice: () => {} };
    const { device } = await openImageConfig(imageAt(host, layerBytes), meteredPlaces(places, newMeters(), undefined));
    try {
      await device.read(0, device.size);
    } finally {
      await device.close();
    }
  } finally {
    await store.close();
  }
}

function imageAt(host: string, size: number): ImageConfig {
  const nowhere = { file: "", dir: "", targetFile: "", targetDigest: "", gzipIndex: "" };
  const lowers = Array.from({ length: LAYERS }, (_, layer) => ({ ...nowhere, digest: `sha256:${String(layer).padStart(64, "0")}`, size }));
  return {
    repoBlobUrl: `http://${host}/v2/${REPOSITORY}/blobs`,
    lowers,
    upper: { data: "", index: "", target: "", gzipIndex: "" },
    resultFile: "",
    accelerationLayer: false,
    recordTracePath: "",
  };
}

async function makeLayer(): Promise<Uint8Array> {
  const lsmt = new MemorySink();
  const writer = new LsmtWriter(lsmt, { virtualSize: 2 * LAYER_BYTES });
  const mappings = new MappingList();
  const piece = new Uint8Array(PIECE_BYTES);
  for (let at = 0; at < LAYER_BYTES; at += PIECE_BYTES) {
    crypto.getRandomValues(piece.subarray(0, PIECE_BYTES / 2));
    mappings.add((2 * at) / SECTOR_BYTES, PIECE_BYTES / SECTOR_BYTES, await writer.append(piece));
  }
  await writer.close(mappings);
  const zfile = new MemorySink();
  const compressing = new ZFileWriter(zfile, { algorithm: "lz4", compress: compressInline, overwriteHeader: false });
  await compressing.write(lsmt.bytes());
  await compressing.close();
  return zfile.bytes();
}

/** Has one blob, whatever its digest, and answers for ranges of it only. Nobody else is told its port. */
class RehearsalRegistry implements AsyncDisposable {
  readonly host: string;
  readonly #server: Server;

  private constructor(server: Server, port: number) {
    this.#server = server;
    this.host = `127.0.0.1:${port}`;
  }

  static async listen(blob: Uint8Array): Promise<RehearsalRegistry> {
    const server = http.createServer((request, response) => answer(blob, request, response)).listen(0, "127.0.0.1");
    await once(server, "listening");
    const address = server.address();
    if (address === null || typeof address === "string") throw new LazyError("UNAVAILABLE", "rehearsal: the server has no port");
    return new RehearsalRegistry(server, address.port);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = once(this.#server, "close");
    this.#server.close();
    this.#server.closeAllConnections();
    await closed;
  }
}

function answer(blob: Uint8Array, { headers }: IncomingMessage, response: ServerResponse): void {
  const [, first, last] = /^bytes=(\d+)-(\d+)$/.exec(headers.range ?? "") ?? [];
  if (first === undefined) {
    response.writeHead(416).end();
    return;
  }
  const [start, end] = [Number(first), Math.min(Number(last) + 1, blob.length)];
  const contentRange = `bytes ${start}-${end - 1}/${blob.length}`;
  response.writeHead(206, { "content-range": contentRange, "content-length": end - start }).end(blob.subarray(start, end));
}
