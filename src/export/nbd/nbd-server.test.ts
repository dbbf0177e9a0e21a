import assert from "node:assert/strict";
import { statSync, writeFileSync, existsSync } from "node:fs";
import { createServer } from "node:net";
import { once } from "node:events";
import { test } from "node:test";
import { HeldDevice, patternBytes } from "../../../test/support/held-device.ts";
import { contextData, goData, NbdClient, type Reply } from "../../../test/support/nbd-client.ts";
import { run } from "../../../test/support/command.ts";
import { TemporaryDirectory } from "../../../test/support/temporary-directory.ts";
import type { ByteSource } from "../../bytes/source.ts";
import { LazyError, messageOf } from "../../errors.ts";
import type { NbdAddress } from "./nbd-address.ts";
import type { Extent, NbdExport } from "./nbd-export.ts";
import { NbdServer, type NbdServerOptions } from "./nbd-server.ts";
import { ALLOCATION_CONTEXT, CHUNKS, COMMAND_FLAGS, COMMANDS, ERRNO, OPTION_REPLIES, OPTIONS } from "./protocol.ts";

const MIB = 2 ** 20;
const LOOPBACK: NbdAddress = { kind: "tcp", host: "127.0.0.1", port: 0 };

interface Served extends AsyncDisposable {
  readonly server: NbdServer;
  readonly address: NbdAddress;
  readonly failures: string[];
  readonly misbehaviours: string[];
}

async function serve(served: Partial<NbdExport> & Pick<NbdExport, "content">, options: Partial<NbdServerOptions> = {}): Promise<Served> {
  const [failures, misbehaviours]: [string[], string[]] = [[], []];
  const server = await NbdServer.listen({
    served: { name: "disk", ...served },
    address: LOOPBACK,
    onFailure: (error, request) => failures.push(`${request.kind}: ${messageOf(error)}`),
    onMisbehaviour: (error) => misbehaviours.push(messageOf(error)),
    ...options,
  });
  return { server, address: server.address, failures, misbehaviours, [Symbol.asyncDispose]: async () => await server.close() };
}

/** The same without what writing takes. */
function readOnly(device: HeldDevice): ByteSource {
  return { name: device.name, size: device.size, read: async (offset, length) => await device.read(offset, length), close: async () => {} };
}

function sortedCookies(replies: readonly Reply[]): bigint[] {
  return replies.map(({ cookie }) => cookie).toSorted((a, b) => Number(a - b));
}

test("it is told when the last client has gone, be it with a word or without", async () => {
  const left = Promise.withResolvers<void>();
  let told = 0;
  const onLeft = (): void => {
    told++;
    left.resolve();
  };
  await using served = await serve({ content: new HeldDevice(patternBytes(512)) }, { onLeft });
  {
    await using polite = await NbdClient.ready(served.address);
    await using abrupt = await NbdClient.ready(served.address);
    polite.send(COMMANDS.DISC, 1n, 0, 0);
    await once(polite.socket, "close");
    await abrupt.read(0, 512);
    assert.equal(told, 0);
  }
  await left.promise;
  assert.equal(told, 1);
});

test("bytes are read at any offset, in simple replies and in chunks", async () => {
  const device = new HeldDevice(patternBytes(3 * MIB));
  await using served = await serve({ content: readOnly(device) });
  await using client = await NbdClient.ready(served.address);
  await using other = await NbdClient.ready(served.address, { structured: true, name: "disk" });
  for (const [offset, length] of [
    [0, 1],
    [511, 4097],
    [MIB - 1, 2 * MIB],
    [3 * MIB - 5, 5],
    [7, 0],
  ]) {
    const expected = device.bytes.subarray(offset, offset + length);
    assert.ok(expected.equals(await client.read(offset, length)), `${offset}+${length}`);
    other.send(COMMANDS.READ, 9n, offset, length, length > 0 ? COMMAND_FLAGS.DF : 0);
    const { type, isLast, cookie, payload } = await other.reply();
    assert.deepEqual([type, isLast, cookie], [length === 0 ? CHUNKS.NONE : CHUNKS.OFFSET_DATA, true, 9n]);
    if (length > 0) assert.equal(payload.readBigUInt64BE(), BigInt(offset));
    assert.ok(expected.equals(payload.subarray(length === 0 ? 0 : 8)));
  }
  assert.deepEqual(served.server.counts(), {
    cachedReads: 0,
    cachedBytes: 0,
    fetchedReads: 10,
    fetchedBytes: 2 * (1 + 4097 + 2 * MIB + 5),
    writes: 0,
    writtenBytes: 0,
    failed: 0,
    connections: 2,
  });
});

