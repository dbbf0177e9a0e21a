import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { readdir, writeFile } from "node:fs/promises";
import { after, afterEach, before, beforeEach, describe, it } from "node:test";
import { setTimeout } from "node:timers/promises";
import { MemorySource } from "../../src/bytes/source.ts";
import type { Descriptor } from "../../src/oci/descriptor.ts";
import { digestOf } from "../../src/oci/digest.ts";
import type { ImageStore } from "../../src/oci/image-store.ts";
import { OCI_LAYER_TAR } from "../../src/oci/media-types.ts";
import type { RegistryOptions } from "../../src/registry/client.ts";
import { FixedCredentials } from "../../src/registry/credentials.ts";
import { openRegistryStore } from "../../src/registry/registry-store.ts";
import { UploadDirectory, type UploadKey } from "../../src/registry/upload-journal.ts";
import { startDockerRegistry, type DockerRegistry } from "../support/docker-registry.ts";
import { startHostileRegistry, type HostileRegistry } from "../support/hostile-registry.ts";
import { startReferrersRegistry, type ReferrersRegistry } from "../support/referrers-registry.ts";
import { TemporaryDirectory } from "../support/temporary-directory.ts";

const CHUNK_BYTES = 500_000;
const bytes = randomBytes(2_300_000);
const blob: Descriptor = { mediaType: OCI_LAYER_TAR, digest: digestOf(bytes), size: bytes.length };

let docker: DockerRegistry;
let conforming: ReferrersRegistry;
let front: HostileRegistry;
let directory: TemporaryDirectory;
let repositories = 0;
let repository: string;

/** A store as a new process would open it: nothing is known but what is in the directory. */
async function withStore<T>(use: (store: ImageStore) => Promise<T>, options: RegistryOptions = {}): Promise<T> {
  const uploads = new UploadDirectory(directory.path, { now: Date.now });
  const retry = { tries: 3, firstDelayMs: 1 };
  const store = openRegistryStore(
    { kind: "registry", host: front.host, repository },
    { uploads, uploadChunkBytes: CHUNK_BYTES, retry, ...options },
  );
  try {
    return await use(store);
  } finally {
    await store.close();
  }
}

const put = async (store: ImageStore): Promise<string> => await store.putBlob(blob, new MemorySource(bytes));

async function putUnhashed(store: ImageStore): Promise<string | undefined> {
  const stored = await store.putUnhashed(new MemorySource(bytes), { identity: blob.digest });
  assert.equal(stored?.digest ?? blob.digest, blob.digest);
  return stored?.result;
}

const methods = (): string => front.seen.map(({ method, url }) => (url.includes("/tags/list") ? "TAGS" : method)).join(" ");
const ranges = (): string[] => front.seen.flatMap(({ headers }) => headers["content-range"] ?? []);
const keyOf = (host: string): UploadKey => ({ origin: `http://${host}`, repository, content: blob.digest });

const isSession = (method: string, url: string): boolean => method === "GET" && url.includes("/uploads/");

/** Lets this many pieces through and then nothing any more, as if the process had been killed between two of them. */
async function leaveHalfMade(pieces: number, putting: typeof putUnhashed): Promise<void> {
  front.inject(({ method, url }) => (method === "PATCH" || isSession(method, url) ? { kind: "reset" } : undefined), Infinity);
  let left = pieces;
  front.inject(({ method }) => (method === "PATCH" && left-- > 0 ? { kind: "headers", headers: {} } : undefined), pieces);
  await assert.rejects(withStore(putting, { retry: { tries: 1 } }), { code: "UNAVAILABLE" });
  assert.equal((await readdir(directory.path)).length, 1);
  front.reset();
}

async function assertWhole(): Promise<void> {
  await withStore(async (store) => {
    const chunks: Uint8Array[] = [];
    for await (const chunk of store.blobStream(blob)) chunks.push(Buffer.from(chunk));
    assert.deepEqual(Buffer.concat(chunks), bytes);
  });
  assert.deepEqual(await readdir(directory.path), []);
}

before(async () => {
  docker = await startDockerRegistry();
  conforming = await startReferrersRegistry();
});
after(async () => {
  for (const server of [docker, conforming]) await server.stop();
});

/** Has each test of a suite begin with a new repository and an empty journal, and a registry that can be made to fail. */
function inFrontOf(upstream: () => string): void {
  before(async () => {
    front = await startHostileRegistry(upstream());
  });
  beforeEach(async () => {
    directory = await TemporaryDirectory.create();
    repository = `resume/r${repositories++}`;
  });
  afterEach(async () => {
    front.reset();
    await directory[Symbol.asyncDispose]();
  });
  after(async () => front.stop());
}

