import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtemp, rmdir, unlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { test } from "node:test";
import { promisify } from "node:util";
import { MemorySource, type ByteSource } from "../../bytes/source.ts";
import { HeldDevice } from "../../../test/support/held-device.ts";
import { LazyError, messageOf } from "../../errors.ts";
import { mountAt } from "../../native/mounts.ts";
import { FuseServer, type FuseServerOptions } from "./fuse-server.ts";

/** Runs a program, as this process must not touch the mount itself. */
const run = promisify(execFile);

function content(bytes: number): Buffer {
  return Buffer.from(Uint8Array.from({ length: bytes }, (_, i) => (i * 2654435761) >>> 24));
}

interface Served extends AsyncDisposable {
  readonly server: FuseServer;
  readonly directory: string;
}

async function serve(source: ByteSource, options: Partial<FuseServerOptions> = {}): Promise<Served> {
  assert.equal(process.geteuid?.(), 0, "this test mounts file systems: run it as root");
  const directory = await mkdtemp(join(tmpdir(), "fuse-server-"));
  const server = await FuseServer.mount({
    directory,
    content: source,
    workers: 2,
    stats: () => "some numbers\n",
    onReadFailure: () => {},
    ...options,
  });
  const close = async (): Promise<void> => {
    await server.close();
    await rmdir(directory);
  };
  return { server, directory, [Symbol.asyncDispose]: close };
}

async function readWith(directory: string, ...args: string[]): Promise<Buffer> {
  const { stdout } = await run("dd", [`if=${directory}/disk`, "status=none", ...args], { encoding: "buffer", maxBuffer: 2 ** 24 });
  return stdout;
}

test("the file has the source's bytes, at any offset and in any size of read, direct or buffered", async () => {
  const bytes = content(3 * 2 ** 20 + 123);
  await using served = await serve(new MemorySource(bytes));
  for (const [size, flags] of [
    ["2M", "direct"],
    ["64k", "direct"],
    ["777", "direct"],
    ["100k", "fullblock"],
  ] as const) {
    assert.ok(bytes.equals(await readWith(served.directory, `bs=${size}`, `iflag=${flags}`)), `${size} ${flags}`);
  }
  const part = await readWith(served.directory, "bs=1", "skip=1048570", "count=20", "iflag=direct");
  assert.ok(bytes.subarray(1_048_570, 1_048_590).equals(part));
  const { fetchedBytes, failedReads } = served.server.counts();
  assert.ok(fetchedBytes >= bytes.length && failedReads === 0);
});

test("the directory lists its two files; stats is made when it is read", async () => {
  let reads = 0;
  await using served = await serve(new MemorySource(content(10)), { stats: () => `read ${++reads} times\n` });
  assert.equal((await run("ls", ["-A", served.directory])).stdout, "disk\nstats\n");
  for (const round of [1, 2]) assert.equal((await run("cat", [join(served.directory, "stats")])).stdout, `read ${round} times\n`);
});

test("nothing can be written, made or removed", async () => {
  await using served = await serve(new MemorySource(content(10)));
  for (const [program, name] of [
    ["touch", "new"],
    ["rm", "disk"],
    ["truncate", "-s0"],
    ["mkdir", "sub"],
  ] as const) {
    await assert.rejects(
      run(program, name === "-s0" ? ["-s0", join(served.directory, "disk")] : [join(served.directory, name)]),
      /Read-only file system/,
    );
  }
});

test("a failing read gives EIO to its reader and is reported with its place", async () => {
  const failures: string[] = [];
  const failing: ByteSource = {
    name: "failing",
    size: 8192,
    read: async () => await Promise.reject(new LazyError("UNAVAILABLE", "gone")),
    close: async () => {},
  };
  const onReadFailure = (error: unknown, offset: number, length: number): void =>
    void failures.push(`${String(error)} ${offset}+${length}`);
  await using served = await serve(failing, { onReadFailure });
  await assert.rejects(readWith(served.directory, "bs=4096", "skip=1", "iflag=direct"), /Input\/output error/);
  assert.deepEqual(failures, ["LazyError: gone 4096+4096"]);
});

test("closing fails the reads that wait, and unmounts", async () => {
  const asked = Promise.withResolvers<undefined>();
  const answer = Promise.withResolvers<Uint8Array>();
  const slow: ByteSource = {
    name: "slow",
    size: 4096,
    read: async () => {
      asked.resolve(undefined);
      return await answer.promise;
    },
    close: async () => {},
  };
  const served = await serve(slow);
  const reading = readWith(served.directory, "bs=4096", "iflag=direct");
  await asked.promise;
  await Promise.all([served[Symbol.asyncDispose](), assert.rejects(reading, /error|abort|not connected/i)]);
  assert.equal(mountAt(served.directory), undefined);
});

test("a reader module that answers is asked first; what it declines goes to the source", async () => {
  const bytes = content(8192);
  const module = `export const openSyncReader = (fill) => ({
    readCached: (offset, target) => offset === 0 && target.fill(fill) !== undefined,
  });`;
  const reader = { url: `data:text/javascript,${encodeURIComponent(module)}`, data: 7 };
  await using served = await serve(new MemorySource(bytes), { reader });
  const read = await readWith(served.directory, "bs=4096", "iflag=direct");
  assert.ok(Buffer.alloc(4096, 7).equals(read.subarray(0, 4096)));
  assert.ok(bytes.subarray(4096).equals(read.subarray(4096)));
  const { cachedReads, fetchedReads } = served.server.counts();
  assert.deepEqual([cachedReads, fetchedReads], [1, 1]);
});