test("a client of the old kind, which knows EXPORT_NAME only, is served", async () => {
  const device = new HeldDevice(patternBytes(8192));
  await using served = await serve({ content: readOnly(device) });
  await using client = await NbdClient.greeted(served.address, 0);
  client.socket.write(
    Buffer.concat([Buffer.from("IHAVEOPT"), Buffer.from([0, 0, 0, OPTIONS.EXPORT_NAME, 0, 0, 0, 4]), Buffer.from("disk")]),
  );
  const reply = await client.take(134);
  assert.equal(reply.readBigUInt64BE(), 8192n);
  assert.ok(device.bytes.subarray(100, 200).equals(await client.read(100, 100)));
});

test("writes, zeros and discards change the device; flush and FUA reach it before the reply", async () => {
  const device = new HeldDevice(patternBytes(4 * MIB));
  const model = Buffer.from(device.bytes);
  await using served = await serve({ content: device });
  await using client = await NbdClient.ready(served.address);
  const data = patternBytes(1024).reverse();
  client.send(COMMANDS.WRITE, 1n, 512, 1024, 0, data);
  client.send(COMMANDS.FLUSH, 2n, 0, 0);
  client.send(COMMANDS.WRITE, 3n, 4096, 1024, COMMAND_FLAGS.FUA, data);
  client.send(COMMANDS.TRIM, 4n, 8192, 4096, COMMAND_FLAGS.FUA);
  client.send(COMMANDS.WRITE_ZEROES, 5n, 16384, 4096);
  client.send(COMMANDS.WRITE_ZEROES, 6n, MIB, 2 * MIB + 512, COMMAND_FLAGS.NO_HOLE);
  const replies = [];
  for (let i = 0; i < 6; i++) replies.push(await client.reply());
  assert.ok(replies.every(({ error }) => error === 0));
  assert.deepEqual(sortedCookies(replies), [1n, 2n, 3n, 4n, 5n, 6n]);
  model.set(data, 512);
  model.set(data, 4096);
  for (const [at, bytes] of [
    [8192, 4096],
    [16384, 4096],
    [MIB, 2 * MIB + 512],
  ]) {
    model.fill(0, at, at + bytes);
  }
  assert.ok(model.equals(device.bytes));
  assert.deepEqual(
    device.calls.filter((call) => call.startsWith("discard")),
    ["discard 8192+4096", "discard 16384+4096"],
  );
  assert.equal(device.calls.filter((call) => call.startsWith("flush")).length, 3);
  assert.ok(model.subarray(0, MIB).equals(await client.read(0, MIB)));
});

test("what is asked of a read-only device in vain is told, and the data that came with it is passed over", async () => {
  const device = new HeldDevice(patternBytes(8192));
  await using served = await serve({ content: readOnly(device) });
  for (const structured of [false, true]) {
    await using client = await NbdClient.ready(served.address, { structured });
    client.send(COMMANDS.WRITE, 1n, 0, 2 * MIB, 0, Buffer.alloc(2 * MIB, 0x25));
    client.send(COMMANDS.TRIM, 2n, 0, 512);
    client.send(COMMANDS.READ, 3n, 8192, 1);
    client.send(77, 4n, 0, 0);
    client.send(COMMANDS.BLOCK_STATUS, 5n, 0, 10);
    const errors = [];
    for (let i = 0; i < 5; i++) errors.push((await client.reply()).error);
    assert.deepEqual(errors, [ERRNO.PERM, ERRNO.PERM, ERRNO.INVAL, ERRNO.INVAL, ERRNO.INVAL]);
  }
  assert.deepEqual([device.calls, served.failures, served.misbehaviours], [[], [], []]);
});