for (const [kind, upstream] of [
  ["docker's registry", () => docker.host],
  ["a registry that keeps to the specification", () => conforming.host],
] as const) {
  for (const [what, putting, look] of [
    ["an upload", put, "HEAD"],
    ["an upload of what nobody has hashed", putUnhashed, "TAGS"],
  ] as const) {
    describe(`${what} to ${kind} that was left half-made`, () => {
      inFrontOf(upstream);

      it("is gone on with by another process, which sends only the rest", async () => {
        await leaveHalfMade(3, putting);
        assert.equal(await withStore(putting), "uploaded");
        assert.equal(methods(), `${look} GET PATCH PATCH PUT`);
        assert.deepEqual(ranges(), ["1500000-1999999", "2000000-2299999"]);
        await assertWhole();
      });

      it("needs only its end when all has arrived", async () => {
        front.inject(({ method }) => (method === "PUT" ? { kind: "reset" } : undefined), Infinity);
        await assert.rejects(withStore(putting, { retry: { tries: 1 } }), { code: "UNAVAILABLE" });
        front.reset();
        assert.equal(await withStore(putting), "uploaded");
        assert.equal(methods(), `${look} GET PUT`);
        await assertWhole();
      });

      it("is gone on with after a process was killed", async () => {
        const file = directory.join("content");
        await writeFile(file, bytes);
        const url = (path: string): string => JSON.stringify(new URL(`../../src/${path}`, import.meta.url).href);
        const script = `
        import { FileSource } from ${url("bytes/file.ts")};
        import { openRegistryStore } from ${url("registry/registry-store.ts")};
        import { UploadDirectory } from ${url("registry/upload-journal.ts")};
        const uploads = new UploadDirectory(${JSON.stringify(directory.join("uploads"))}, { now: Date.now });
        const reference = { kind: "registry", host: "${front.host}", repository: "${repository}" };
        const store = openRegistryStore(reference, { uploads, uploadChunkBytes: ${CHUNK_BYTES} });
        const content = await FileSource.open(${JSON.stringify(file)});
        await store.${putting === put ? "putBlob" : "putUnhashed"}(...${putting === put ? `[${JSON.stringify(blob)}, content]` : `[content, { identity: "${blob.digest}" }]`});`;
        let pieces = 0;
        const child = spawn(process.execPath, ["--disable-warning=ExperimentalWarning", "--input-type=module-typescript", "-e", script], {
          stdio: ["ignore", "ignore", "inherit"],
        });
        front.inject(({ method }) => {
          if (method !== "PATCH" || ++pieces < 3) return undefined;
          child.kill("SIGKILL");
          return { kind: "hang" };
        }, Infinity);
        const [, signal] = (await once(child, "exit")) as [number | null, string | null];
        assert.equal(signal, "SIGKILL");
        front.reset();
        const uploads = new UploadDirectory(directory.join("uploads"), { now: Date.now });
        assert.equal(await withStore(putting, { uploads }), "uploaded");
        assert.equal(methods(), `${look} GET PATCH PATCH PATCH PUT`);
        assert.equal(ranges()[0], "1000000-1499999");
        assert.deepEqual(await readdir(directory.join("uploads")), []);
      });

      it("starts over when the registry has forgotten it", async () => {
        await leaveHalfMade(2, putting);
        front.inject(({ method, url }) => (isSession(method, url) ? { kind: "answer", status: 404 } : undefined));
        assert.equal(await withStore(putting), "uploaded");
        assert.match(methods().replace(look, "LOOK"), /^LOOK GET POST( PATCH){5} PUT$/);
        await assertWhole();
      });

      it("starts over when the registry has less than it acknowledged", async () => {
        await leaveHalfMade(2, putting);
        front.inject(({ method, url }) =>
          isSession(method, url) ? { kind: "answer", status: 204, headers: { range: "0-499999" } } : undefined,
        );
        assert.equal(await withStore(putting), "uploaded");
        assert.match(methods().replace(look, "LOOK"), /^LOOK GET POST( PATCH){5} PUT$/);
        await assertWhole();
      });

      it("starts over when something else has got into it", async () => {
        await leaveHalfMade(2, putting);
        const found = await new UploadDirectory(directory.path, { now: Date.now }).find(keyOf(front.host));
        assert.ok(found);
        const headers = { "content-type": "application/octet-stream", "content-range": "1000000-1499999" };
        const answer = await fetch(found.location, { method: "PATCH", body: Buffer.alloc(500_000), headers });
        const location = new URL(answer.headers.get("location") ?? "", found.location);
        await new UploadDirectory(directory.path, { now: Date.now }).remember(keyOf(front.host), { location, arrived: 1_500_000 });
        front.seen.length = 0;
        assert.equal(await withStore(putting), "uploaded");
        assert.match(methods().replace(look, "LOOK"), /^LOOK GET PATCH PATCH PUT POST( PATCH){5} PUT$/);
        await assertWhole();
      });

      it("starts over when its entry is damaged", async () => {
        await leaveHalfMade(2, putting);
        for (const name of await readdir(directory.path)) await writeFile(directory.join(name), '{"arrived":');
        assert.equal(await withStore(putting), "uploaded");
        assert.match(methods().replace(look, "LOOK"), /^LOOK POST( PATCH){5} PUT$/);
        await assertWhole();
      });

      it("starts over when its entry has expired", async () => {
        await leaveHalfMade(2, putting);
        const uploads = new UploadDirectory(directory.path, { now: () => Date.now() + 25 * 3600 * 1000 });
        assert.equal(await withStore(putting, { uploads }), "uploaded");
        assert.match(methods().replace(look, "LOOK"), /^LOOK POST( PATCH){5} PUT$/);
      });

      it("is not looked for at another place than the registry, whatever the entry says", async () => {
        await using stranger = await startHostileRegistry();
        const uploads = new UploadDirectory(directory.path, { now: Date.now });
        for (const location of [`http://${stranger.host}/v2/x?_state=1`, `http://me:pw@${front.host}/v2/x`, "file:///etc/passwd"]) {
          repository = `resume/r${repositories++}`;
          await uploads.remember(keyOf(front.host), { location: new URL(location), arrived: 1000 });
          assert.equal(await withStore(putting, { credentials: new FixedCredentials("me", "hunter2") }), "uploaded");
        }
        assert.deepEqual(stranger.seen, []);
        assert.ok(!methods().includes("GET"));
      });

      it("shows the address of its session to nobody", async () => {
        const events: unknown[] = [];
        const observer = { answered: (event: unknown) => events.push(event), waiting: (event: unknown) => events.push(event) };
        front.inject(({ method, url }) => (method === "PATCH" && url.includes("?") ? { kind: "reset" } : undefined), Infinity);
        await assert.rejects(withStore(putting, { observer }), (error: Error) => {
          assert.doesNotMatch(JSON.stringify([error, error.message, error.stack, events]), /state=/);
          return true;
        });
        assert.ok(JSON.stringify(events).includes('"status":0'));
      });
    });
  }
}

