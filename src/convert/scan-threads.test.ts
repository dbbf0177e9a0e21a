import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { randomFillSync } from "node:crypto";
import { writeFile } from "node:fs/promises";
import { test } from "node:test";
import { pathToFileURL } from "node:url";
import { promisify } from "node:util";
import { gzipSync, zstdCompressSync } from "node:zlib";
import { tarArchive } from "../../test/support/tar-builder.ts";
import { TemporaryDirectory } from "../../test/support/temporary-directory.ts";
import { compressBlocks } from "../compression/block-codec.ts";
import { LazyError } from "../errors.ts";
import { digestOf, type Digest } from "../oci/digest.ts";
import { scanLayer } from "./layer-scan.ts";
import { ScanThreads } from "./scan-threads.ts";

const hasCode = (code: string) => (error: unknown) => error instanceof LazyError && error.code === code;

async function* pieces(bytes: Uint8Array, length = 50_000): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += length) yield bytes.subarray(at, at + length);
}

/** A layer whose payload fills several batches; half of it does not compress. */
function layer(number: number): Uint8Array {
  const files = Array.from({ length: 20 }, (_, file) => {
    const data = Buffer.alloc(file * 40_000 + number * 1000 + 1, `file ${file} of layer ${number}. `);
    if (file % 2 === 0) randomFillSync(data);
    return { name: `directory-${number}/file-${file}`, data };
  });
  return tarArchive(files);
}

interface Scanned {
  readonly blocks: Digest;
  readonly paths: readonly string[];
  readonly payloadBlocks: number;
  readonly diffId: Digest;
}

async function scanOn(threads: ScanThreads, stored: AsyncIterable<Uint8Array>): Promise<Scanned> {
  const blocks: Buffer[] = [];
  const { entries, payloadBlocks, diffId } = await threads.scan(stored, "layer", async (batch, payloadBytes) => {
    await new Promise(setImmediate);
    assert.equal(batch.storedBytes.length, Math.ceil(payloadBytes / 4096));
    blocks.push(Buffer.from(batch.bytes));
  });
  return { blocks: digestOf(Buffer.concat(blocks)), paths: Array.from(entries, ({ path }) => path), payloadBlocks, diffId };
}

const OPTIONS = { payload: true, indexed: false };

async function scanHere(tar: Uint8Array): Promise<Scanned> {
  const payload: Buffer[] = [];
  const put = async (bytes: Buffer): Promise<void> => void payload.push(bytes);
  const { entries, payloadBlocks, diffId } = await scanLayer(pieces(tar), "layer", put, () => new ArrayBuffer(1 << 20), OPTIONS);
  const { bytes } = compressBlocks("lz4", Buffer.concat(payload), 4096);
  return { blocks: digestOf(bytes), paths: Array.from(entries, ({ path }) => path), payloadBlocks, diffId };
}

const LAYERS = Array.from({ length: 7 }, (_, number) => layer(number));
const EXPECTED = await Promise.all(LAYERS.map(scanHere));

for (const count of [1, 2, 3, 7]) {
  test(`${count} threads give every layer the same blocks and entries, alone and side by side`, async () => {
    const threads = new ScanThreads({ threads: count });
    try {
      const alone = await scanOn(threads, pieces(gzipSync(LAYERS[0], { level: 1 })));
      assert.deepEqual(alone, EXPECTED[0]);
      const stored = LAYERS.map((tar, number) =>
        number % 3 === 0 ? tar : number % 3 === 1 ? gzipSync(tar, { level: 1 }) : zstdCompressSync(tar),
      );
      const found = await Promise.all(stored.map(async (bytes) => await scanOn(threads, pieces(bytes))));
      assert.deepEqual(found, EXPECTED);
    } finally {
      await threads.close();
    }
  });
}

test("blocks of anything are compressed as on this thread, and their input stays the caller's", async () => {
  const threads = new ScanThreads({ threads: 2 });
  try {
    for (const bytes of [1, 4096, 130_000, 700_000]) {
      const input = Uint8Array.from({ length: bytes }, (_, i) => (i * 7) >>> 6);
      const before = digestOf(input);
      for (const algorithm of ["lz4", "zstd"] as const) {
        const { bytes: found, storedBytes } = await threads.compress(algorithm, input, 4096);
        const expected = compressBlocks(algorithm, input, 4096);
        assert.ok(Buffer.from(found).equals(expected.bytes));
        assert.deepEqual(storedBytes, expected.storedBytes);
      }
      assert.equal(digestOf(input), before);
    }
  } finally {
    await threads.close();
  }
});