test("replies come as they are ready, and not in the order of the requests", async () => {
  const device = new HeldDevice(patternBytes(MIB));
  const slow = Promise.withResolvers<void>();
  device.gate = (_, offset) => (offset === 0 ? slow.promise : undefined);
  await using served = await serve({ content: readOnly(device) });
  await using client = await NbdClient.ready(served.address, { structured: true });
  for (const cookie of [0n, 1n, 2n]) client.send(COMMANDS.READ, cookie, Number(cookie) * 4096, 4096);
  const early = [await client.reply(), await client.reply()];
  assert.deepEqual(sortedCookies(early), [1n, 2n]);
  slow.resolve();
  assert.equal((await client.reply()).cookie, 0n);
});

test("a failing read is an I/O error for its client and is reported; a full disk says so", async () => {
  const device = new HeldDevice(patternBytes(8192));
  const full = new LazyError("UNAVAILABLE", "no room", { cause: Object.assign(new Error("full"), { code: "ENOSPC" }) });
  device.gate = async (operation) => await Promise.reject(operation === "write" ? full : new LazyError("UNAVAILABLE", "gone"));
  await using served = await serve({ content: device });
  for (const structured of [false, true]) {
    await using client = await NbdClient.ready(served.address, { structured });
    client.send(COMMANDS.READ, 1n, 0, 512);
    assert.deepEqual((await client.reply()).error, ERRNO.IO);
    client.send(COMMANDS.WRITE, 2n, 0, 512, 0, Buffer.alloc(512));
    assert.deepEqual((await client.reply()).error, ERRNO.NOSPC);
  }
  assert.deepEqual(served.failures, ["read: gone", "write: no room", "read: gone", "write: no room"]);
  assert.equal(served.server.counts().failed, 4);
});

test("a reader of what is cached is asked first, also for the pieces of a long read", async () => {
  const device = new HeldDevice(Buffer.alloc(5 * MIB, 1));
  const module = `export const openSyncReader = (end) => ({
    readCached: (offset, target) => offset + target.length <= end && target.fill(7) !== undefined,
  });`;
  const reader = { url: `data:text/javascript,${encodeURIComponent(module)}`, data: 2.5 * MIB };
  await using served = await serve({ content: readOnly(device), reader });
  await using client = await NbdClient.ready(served.address);
  assert.ok(Buffer.alloc(4096, 7).equals(await client.read(4096, 4096)));
  assert.ok(Buffer.alloc(4096, 1).equals(await client.read(3 * MIB, 4096)));
  assert.ok(Buffer.concat([Buffer.alloc(2 * MIB, 7), Buffer.alloc(3 * MIB, 1)]).equals(await client.read(0, 5 * MIB)));
  assert.ok(Buffer.alloc(1.5 * MIB, 7).equals(await client.read(0, 1.5 * MIB)));
  assert.deepEqual(device.calls, [`read ${3 * MIB}+4096`, `read ${2 * MIB}+${3 * MIB}`]);
  const { cachedReads, cachedBytes, fetchedReads } = served.server.counts();
  assert.deepEqual([cachedReads, cachedBytes, fetchedReads], [1, 4096, 3]);
});