describe("an upload with a journal", () => {
  inFrontOf(() => conforming.host);

  const large = Buffer.alloc((16 << 20) + 1, "large ");
  const largeBlob = { mediaType: OCI_LAYER_TAR, digest: digestOf(large), size: large.length };
  const putLarge = async (store: ImageStore): Promise<string> => await store.putBlob(largeBlob, new MemorySource(large));

  it("goes in pieces only when it is large", async () => {
    await withStore(put, { uploadChunkBytes: undefined });
    assert.equal(methods(), "HEAD POST PUT");
    front.reset();
    await withStore(putLarge, { uploadChunkBytes: undefined });
    assert.equal(methods(), "HEAD POST PATCH PATCH PUT");
    assert.deepEqual(await readdir(directory.path), []);
  });

  it("goes in larger pieces as long as they are quick", async () => {
    const larger = Buffer.alloc(80 << 20, "larger ");
    const largerBlob = { mediaType: OCI_LAYER_TAR, digest: digestOf(larger), size: larger.length };
    const lengths = async (delayMs: number): Promise<number[]> => {
      repository = `resume/r${repositories++}`;
      front.reset();
      front.inject(({ method }) => (method === "PATCH" ? { kind: "wait", until: setTimeout(delayMs) } : undefined));
      await withStore(async (store) => await store.putBlob(largerBlob, new MemorySource(larger)), { uploadChunkBytes: undefined });
      return front.seen.filter(({ method }) => method === "PATCH").map(({ headers }) => Number(headers["content-length"]) / (1 << 20));
    };
    assert.deepEqual((await lengths(300)).slice(0, 2), [16, 16]);
    // What is quick on an idle machine may take longer on a busy one.
    for (let tries = 0, grown = false; !grown; tries++) {
      assert.ok(tries < 20, "never grew");
      grown = (await lengths(0))[1] === 32;
    }
  });

  for (const status of [400, 404, 405, 415, 501]) {
    it(`goes in one piece to a registry that answers pieces with ${status}`, async () => {
      front.inject(({ method }) => (method === "PATCH" ? { kind: "answer", status } : undefined), Infinity);
      assert.equal(await withStore(putLarge, { uploadChunkBytes: undefined }), "uploaded");
      assert.equal(methods(), "HEAD POST PATCH POST PUT");
    });
  }

  it("goes in smaller pieces to a registry that finds them too large", async () => {
    const isLarge = (length: string | undefined): boolean => Number(length) > 8 << 20;
    front.inject(({ headers }) => (isLarge(headers["content-length"]) ? { kind: "answer", status: 413 } : undefined), Infinity);
    assert.equal(await withStore(putLarge, { uploadChunkBytes: undefined }), "uploaded");
    assert.equal(methods(), "HEAD POST PATCH POST PATCH PATCH PATCH PUT");
  });

  it("goes on where it was after the registry failed for a moment", async () => {
    let pieces = 0;
    front.inject(({ method }) => (method === "PATCH" && ++pieces === 3 ? { kind: "answer", status: 503 } : undefined));
    assert.equal(await withStore(put), "uploaded");
    assert.match(methods(), /^HEAD POST PATCH PATCH PATCH GET( PATCH){3} PUT$/);
    await assertWhole();
  });

  it("does not depend on the journal", async () => {
    await writeFile(directory.join("file"), "");
    const notices: string[] = [];
    const uploads = new UploadDirectory(directory.join("file"), { now: Date.now, notice: (message) => notices.push(message) });
    assert.equal(await withStore(put, { uploads }), "uploaded");
    assert.equal(notices.length, 1);
  });
});
