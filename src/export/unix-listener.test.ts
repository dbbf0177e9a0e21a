import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readdirSync, statSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:net";
import { test } from "node:test";
import { TemporaryDirectory } from "../../test/support/temporary-directory.ts";
import { listenOnSocket } from "./unix-listener.ts";

test("a socket is its owner's alone; a second server is refused, and one that is gone is replaced", async () => {
  await using directory = await TemporaryDirectory.create();
  const path = directory.join("socket");
  // A process that ends without a word leaves its socket.
  spawnSync(process.execPath, ["-e", `require("net").createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, 9))`]);
  assert.ok(statSync(path).isSocket());
  const server = createServer();
  await listenOnSocket(server, path);
  assert.equal(statSync(path).mode & 0o777, 0o600);
  await assert.rejects(listenOnSocket(createServer(), path), { code: "UNAVAILABLE", message: `${path}: another server listens there` });
  assert.deepEqual(readdirSync(directory.path), ["socket"]);
  server.close();
});

test("of servers that come at once, one gets the socket", async () => {
  await using directory = await TemporaryDirectory.create();
  const path = directory.join("socket");
  const servers = Array.from({ length: 8 }, () => createServer());
  const results = await Promise.allSettled(servers.map(async (server) => await listenOnSocket(server, path)));
  const winners = servers.filter((_, index) => results[index].status === "fulfilled");
  assert.equal(winners.length, 1);
  for (const server of winners) await closed(server);
});

test("what is no socket stays", async () => {
  await using directory = await TemporaryDirectory.create();
  writeFileSync(directory.join("file"), "");
  await assert.rejects(listenOnSocket(createServer(), directory.join("file")), { code: "USAGE" });
  await assert.rejects(listenOnSocket(createServer(), directory.join("missing", "socket")), { code: "UNAVAILABLE" });
  assert.deepEqual(readdirSync(directory.path), ["file"]);
});

async function closed(server: Server): Promise<void> {
  await new Promise((resolve) => server.close(resolve));
}