test("holes are told to who has asked for them", async () => {
  const device = new HeldDevice(Buffer.alloc(MIB));
  const extentsOf = (offset: number, length: number): Extent[] => [
    { bytes: 8192 - offset, isHole: false },
    { bytes: offset + length - 8192, isHole: true },
  ];
  await using served = await serve({ content: readOnly(device), extentsOf });
  await using client = await NbdClient.greeted(served.address);
  await client.option(OPTIONS.STRUCTURED_REPLY);
  const [context] = await client.option(OPTIONS.SET_META_CONTEXT, contextData("disk", [ALLOCATION_CONTEXT]));
  const id = context.data.subarray(0, 4);
  assert.equal((await client.option(OPTIONS.GO, goData("disk"))).at(-1)?.type, OPTION_REPLIES.ACK);
  client.send(COMMANDS.BLOCK_STATUS, 1n, 512, 65536);
  const { type, payload } = await client.reply();
  assert.equal(type, CHUNKS.BLOCK_STATUS);
  const numbers = Array.from({ length: 4 }, (_, i) => payload.readUInt32BE(4 + 4 * i));
  assert.ok(payload.subarray(0, 4).equals(id));
  assert.deepEqual([numbers, payload.length], [[8192 - 512, 0, 65536 + 512 - 8192, 3], 20]);
});

test("a client that asks for much and takes nothing holds up nobody, and no more memory than one large request", async () => {
  const device = new HeldDevice(patternBytes(33 * MIB));
  await using served = await serve({ content: readOnly(device) });
  await using greedy = await NbdClient.ready(served.address);
  greedy.socket.pause();
  for (let i = 0; i < 20; i++) greedy.send(COMMANDS.READ, BigInt(i), 0, 8 * MIB);
  await device.called(4);
  await using other = await NbdClient.ready(served.address);
  for (let i = 0; i < 50; i++) assert.ok(device.bytes.subarray(i, i + 4096).equals(await other.read(i, 4096)));
  // 32 MiB are under way; of what the kernel's buffers take off them, a reply or two may have left.
  const begun = device.calls.filter((call) => call.endsWith(`+${8 * MIB}`)).length;
  assert.ok(begun >= 4 && begun <= 6, `${begun} reads begun`);
  greedy.send(COMMANDS.READ, 20n, 0, 32 * MIB);
  greedy.socket.resume();
  const seen = [];
  for (let i = 0; i <= 20; i++) {
    seen.push((await greedy.reply()).cookie);
    await greedy.take(i < 20 ? 8 * MIB : 32 * MIB);
  }
  assert.deepEqual(
    seen.toSorted((a, b) => Number(a - b)),
    Array.from({ length: 21 }, (_, i) => BigInt(i)),
  );
});

test("no more requests of a connection are under way than there may be", async () => {
  const device = new HeldDevice(patternBytes(MIB));
  const open = Promise.withResolvers<void>();
  device.gate = () => open.promise;
  await using served = await serve({ content: readOnly(device) });
  await using client = await NbdClient.ready(served.address);
  for (let i = 0; i < 1000; i++) client.send(COMMANDS.READ, BigInt(i), i, 1);
  await device.called(256);
  await using other = await NbdClient.ready(served.address);
  other.send(COMMANDS.READ, 1n, 0, 1);
  await device.called(257);
  assert.deepEqual(device.waiting, 257);
  open.resolve();
  for (let i = 0; i < 1000; i++) {
    const { cookie } = await client.reply();
    assert.equal((await client.take(1))[0], device.bytes[Number(cookie)]);
  }
});

