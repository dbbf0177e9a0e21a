import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { randomUUID } from "node:crypto";
import { readFileSync, statSync, writeFileSync } from "node:fs";
import { after, before, describe, it } from "node:test";
import fc from "fast-check";
import { DiskFile } from "../../src/bytes/file.ts";
import type { ByteSource } from "../../src/bytes/source.ts";
import { nbdUri } from "../../src/export/nbd/nbd-address.ts";
import type { Extent, NbdExport } from "../../src/export/nbd/nbd-export.ts";
import { NbdServer } from "../../src/export/nbd/nbd-server.ts";
import { AppendLayer } from "../../src/formats/lsmt/append-layer.ts";
import { openWritableStack } from "../../src/formats/lsmt/writable-stack.ts";
import { execute, run } from "../support/command.ts";
import { HeldDevice, patternBytes } from "../support/held-device.ts";
import { requireProgram } from "../support/server-process.ts";
import { TemporaryDirectory } from "../support/temporary-directory.ts";

const MIB = 2 ** 20;
const NBDCOPY = "nbdcopy";
/** nbdcopy does not look closer than 256 KiB. */
const BLOCK_BYTES = 512 * 1024;
const DEVICE_BYTES = 24 * MIB;

let scratch: TemporaryDirectory;
before(async () => {
  for (const program of ["nbdinfo", "nbdcopy"]) await requireProgram(program, "libnbd-bin");
  for (const program of ["qemu-img", "qemu-io"]) await requireProgram(program, "qemu-utils");
  scratch = await TemporaryDirectory.create();
});
after(async () => await scratch[Symbol.asyncDispose]());

interface Served extends AsyncDisposable {
  readonly server: NbdServer;
  readonly uri: string;
  readonly failures: unknown[];
}

async function serve(served: NbdExport): Promise<Served> {
  const failures: unknown[] = [];
  const path = scratch.join(randomUUID());
  const server = await NbdServer.listen({
    served,
    address: { kind: "unix", path },
    onFailure: (error) => failures.push(error),
    onMisbehaviour: (error) => failures.push(error),
  });
  return { server, uri: nbdUri(server.address, served.name), failures, [Symbol.asyncDispose]: async () => await server.close() };
}

/** Every third block has data, the others are holes. */
function sparseExport(): NbdExport & { readonly bytes: Buffer } {
  const bytes = Buffer.alloc(DEVICE_BYTES);
  for (let at = 0; at < DEVICE_BYTES; at += 3 * BLOCK_BYTES) patternBytes(BLOCK_BYTES).copy(bytes, at);
  const device = new HeldDevice(bytes);
  const content: ByteSource = {
    name: "sparse device",
    size: DEVICE_BYTES,
    read: async (offset, length) => await device.read(offset, length),
    close: async () => {},
  };
  const extentsOf = (offset: number, length: number): Extent[] => {
    const found: Extent[] = [];
    for (let at = offset; at < offset + length;) {
      const block = Math.floor(at / BLOCK_BYTES);
      const end = Math.min((block + 1) * BLOCK_BYTES, offset + length);
      found.push({ bytes: end - at, isHole: block % 3 !== 0 });
      at = end;
    }
    return found;
  };
  return { name: "a disk/with a name", content, extentsOf, bytes };
}

interface MappedExtent {
  readonly offset: number;
  readonly length: number;
  readonly type: number;
}

describe("other people's clients on a read-only device", () => {
  it("nbdinfo tells what was offered", async () => {
    await using served = await serve(sparseExport());
    const { exports } = JSON.parse(await run("nbdinfo", ["--json", served.uri])) as { exports: Record<string, unknown>[] };
    const [found] = exports;
    assert.equal(found["export-name"], "a disk/with a name");
    assert.equal(found["export-size"], DEVICE_BYTES);
    assert.deepEqual(
      ["is_read_only", "can_multi_conn", "can_df", "can_flush", "can_trim", "can_zero"].map((name) => found[name]),
      [true, true, true, true, false, false],
    );
    assert.deepEqual([found["contexts"], found["block_size_maximum"]], [["base:allocation"], 32 * MIB]);
    const { status } = await execute("nbdinfo", [served.uri.replace("with", "without")]);
    assert.notEqual(status, 0);
    assert.match(await run("nbdinfo", ["--list", "--json", served.uri.replace(/\/a[^?]*/, "/")]), /"a disk\/with a name"/);
  });

  it("nbdinfo and qemu-img see its holes", async () => {
    await using served = await serve(sparseExport());
    const extents = JSON.parse(await run("nbdinfo", ["--map", "--json", served.uri])) as MappedExtent[];
    assert.equal(extents.length, (2 * DEVICE_BYTES) / BLOCK_BYTES / 3);
    for (const [index, { offset, length, type }] of extents.entries()) {
      const first = Math.floor(index / 2) * 3 * BLOCK_BYTES;
      assert.deepEqual([offset, length, type], index % 2 === 0 ? [first, BLOCK_BYTES, 0] : [first + BLOCK_BYTES, 2 * BLOCK_BYTES, 3]);
    }
    const map = JSON.parse(await run("qemu-img", ["map", "--output=json", "-f", "raw", served.uri])) as { zero: boolean }[];
    assert.deepEqual([map.length, map.filter(({ zero }) => zero).length], [extents.length, extents.length / 2]);
  });

  it("copies are the same and as sparse, over one connection or several, also side by side", async () => {
    const source = sparseExport();
    await using served = await serve(source);
    const copies = [1, 2, 4].map((connections) => ({ connections, file: scratch.join(`copy-${connections}`) }));
    await Promise.all(copies.map(({ connections, file }) => run("nbdcopy", [`--connections=${connections}`, served.uri, file])));
    for (const { file } of copies) {
      assert.ok(source.bytes.equals(readFileSync(file)));
      assert.ok(statSync(file).blocks * 512 <= DEVICE_BYTES / 3 + MIB);
    }
    const read = served.server.counts().fetchedBytes;
    assert.ok(read >= DEVICE_BYTES && read < 1.2 * DEVICE_BYTES, `${read} bytes read for three copies of a third`);
    assert.match(await run("qemu-img", ["compare", "-f", "raw", "-F", "raw", served.uri, copies[0].file]), /identical/);
    assert.deepEqual(served.failures, []);
  });

  it("a client that is killed while it waits harms nobody", async () => {
    const { content, extentsOf, ...rest } = sparseExport();
    const asked = Promise.withResolvers<void>();
    const answer = Promise.withResolvers<void>();
    const slow: ByteSource = {
      ...content,
      read: async (offset, length) => {
        asked.resolve();
        await answer.promise;
        return await content.read(offset, length);
      },
    };
    await using served = await serve({ ...rest, content: slow, extentsOf });
    const victim = spawn(NBDCOPY, [served.uri, scratch.join("victim")], { stdio: "ignore" });
    await asked.promise;
    victim.kill("SIGKILL");
    await once(victim, "exit");
    answer.resolve();
    await run("nbdcopy", [served.uri, scratch.join("survivor")]);
    assert.ok(rest.bytes.equals(readFileSync(scratch.join("survivor"))));
    assert.deepEqual(served.failures, []);
  });

  it("it cannot be written", async () => {
    await using served = await serve(sparseExport());
    const { status, stderr } = await execute("qemu-io", ["-f", "raw", "-c", "write 0 4k", served.uri]);
    assert.notEqual(status, 0);
    assert.match(stderr, /Permission denied/);
  });
});

