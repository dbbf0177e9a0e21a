import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { pathToFileURL } from "node:url";
import { compressBlocks } from "../compression/block-codec.ts";
import { LazyError } from "../errors.ts";
import { CompressionPool } from "./compression-pool.ts";

const hasCode = (code: string) => (error: unknown) => error instanceof LazyError && error.code === code;

function batch(number: number): Uint8Array {
  return Uint8Array.from({ length: 30000 + number * 1000 }, (_, i) => (i * number) >>> 6);
}

for (const workers of [0, 1, 2]) {
  test(`${workers} workers give every batch the result of its own input`, async () => {
    const pool = new CompressionPool({ workers });
    try {
      const batches = Array.from({ length: 24 }, (_, number) => batch(number));
      const results = await Promise.all(batches.map((input, number) => pool.compress(number % 2 ? "lz4" : "zstd", input, 4096)));
      for (const [number, result] of results.entries()) {
        assert.deepEqual(result, compressBlocks(number % 2 ? "lz4" : "zstd", batch(number), 4096));
        assert.deepEqual(batches[number], batch(number), "the input is still the caller's");
      }
    } finally {
      await pool.close();
    }
  });
}

test("what a worker cannot compress rejects that batch alone", async () => {
  const pool = new CompressionPool({ workers: 1 });
  try {
    const failed = pool.compress("lz4", new Uint8Array(100_000), 100_000);
    const done = pool.compress("lz4", batch(1), 4096);
    await assert.rejects(failed, /at most 65536 bytes/);
    assert.deepEqual(await done, compressBlocks("lz4", batch(1), 4096));
  } finally {
    await pool.close();
  }
});

test("a worker that dies rejects its batches and is replaced", async () => {
  const directory = await mkdtemp(join(tmpdir(), "compression-pool-"));
  const script = join(directory, "dying-worker.mjs");
  const codec = new URL("../compression/block-codec.ts", import.meta.url).href;
  // Dies of a batch of one byte.
  await writeFile(
    script,
    `import { parentPort } from "node:worker_threads";
     import { compressBlocks } from ${JSON.stringify(codec)};
     parentPort.on("message", ({ id, algorithm, blockSize, input, inputBytes }) => {
       if (inputBytes === 1) process.exit(3);
       parentPort.postMessage({ id, input, result: compressBlocks(algorithm, new Uint8Array(input, 0, inputBytes), blockSize) });
     });`,
  );
  const pool = new CompressionPool({ workers: 1, script: pathToFileURL(script) });
  try {
    const dies = pool.compress("lz4", new Uint8Array(1), 4096);
    const goesWithIt = pool.compress("lz4", batch(1), 4096);
    const waits = pool.compress("lz4", batch(2), 4096);
    await assert.rejects(dies, hasCode("UNAVAILABLE"));
    await assert.rejects(goesWithIt, hasCode("UNAVAILABLE"));
    assert.deepEqual(await waits, compressBlocks("lz4", batch(2), 4096));
  } finally {
    await pool.close();
    await rm(directory, { recursive: true });
  }
});

test("closing rejects what is not done and refuses what comes later", async () => {
  const pool = new CompressionPool({ workers: 1 });
  const underway = Array.from({ length: 6 }, (_, number) => pool.compress("lz4", batch(number), 4096));
  const settled = Promise.allSettled(underway);
  await pool.close();
  await pool.close();
  assert.ok((await settled).some((result) => result.status === "rejected" && hasCode("UNAVAILABLE")(result.reason)));
  await assert.rejects(pool.compress("lz4", batch(1), 4096), hasCode("USAGE"));
});

test("a process ends by itself once its pool is closed", async () => {
  const pool = new URL("./compression-pool.ts", import.meta.url).href;
  const program = `import { CompressionPool } from ${JSON.stringify(pool)};
    const pool = new CompressionPool({ workers: 2 });
    const { bytes } = await pool.compress("lz4", new Uint8Array(10000), 4096);
    await pool.close();
    console.log(bytes.length);`;
  const child = execFile(process.execPath, ["--input-type=module", "--eval", program], { timeout: 30_000 });
  await once(child, "exit");
  assert.equal(child.exitCode, 0);
});