test("a client that leaves or is killed in the middle of anything is forgotten, and others go on", async () => {
  const device = new HeldDevice(patternBytes(4 * MIB));
  const open = Promise.withResolvers<void>();
  device.gate = (operation) => (operation === "read" ? open.promise : undefined);
  await using served = await serve({ content: device });
  const leavers = await Promise.all([0, 1, 2, 3].map(async () => await NbdClient.ready(served.address)));
  leavers[0].send(COMMANDS.WRITE, 1n, 0, MIB, 0, Buffer.alloc(1000)); // most of the data is missing
  leavers[1].send(COMMANDS.READ, 1n, 0, MIB);
  leavers[2].socket.write(Buffer.alloc(10)); // part of a header
  leavers[3].send(COMMANDS.READ, 1n, 0, MIB);
  leavers[3].send(COMMANDS.DISC, 2n, 0, 0);
  await device.called(2);
  for (const leaver of leavers.slice(0, 3)) leaver.socket.resetAndDestroy();
  open.resolve();
  assert.equal((await leavers[3].closed()).length, 16 + MIB, "what was asked before the goodbye is answered");
  await using client = await NbdClient.ready(served.address);
  assert.ok(device.bytes.subarray(0, 4096).equals(await client.read(0, 4096)));
  assert.ok(!device.calls.some((call) => call.startsWith("write")), "half a write is none");
  while (served.server.counts().connections > 1) await new Promise(setImmediate);
  assert.deepEqual([served.failures, served.misbehaviours], [[], []]);
});

test("clients that do not keep to the protocol are cut off, and it is said why", async () => {
  await using served = await serve({ content: new HeldDevice(patternBytes(8192)) });
  const rows: [RegExp, () => Promise<NbdClient>, Uint8Array][] = [
    [/client flags are 0x47455420/, async () => await NbdClient.connect(served.address), Buffer.from("GET / HTTP/1.1\r\n\r\n")],
    [/client flags are 0x8/, async () => await NbdClient.greeted(served.address, 8), Buffer.alloc(0)],
    [/option begins with 0x0/, async () => await NbdClient.greeted(served.address), Buffer.alloc(16)],
    [
      /option 7 of 4294967295 bytes/,
      async () => await NbdClient.greeted(served.address),
      Buffer.concat([Buffer.from("IHAVEOPT"), Buffer.from([0, 0, 0, 7, 255, 255, 255, 255])]),
    ],
    [/request begins with 0x0/, async () => await NbdClient.ready(served.address), Buffer.alloc(28)],
  ];
  for (const [why, connectTo, bytes] of rows) {
    await using client = await connectTo();
    client.socket.write(bytes);
    await client.closed();
    assert.match(served.misbehaviours.at(-1) ?? "", why);
  }
  await using client = await NbdClient.ready(served.address);
  client.send(COMMANDS.WRITE, 1n, 0, 2 ** 25 + 512);
  await client.closed();
  assert.match(served.misbehaviours.at(-1) ?? "", /write of 33554944 bytes, expected at most 33554432/);
  assert.equal(served.misbehaviours.length, rows.length + 1);
});

test("a client that says nothing is not waited for", async () => {
  await using served = await serve({ content: new HeldDevice(patternBytes(512)) }, { handshakeTimeoutMs: 20 });
  await using silent = await NbdClient.connect(served.address);
  await using half = await NbdClient.greeted(served.address);
  half.socket.write("IHAVE");
  await Promise.all([silent.closed(), half.closed()]);
  assert.deepEqual(served.misbehaviours, []);
});

test("more clients than there may be are turned away", async () => {
  await using served = await serve({ content: new HeldDevice(patternBytes(512)) }, { maxConnections: 2 });
  await using first = await NbdClient.ready(served.address);
  await using second = await NbdClient.ready(served.address);
  await using third = await NbdClient.connect(served.address);
  await third.closed();
  for (const client of [first, second]) assert.equal((await client.read(0, 512)).length, 512);
});

test("closing finishes what is under way, and refuses what comes meanwhile", async () => {
  const device = new HeldDevice(patternBytes(8192));
  const slow = Promise.withResolvers<void>();
  device.gate = () => slow.promise;
  const served = await serve({ content: readOnly(device) });
  const client = await NbdClient.ready(served.address);
  client.send(COMMANDS.READ, 1n, 0, 512);
  await device.called(1);
  const closing = served.server.close();
  client.send(COMMANDS.READ, 2n, 512, 512);
  assert.deepEqual(await client.reply(), { cookie: 2n, error: ERRNO.SHUTDOWN, isLast: true, payload: Buffer.alloc(0) });
  slow.resolve();
  assert.equal((await client.reply()).cookie, 1n);
  assert.ok(device.bytes.subarray(0, 512).equals(await client.take(512)));
  await Promise.all([closing, client.closed()]);
  await assert.rejects(NbdClient.connect(served.address), /ECONNREFUSED/);
});

