import assert from "node:assert/strict";
import { once } from "node:events";
import { readFile, writeFile } from "node:fs/promises";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { describe, it } from "node:test";
import { TemporaryDirectory } from "../../test/support/temporary-directory.ts";
import { startTlsRegistry, tlsFile } from "../../test/support/tls-registry.ts";
import { CredentialFile } from "./credential-file.ts";
import { CredentialService, type ServiceAddress } from "./credential-services.ts";
import type { Credential } from "./credentials.ts";

const BLOB = new URL("https://r.x:5000/v2/a/b/blobs/sha256:0123");
const auth = (username: string): object => ({ auth: Buffer.from(`${username}:hidden`).toString("base64") });
const basic = (username: string): Credential => ({ kind: "basic", username, password: "hidden" });
/** The shortest is first: whoever took the first match would take it. */
const AUTHS = { "r.x:5000": auth("host"), "r.x:5000/a": auth("part"), "r.x:5000/a/b": auth("whole"), "r.x": auth("other") };
const GOOD = { traceId: "", success: true, data: { auths: AUTHS } };

type Answer = (request: IncomingMessage, response: ServerResponse) => void;

function answering(body: unknown, status = 200): Answer {
  return (_, response) => response.writeHead(status).end(typeof body === "string" ? body : JSON.stringify(body));
}

interface Service extends AsyncDisposable {
  readonly port: number;
  readonly seen: { readonly method: string; readonly url: string; readonly host: string }[];
}

/** On a free loopback port, or a socket. */
async function startService(answer: Answer, socketPath?: string): Promise<Service> {
  const seen: Service["seen"] = [];
  const server = createServer((request, response) => {
    seen.push({ method: request.method ?? "", url: request.url ?? "", host: request.headers.host ?? "" });
    answer(request, response);
  });
  if (socketPath === undefined) server.listen(0, "127.0.0.1");
  else server.listen(socketPath);
  await once(server, "listening");
  const address = server.address();
  return {
    port: typeof address === "object" && address !== null ? address.port : 0,
    seen,
    [Symbol.asyncDispose]: async () => {
      server.close();
      server.closeAllConnections();
      await once(server, "close");
    },
  };
}

/** What a service gives for the blob, and what was told. */
async function ask(address: ServiceAddress, timeoutMs = 10_000): Promise<{ credential: Credential | undefined; notices: string[] }> {
  const notices: string[] = [];
  const service = new CredentialService(address, { timeoutMs, notice: (message) => notices.push(message) });
  const credential = await service.credentialFor("r.x:5000", "a/b", BLOB);
  assert.ok(!notices.join().includes("hidden"), "notices hold no secrets");
  return { credential, notices };
}

describe("a credential service", () => {
  it("is asked for the blob's URL as it is, and the longest matching entry counts", async () => {
    await using service = await startService(answering(GOOD));
    const url = `http://127.0.0.1:${service.port}/some/auth`;
    assert.deepEqual(await ask({ kind: "http", url }), { credential: basic("whole"), notices: [] });
    const asked = { method: "GET", url: `/some/auth?remote_url=${BLOB.href}`, host: `127.0.0.1:${service.port}` };
    assert.deepEqual(service.seen, [asked]);
    await ask({ kind: "http", url: `${url}?key=1` });
    assert.equal(service.seen[1].url, `/some/auth?key=1&remote_url=${BLOB.href}`);
  });

  it("is asked at /auth on a unix socket", async () => {
    await using directory = await TemporaryDirectory.create();
    const socketPath = directory.join("socket");
    await using service = await startService(answering(GOOD), socketPath);
    assert.deepEqual(await ask({ kind: "uds", socketPath }), { credential: basic("whole"), notices: [] });
    assert.deepEqual(service.seen, [{ method: "GET", url: `/auth?remote_url=${BLOB.href}`, host: "localhost" }]);
  });

  for (const [what, answer, expected] of [
    [
      "says that it failed",
      answering({ traceId: "t-1", success: false, data: { auths: AUTHS } }),
      /without "success": true \(traceId "t-1"\)/,
    ],
    ["does not say whether it failed", answering({ data: { auths: AUTHS } }), /without "success": true/],
    ["answers another status", answering(GOOD, 201), /answers 201, expected 200/],
    ["answers no JSON", answering("hidden {"), /not valid UTF-8 JSON/],
    ["has no entries", answering({ success: true, data: {} }), /data\.auths: is missing/],
    ["answers without an end", answering("x".repeat(2 ** 20 + 1)), /more than 1048576 bytes/],
    ["resets the connection", (request) => request.socket.resetAndDestroy(), /cannot be asked: /],
  ] as readonly (readonly [string, Answer, RegExp])[]) {
    it(`that ${what} is told of and gone on without`, async () => {
      await using service = await startService(answer);
      const { credential, notices } = await ask({ kind: "http", url: `http://127.0.0.1:${service.port}/?token=hidden` });
      assert.equal(credential, undefined);
      assert.equal(notices.length, 1);
      assert.match(notices[0], expected);
      assert.match(notices[0], /^credential service http:.*; going on without credentials$/);
    });
  }

  it("that has nothing for the repository is no defect", async () => {
    await using service = await startService(answering({ success: true, data: { auths: { "r.x": auth("other") } } }));
    assert.deepEqual(await ask({ kind: "http", url: `http://127.0.0.1:${service.port}/` }), { credential: undefined, notices: [] });
  });

  it("that does not answer in time is told of", async () => {
    await using service = await startService(() => {});
    const { credential, notices } = await ask({ kind: "http", url: `http://127.0.0.1:${service.port}/` }, 50);
    assert.equal(credential, undefined);
    assert.match(notices[0], /did not answer within 50 ms/);
  });

  it("whose socket does not exist is told of", async () => {
    await using directory = await TemporaryDirectory.create();
    const { credential, notices } = await ask({ kind: "uds", socketPath: directory.join("socket") });
    assert.equal(credential, undefined);
    assert.match(notices[0], /socket: cannot be asked: .*ENOENT/);
  });
});