test("a layer that fails says why and leaves the others alone", async () => {
  const threads = new ScanThreads({ threads: 2 });
  const ignore = async (): Promise<void> => {};
  async function* breaking(): AsyncGenerator<Uint8Array> {
    yield* pieces(LAYERS[1].subarray(0, 300_000));
    throw new LazyError("DENIED", "the token has run out");
  }
  try {
    const good = scanOn(threads, pieces(LAYERS[2]));
    await assert.rejects(threads.scan(pieces(Buffer.alloc(5000, "no tar")), "layer 1", ignore), (error) => {
      return hasCode("CORRUPT")(error) && (error as Error).message.startsWith("layer 1: ");
    });
    await assert.rejects(threads.scan(pieces(gzipSync(LAYERS[1]).subarray(0, -9)), "layer 1", ignore), hasCode("CORRUPT"));
    await assert.rejects(threads.scan(breaking(), "layer 1", ignore), /the token has run out/);
    const full = new LazyError("UNAVAILABLE", "the disk is full");
    await assert.rejects(
      threads.scan(pieces(LAYERS[3]), "layer 1", async () => await Promise.reject(full)),
      full,
    );
    assert.deepEqual(await good, EXPECTED[2]);
    assert.deepEqual(await scanOn(threads, pieces(LAYERS[4])), EXPECTED[4]);
  } finally {
    await threads.close();
  }
});

test("a layer that is taken out slowly is not read ahead without bound", async () => {
  const threads = new ScanThreads({ threads: 2 });
  const data = randomFillSync(Buffer.alloc(1 << 20));
  let [given, put] = [0, 0];
  async function* endless(): AsyncGenerator<Uint8Array> {
    const tar = tarArchive([{ name: "file", data: Buffer.alloc(64 << 20) }]);
    yield tar.subarray(0, 512);
    for (; given < 64; given++) yield data;
    yield Buffer.alloc(1024);
  }
  try {
    await threads.scan(endless(), "layer", async (_, payloadBytes) => {
      await new Promise((resolve) => setTimeout(resolve, 5));
      put += payloadBytes;
      assert.ok(given - put / 2 ** 20 < 20, `${given} MiB given, ${put / 2 ** 20} put`);
    });
    assert.equal(put, 64 << 20);
  } finally {
    await threads.close();
  }
});

test("a thread that dies fails what it was at, and another takes its place", async () => {
  await using directory = await TemporaryDirectory.create();
  const script = directory.join("dying-worker.mjs");
  const worker = new URL("./layer-scan-worker.ts", import.meta.url).href;
  await writeFile(
    script,
    `import { parentPort } from "node:worker_threads";
     parentPort.on("message", ({ name }) => { if (name === "deadly") process.exit(3); });
     await import(${JSON.stringify(worker)});`,
  );
  const threads = new ScanThreads({ threads: 1, script: pathToFileURL(script) });
  try {
    const dies = threads.scan(pieces(LAYERS[1]), "deadly", async () => {});
    const goesWithIt = threads.scan(pieces(LAYERS[2]), "layer", async () => {});
    await Promise.all([assert.rejects(dies, hasCode("UNAVAILABLE")), assert.rejects(goesWithIt, hasCode("UNAVAILABLE"))]);
    assert.deepEqual(await scanOn(threads, pieces(LAYERS[1])), EXPECTED[1]);
  } finally {
    await threads.close();
  }
});

test("closing fails what is not done and refuses what comes later", async () => {
  const threads = new ScanThreads({ threads: 1 });
  const underway = threads.scan(pieces(LAYERS[1]), "layer", async () => {});
  const rejected = assert.rejects(underway, hasCode("UNAVAILABLE"));
  await threads.close();
  await threads.close();
  await rejected;
  await assert.rejects(
    threads.scan(pieces(LAYERS[1]), "layer", async () => {}),
    hasCode("USAGE"),
  );
});

test("a process with idle threads ends by itself", async () => {
  const module = new URL("./scan-threads.ts", import.meta.url).href;
  const program = `import { ScanThreads } from ${JSON.stringify(module)};
    const threads = new ScanThreads({ threads: 2 });
    const { bytes } = await threads.compress("lz4", new Uint8Array(1000000), 4096);
    console.log(bytes.length > 0);`;
  const { stdout } = await promisify(execFile)(process.execPath, ["--input-type=module", "--eval", program], { timeout: 60_000 });
  assert.equal(stdout, "true\n");
});