test("the main thread answers until there is much to do, then workers", async () => {
  const module = `export const openSyncReader = (threads) => {
    Atomics.add(threads, 0, 1);
    return { readCached: (offset, target) => target.fill(offset / 512) !== undefined };
  };`;
  const threads = new Int32Array(new SharedArrayBuffer(4));
  const reader = { url: `data:text/javascript,${encodeURIComponent(module)}`, data: threads };
  const bytes = Buffer.alloc(
    2 ** 20,
    Uint8Array.from({ length: 2 ** 20 }, (_, at) => Math.floor(at / 512)),
  );
  await using served = await serve(new MemorySource(bytes), { reader, workers: 3 });
  const readAll = async (): Promise<Buffer> => await readWith(served.directory, "bs=512", "iflag=direct");
  await readWith(served.directory, "bs=512", "iflag=direct", "count=300");
  assert.equal(threads[0], 1);
  for (let tries = 0; threads[0] < 4; tries++) {
    assert.ok(tries < 50, `${threads[0]} threads`);
    assert.ok(bytes.equals(await readAll()));
  }
  assert.ok(bytes.equals(await readAll()));
});

test("a mount that fails leaves no workers behind", async () => {
  const options = { content: new MemorySource(content(1)), workers: 2, stats: () => "", onReadFailure: () => {} };
  await assert.rejects(FuseServer.mount({ ...options, directory: "/nowhere/at/all" }), {
    code: "UNAVAILABLE",
    message: /mount .*does not exist/,
  });
});

test("release is told once nobody has the file open any more", async () => {
  await using served = await serve(new MemorySource(content(4096)));
  await readWith(served.directory, "bs=4096", "iflag=direct");
  await served.server.released();
});

test("writes reach the device, and the kernel's fsync, punched holes and zeros too", async () => {
  const device = new HeldDevice(Buffer.alloc(4 << 20));
  await using served = await serve(device);
  const disk = join(served.directory, "disk");
  const data = content(3 << 20);
  const input = join(served.directory, "..", `${basename(served.directory)}-input`);
  await writeFile(input, data);
  try {
    await run("dd", [`if=${input}`, `of=${disk}`, "bs=300001", "seek=1", "conv=notrunc,fsync", "status=none"]);
  } finally {
    await unlink(input);
  }
  const expected = Buffer.alloc(4 << 20);
  expected.set(data, 300_001);
  assert.ok(device.bytes.equals(expected));
  assert.equal(device.calls.at(-1), "flush 0+0");
  assert.equal((await run("sha256sum", [disk])).stdout.slice(0, 64), createHash("sha256").update(expected).digest("hex"));

  await run("fallocate", ["--punch-hole", "--keep-size", "--offset", "1048577", "--length", "100000", disk]);
  await run("fallocate", ["--zero-range", "--offset", "2097152", "--length", "4096", disk]);
  expected.fill(0, 1_048_577, 1_148_577).fill(0, 2_097_152, 2_101_248);
  assert.ok(device.bytes.equals(expected));
  const { writtenBytes, discards, flushes, failedWrites } = served.server.counts();
  assert.deepEqual([writtenBytes, discards, failedWrites], [data.length, 2, 0]);
  assert.ok(flushes >= 1, "the kernel may flush more often than it is asked to");
});

test("a write that fails is an error to whoever wrote, and is told of; the device goes on", async () => {
  const device = new HeldDevice(Buffer.alloc(1 << 20));
  const failures: string[] = [];
  await using served = await serve(device, { onWriteFailure: (error, { kind }) => failures.push(`${kind}: ${messageOf(error)}`) });
  const write = async (): Promise<unknown> =>
    await run("dd", ["if=/dev/zero", `of=${join(served.directory, "disk")}`, "bs=4096", "count=1", "conv=notrunc", "status=none"]);
  device.gate = async () => await Promise.reject(new Error("gone"));
  await assert.rejects(write(), /Input\/output error/);
  const full = new LazyError("UNAVAILABLE", "no room", { cause: Object.assign(new Error("full"), { code: "ENOSPC" }) });
  device.gate = async () => await Promise.reject(full);
  await assert.rejects(write(), /No space left/);
  assert.deepEqual(failures, ["write: gone", "write: no room"]);
  device.gate = () => undefined;
  await write();
  assert.equal(served.server.counts().failedWrites, 2);
});

test("a device keeps its size, whatever is asked of its file", async () => {
  await using served = await serve(new HeldDevice(Buffer.alloc(1 << 20)));
  const disk = join(served.directory, "disk");
  await assert.rejects(run("truncate", ["--size=4096", disk]), /Operation not permitted/);
  await assert.rejects(run("dd", ["if=/dev/zero", `of=${disk}`, "bs=4096", "seek=256", "count=1", "conv=notrunc"]), /No space left/);
  assert.equal((await run("stat", ["--format=%s", disk])).stdout, "1048576\n");
});