test("closing cuts off what takes for ever, also a client that does not take its replies", async () => {
  const device = new HeldDevice(patternBytes(32 * MIB));
  device.gate = (_, offset) => (offset === 4096 ? new Promise<void>(() => {}) : undefined);
  const served = await serve({ content: readOnly(device) }, { stopTimeoutMs: 50 });
  const [stuck, deaf, idle] = await Promise.all([0, 1, 2].map(async () => await NbdClient.ready(served.address)));
  stuck.send(COMMANDS.READ, 1n, 4096, 512);
  deaf.socket.pause();
  deaf.send(COMMANDS.READ, 1n, 0, 32 * MIB);
  await device.called(2);
  await Promise.all([served.server.close(), stuck.closed(), idle.closed()]);
  deaf.socket.resume();
  assert.ok((await deaf.closed()).length < 32 * MIB);
});

test("what fails because of the end is told as such", async () => {
  const device = new HeldDevice(patternBytes(8192));
  const slow = Promise.withResolvers<void>();
  device.gate = () => slow.promise;
  const served = await serve({ content: readOnly(device) });
  const client = await NbdClient.ready(served.address);
  client.send(COMMANDS.READ, 1n, 0, 512);
  await device.called(1);
  const closing = served.server.close();
  slow.reject(new LazyError("UNAVAILABLE", "interrupted"));
  assert.equal((await client.reply()).error, ERRNO.SHUTDOWN);
  await Promise.all([closing, client.closed()]);
});

test("a unix socket is for its owner alone and goes away; a dead one is replaced, anything else is not touched", async () => {
  await using directory = await TemporaryDirectory.create();
  const path = directory.join("socket");
  const options = { address: { kind: "unix", path } } as const;
  const content = new HeldDevice(patternBytes(512));
  // A server that is killed leaves its socket behind.
  const script = `require("net").createServer().listen(process.argv[1], () => process.kill(process.pid, "SIGKILL"))`;
  await assert.rejects(run(process.execPath, ["-e", script, path]), /killed/);
  assert.ok(statSync(path).isSocket());
  {
    await using served = await serve({ content }, options);
    assert.equal(statSync(path).mode & 0o777, 0o600);
    await using client = await NbdClient.ready(served.address);
    assert.equal((await client.read(0, 512)).length, 512);
    await assert.rejects(serve({ content }, options), { code: "UNAVAILABLE", message: /another server listens there/ });
    assert.equal((await client.read(0, 512)).length, 512);
  }
  assert.ok(!existsSync(path));
  writeFileSync(path, "precious");
  await assert.rejects(serve({ content }, options), { code: "USAGE", message: /no socket/ });
});

test("an address that is taken or not ours is refused with the reason", async () => {
  const other = createServer().listen(0, "127.0.0.1");
  await once(other, "listening");
  const taken = other.address();
  assert.ok(taken !== null && typeof taken === "object");
  const content = new HeldDevice(patternBytes(512));
  const at = (address: NbdAddress): Promise<unknown> => serve({ content }, { address });
  await assert.rejects(at({ ...LOOPBACK, port: taken.port }), {
    code: "UNAVAILABLE",
    message: /cannot listen on 127.0.0.1:\d+: .*EADDRINUSE/,
  });
  await assert.rejects(at({ kind: "unix", path: "/nonexistent/socket" }), {
    code: "UNAVAILABLE",
    message: /cannot listen on \/nonexistent/,
  });
  await assert.rejects(serve({ content, name: "x".repeat(4097) }), { code: "USAGE" });
  other.close();
});
