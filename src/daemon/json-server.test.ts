import assert from "node:assert/strict";
import { test } from "node:test";
import { z } from "zod";
import { TemporaryDirectory } from "../../test/support/temporary-directory.ts";
import { corrupt, LazyError } from "../errors.ts";
import { callJson } from "./json-client.ts";
import { createJsonServer, HttpError, type Route } from "./json-server.ts";
import { listenOnSocket } from "../export/unix-listener.ts";

const schema = z.strictObject({ count: z.int() });

const ROUTES: Route[] = [
  {
    method: "POST",
    path: "/things/{id}",
    schema,
    handle: ({ parameters, query, body }) => ({ status: 201, body: { ...parameters, body, q: query.get("q") } }),
  },
  { method: "GET", path: "/corrupt", handle: () => Promise.reject(corrupt("bad bytes")) },
  { method: "GET", path: "/conflict", handle: () => Promise.reject(new HttpError(409, "USAGE", "taken")) },
  { method: "GET", path: "/defect", handle: () => Promise.reject(new TypeError("undefined is not a function")) },
  { method: "GET", path: "/never", handle: async () => await new Promise(() => {}) },
];

async function serving(run: (socketPath: string) => Promise<void>): Promise<void> {
  await using directory = await TemporaryDirectory.create();
  const server = createJsonServer(ROUTES);
  await listenOnSocket(server, directory.join("socket"));
  try {
    await run(directory.join("socket"));
  } finally {
    server.close();
    server.closeAllConnections();
  }
}

test("a request reaches its route with what its path, query and body say", async () => {
  await serving(async (socketPath) => {
    const call = { socketPath, method: "POST", path: "/things/a%2Fb?q=1", body: { count: 2 }, timeoutMs: 5000 } as const;
    assert.deepEqual(await callJson(call), { id: "a/b", body: { count: 2 }, q: "1" });
  });
});

test("whatever goes wrong is told with its code and message", async () => {
  await serving(async (socketPath) => {
    const call = async (method: "GET" | "POST", path: string, body?: object): Promise<unknown> =>
      await callJson({ socketPath, method, path, body, timeoutMs: 5000 }).catch((error: unknown) =>
        error instanceof LazyError ? [error.code, error.message] : error,
      );
    assert.deepEqual(await call("GET", "/corrupt"), ["CORRUPT", "bad bytes"]);
    assert.deepEqual(await call("GET", "/conflict"), ["USAGE", "taken"]);
    assert.deepEqual(await call("GET", "/defect"), ["UNAVAILABLE", "undefined is not a function"]);
    assert.deepEqual(await call("GET", "/none"), ["NOT_FOUND", "/none: there is no such path"]);
    assert.deepEqual(await call("GET", "/things/a"), ["USAGE", "/things/a: method GET, expected POST"]);
    assert.deepEqual(await call("POST", "/things/a", { count: "x" }), ["USAGE", "count: Invalid input: expected number, received string"]);
    assert.deepEqual(await call("POST", "/things/%ff", { count: 1 }), [
      "USAGE",
      '"%ff": expected percent signs to be followed by two hexadecimal digits of UTF-8',
    ]);
    assert.match(String(await call("POST", "/things/a")), /the body is no JSON/);
  });
});

test("a server that is not there, or does not answer, is told apart", async () => {
  await serving(async (socketPath) => {
    const call = { socketPath, method: "GET", path: "/never", timeoutMs: 50 } as const;
    await assert.rejects(callJson(call), { code: "UNAVAILABLE" });
    await assert.rejects(callJson({ ...call, socketPath: `${socketPath}-not` }), { code: "NOT_FOUND" });
    const reason = new Error("enough");
    await assert.rejects(callJson({ ...call, timeoutMs: 5000, signal: AbortSignal.abort(reason) }), reason);
  });
});
