import assert from "node:assert/strict";
import { once } from "node:events";
import { connect } from "node:net";
import { test } from "node:test";
import fc from "fast-check";
import { HeldDevice, patternBytes } from "../../../test/support/held-device.ts";
import { contextData, goData, NbdClient } from "../../../test/support/nbd-client.ts";
import type { NbdAddress } from "./nbd-address.ts";
import type { Extent } from "./nbd-export.ts";
import { NbdServer } from "./nbd-server.ts";
import {
  ALLOCATION_CONTEXT,
  clientFlags,
  COMMANDS,
  OPTION_MAGIC,
  optionHeader,
  OPTIONS,
  REQUEST_MAGIC,
  requestHeader,
} from "./protocol.ts";

const DEVICE_BYTES = 64 * 1024;

function option(number: number, data: Uint8Array): Buffer {
  return Buffer.concat([optionHeader.encode({ magic: OPTION_MAGIC, option: number, length: data.length }), data]);
}

const anyOption = fc.oneof(
  fc.constantFrom(
    option(OPTIONS.STRUCTURED_REPLY, Buffer.alloc(0)),
    option(OPTIONS.LIST, Buffer.alloc(0)),
    option(OPTIONS.SET_META_CONTEXT, contextData("", [ALLOCATION_CONTEXT])),
    option(OPTIONS.INFO, goData("")),
    option(OPTIONS.GO, goData("no such export")),
  ),
  fc.tuple(fc.nat(12), fc.uint8Array({ maxLength: 40 })).map(([number, data]) => option(number, data)),
);

const anyRequest = fc
  .record({
    flags: fc.nat(31),
    command: fc.nat(8),
    offset: fc.nat(DEVICE_BYTES),
    length: fc.nat(4096),
    cookie: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
  })
  .map(({ command, length, ...fields }) =>
    Buffer.concat([
      requestHeader.encode({ magic: REQUEST_MAGIC, command, length, ...fields }),
      Buffer.alloc(command === COMMANDS.WRITE ? length : 0),
    ]),
  );

/** What a client says from its first byte on: as it should be, with a few bytes changed, and cut off somewhere. */
const anySession = fc
  .record({
    options: fc.array(anyOption, { maxLength: 4 }),
    requests: fc.array(anyRequest, { maxLength: 20 }),
    changes: fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 3 }),
    cut: fc.nat(100),
  })
  .map(({ options, requests, changes, cut }) => {
    const flags = clientFlags.encode({ flags: 3 });
    const bytes = Buffer.concat([flags, ...options, option(OPTIONS.GO, goData("")), ...requests]);
    for (const [at, value] of changes) bytes[at % bytes.length] = value;
    return bytes.subarray(0, Math.max(0, bytes.length - (cut < 50 ? 0 : cut - 50)));
  });

/** Says it, in pieces or at once, and leaves, politely or not. */
async function play(address: NbdAddress, session: Uint8Array, pieceBytes: number, isPolite: boolean): Promise<void> {
  assert.ok(address.kind === "tcp");
  const socket = connect(address.port, address.host);
  socket.on("error", () => {}); // the server may have had enough
  const closed = new Promise<void>((resolve) => socket.once("close", () => resolve()));
  await once(socket, "connect");
  socket.resume();
  for (let at = 0; at < session.length; at += pieceBytes) socket.write(session.subarray(at, at + pieceBytes));
  if (isPolite) socket.end();
  else await new Promise<void>((resolve) => socket.write(Buffer.alloc(0), () => resolve())).then(() => socket.resetAndDestroy());
  await closed;
}

test("whatever clients say, they harm nobody but themselves", async () => {
  const device = new HeldDevice(patternBytes(DEVICE_BYTES));
  const content = {
    name: "",
    size: DEVICE_BYTES,
    read: async (at: number, length: number) => await device.read(at, length),
    close: async () => {},
  };
  const extentsOf = (offset: number, length: number): Extent[] => [
    { bytes: length % 3, isHole: offset % 2 === 0 },
    { bytes: length - (length % 3), isHole: true },
  ];
  const failures: unknown[] = [];
  const server = await NbdServer.listen({
    served: { name: "disk", content, extentsOf },
    address: { kind: "tcp", host: "127.0.0.1", port: 0 },
    onFailure: (error) => failures.push(error),
    onMisbehaviour: () => {},
  });
  await using steady = await NbdClient.ready(server.address);
  await fc.assert(
    fc.asyncProperty(
      anySession,
      fc.constantFrom(1, 7, 28, 10_000),
      fc.boolean(),
      fc.nat(DEVICE_BYTES - 512),
      async (session, piece, polite, at) => {
        await Promise.all([play(server.address, session, piece, polite), play(server.address, session, 10_000, true)]);
        assert.ok(device.bytes.subarray(at, at + 512).equals(await steady.read(at, 512)));
      },
    ),
    { numRuns: 150, interruptAfterTimeLimit: 10_000 },
  );
  while (server.counts().connections > 1) await new Promise(setImmediate);
  assert.deepEqual(failures, []);
  await server.close();
});