describe("a credential service over TLS", () => {
  it("is verified, and sees the client's certificate, whose key may be in the same file", async () => {
    await using directory = await TemporaryDirectory.create();
    await using service = await startTlsRegistry({ wantsClientCertificate: true, listener: answering(GOOD) });
    const url = `https://${service.host}/auth`;
    const serverAuthorityPath = tlsFile("ca");
    const both = directory.join("both.pem");
    await writeFile(both, `${await readFile(tlsFile("client"), "utf8")}${await readFile(tlsFile("client-key"), "utf8")}`);
    for (const files of [{ certificatePath: tlsFile("client"), keyPath: tlsFile("client-key") }, { certificatePath: both }]) {
      assert.deepEqual(await ask({ kind: "https", url, serverAuthorityPath, ...files }), { credential: basic("whole"), notices: [] });
    }
    assert.equal(service.clients.length, 2);
    assert.ok(service.clients.every((name) => name !== undefined));
    assert.equal(service.seen[0].url, `/auth?remote_url=${BLOB.href}`);
  });

  it("that cannot be verified, or refuses the client, gets no question", async () => {
    await using service = await startTlsRegistry({ wantsClientCertificate: true, listener: answering(GOOD) });
    const url = `https://${service.host}/auth`;
    const client = { certificatePath: tlsFile("client"), keyPath: tlsFile("client-key") };
    for (const [files, expected] of [
      [client, /cannot be asked: .*certificate/i],
      [{ serverAuthorityPath: tlsFile("ca") }, /cannot be asked: /],
      [{ ...client, serverAuthorityPath: "/nonexistent.pem" }, /nonexistent\.pem: does not exist/],
      [{ certificatePath: tlsFile("client"), keyPath: tlsFile("server-key") }, /is not the key of the certificate/],
    ] as const) {
      const { credential, notices } = await ask({ kind: "https", url, ...files });
      assert.equal(credential, undefined);
      assert.match(notices[0], expected);
    }
    assert.deepEqual(service.seen, []);
  });
});

describe("a credential file", () => {
  it("gives the longest match, is read again when it changes, and counts as it was while it is broken", async () => {
    await using directory = await TemporaryDirectory.create();
    const path = directory.join("cred.json");
    const notices: string[] = [];
    const file = new CredentialFile(path, (message) => notices.push(message));
    const askFile = async (): Promise<Credential | undefined> => await file.credentialFor("r.x:5000", "a/b");
    assert.equal(await askFile(), undefined);
    assert.match(notices.pop() ?? "", /cred\.json: does not exist; going on without credentials/);
    await writeFile(path, '{"auths": {"hidden');
    assert.equal(await askFile(), undefined);
    assert.match(notices.pop() ?? "", /not valid UTF-8 JSON.*without credentials/);
    await writeFile(path, JSON.stringify({ auths: AUTHS, credsStore: "must-not-be-run" }));
    assert.deepEqual(await askFile(), basic("whole"));
    await writeFile(path, JSON.stringify({ auths: { "r.x:5000": { username: "second", password: "hidden" } } }));
    assert.deepEqual(await askFile(), basic("second"));
    assert.deepEqual(notices, []);
    await writeFile(path, '{"auths": 5}');
    assert.deepEqual(await askFile(), basic("second"));
    assert.match(notices.pop() ?? "", /expected an object; going on with what it said before/);
  });

  it("takes auth before username and password", async () => {
    await using directory = await TemporaryDirectory.create();
    const path = directory.join("cred.json");
    await writeFile(path, JSON.stringify({ auths: { "r.x": { ...auth("encoded"), username: "plain", password: "p" } } }));
    assert.deepEqual(await new CredentialFile(path, assert.fail).credentialFor("r.x", "a"), basic("encoded"));
  });
});