/** A device to write to, and how to read all of it. */
interface Writable extends AsyncDisposable {
  readonly uri: string;
  readonly failures: unknown[];
  bytes(): Promise<Uint8Array>;
}

async function inMemory(lower: Buffer): Promise<Writable> {
  const device = new HeldDevice(Buffer.from(lower));
  const served = await serve({ name: "", content: device });
  return { ...served, bytes: async () => device.bytes, [Symbol.asyncDispose]: async () => await served.server.close() };
}

async function inLayer(lower: Buffer): Promise<Writable> {
  const [data, index] = await Promise.all([randomUUID(), randomUUID()].map(async (name) => await DiskFile.create(scratch.join(name))));
  const stack = await openWritableStack(new HeldDevice(lower), await AppendLayer.create(data, index, { virtualSize: lower.length }));
  const served = await serve({ name: "", content: stack });
  return {
    ...served,
    bytes: async () => await stack.read(0, stack.size),
    [Symbol.asyncDispose]: async () => {
      await served.server.close();
      await stack.close();
    },
  };
}

const action = fc.record({
  kind: fc.constantFrom("write", "zero", "unmap", "discard"),
  offset: fc.nat(DEVICE_BYTES / 512 - 1).map((sector) => sector * 512),
  bytes: fc.oneof(fc.integer({ min: 1, max: 64 }), fc.integer({ min: 1, max: 4096 })).map((sectors) => sectors * 512),
  fill: fc.integer({ min: 1, max: 255 }),
  flush: fc.boolean(),
});

for (const [name, open] of [
  ["a device in memory", inMemory],
  ["an image with a writable layer", inLayer],
] as const) {
  describe(`other people's clients on ${name}`, () => {
    it("qemu-io's writes, zeros and discards leave what they should", async () => {
      const lower = patternBytes(DEVICE_BYTES);
      await using device = await open(lower);
      const actions = fc.sample(action, { numRuns: 120, seed: 7 });
      const commands: string[] = [];
      for (const { kind, offset, bytes, fill, flush } of actions) {
        const length = Math.min(bytes, DEVICE_BYTES - offset);
        const flags = flush && kind !== "discard" ? "-f " : "";
        if (kind === "write") commands.push(`write ${flags}-P ${fill} ${offset} ${length}`);
        else
          commands.push(
            kind === "discard" ? `discard ${offset} ${length}` : `write ${flags}${kind === "zero" ? "-z" : "-zu"} ${offset} ${length}`,
          );
        lower.fill(kind === "write" ? fill : 0, offset, offset + length);
      }
      const model = Buffer.from(lower);
      await run("qemu-io", ["-f", "raw", "-d", "unmap", ...commands.flatMap((command) => ["-c", command]), "-c", "flush", device.uri]);
      assert.ok(model.equals(await device.bytes()));
      assert.deepEqual(device.failures, []);
    });

    it("a disk is copied to it by several connections at once", async () => {
      const image = sparseExport().bytes;
      writeFileSync(scratch.join("image"), image);
      await using device = await open(patternBytes(DEVICE_BYTES));
      await run("nbdcopy", ["--connections=4", "--flush", scratch.join("image"), device.uri]);
      assert.ok(image.equals(await device.bytes()));
      assert.match(await run("qemu-img", ["compare", "-f", "raw", "-F", "raw", device.uri, scratch.join("image")]), /identical/);
      assert.deepEqual(device.failures, []);
    });
  });
}
