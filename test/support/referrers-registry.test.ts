import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { after, before, describe, it } from "node:test";
import { startReferrersRegistry, type ReferrersRegistry } from "./referrers-registry.ts";

const MANIFEST = "application/vnd.oci.image.manifest.v1+json";
const INDEX = "application/vnd.oci.image.index.v1+json";
const digestOf = (text: string): string => `sha256:${createHash("sha256").update(text).digest("hex")}`;
const subject = { mediaType: MANIFEST, digest: digestOf("not pushed yet"), size: 14 };

/** Statements of the distribution specification 1.1, each as a sentence. */
describe("the registry for tests", () => {
  let registry: ReferrersRegistry;
  const ask = async (method: string, path: string, body?: string, headers: Record<string, string> = {}): Promise<Response> =>
    await fetch(new URL(path, `http://${registry.host}`), { method, headers, ...(body !== undefined && { body }) });
  const location = (answer: Response): string => answer.headers.get("location") ?? "";

  before(async () => {
    registry = await startReferrersRegistry({ pageSize: 2 });
  });
  after(async () => await registry.stop());

  it("answers /v2/ with 200, and with an error code for what it does not know", async () => {
    assert.equal((await ask("GET", "/v2/")).status, 200);
    for (const path of [`/v2/a/b/blobs/${subject.digest}`, "/v2/a/b/manifests/none", "/v2/a/b/tags/list"]) {
      const answer = await ask("GET", path);
      assert.equal(answer.status, 404);
      assert.match(await answer.text(), /"errors":\[\{"code":"[A-Z_]+"/);
    }
  });

  it("takes a blob by POST and PUT, and in a single POST, and refuses a wrong digest with 400", async () => {
    const session = await ask("POST", "/v2/a/b/blobs/uploads/");
    assert.equal(session.status, 202);
    const stored = await ask("PUT", `${location(session)}&digest=${digestOf("one")}`, "one");
    assert.deepEqual([stored.status, location(stored)], [201, `/v2/a/b/blobs/${digestOf("one")}`]);
    assert.equal((await ask("POST", `/v2/a/b/blobs/uploads/?digest=${digestOf("two")}`, "two")).status, 201);
    assert.equal((await ask("POST", `/v2/a/b/blobs/uploads/?digest=${digestOf("two")}`, "other")).status, 400);
    assert.equal(await (await ask("GET", `/v2/a/b/blobs/${digestOf("two")}`)).text(), "two");
    const head = await ask("HEAD", `/v2/a/b/blobs/${digestOf("one")}`);
    assert.deepEqual([head.status, head.headers.get("content-length")], [200, "3"]);
  });

  it("gives ranges with 206, and 416 for one beyond the end", async () => {
    await ask("POST", `/v2/a/b/blobs/uploads/?digest=${digestOf("0123456789")}`, "0123456789");
    const path = `/v2/a/b/blobs/${digestOf("0123456789")}`;
    const part = await ask("GET", path, undefined, { range: "bytes=2-4" });
    assert.deepEqual([part.status, part.headers.get("content-range"), await part.text()], [206, "bytes 2-4/10", "234"]);
    assert.equal((await ask("GET", path, undefined, { range: "bytes=10-" })).status, 416);
  });

  it("takes chunks in order, says how far it got, and answers 416 to one out of order", async () => {
    const session = await ask("POST", "/v2/a/b/blobs/uploads/");
    const first = await ask("PATCH", location(session), "chu", { "content-range": "0-2" });
    assert.deepEqual([first.status, first.headers.get("range")], [202, "0-2"]);
    assert.equal((await ask("PATCH", location(first), "x", { "content-range": "7-7" })).status, 416);
    const status = await ask("GET", location(first));
    assert.deepEqual([status.status, status.headers.get("range")], [204, "0-2"]);
    const second = await ask("PATCH", location(status), "nks", { "content-range": "3-5" });
    assert.equal((await ask("PUT", `${location(second)}&digest=${digestOf("chunks")}`)).status, 201);
    assert.equal((await ask("GET", location(second))).status, 404);
  });

  it("mounts from another repository with 201, and opens an upload when it cannot", async () => {
    await ask("POST", `/v2/a/b/blobs/uploads/?digest=${digestOf("one")}`, "one");
    assert.equal((await ask("POST", `/v2/c/blobs/uploads/?mount=${digestOf("one")}&from=a/b`)).status, 201);
    assert.equal((await ask("HEAD", `/v2/c/blobs/${digestOf("one")}`)).status, 200);
    assert.equal((await ask("POST", `/v2/c/blobs/uploads/?mount=${digestOf("none")}&from=a/b`)).status, 202);
  });

  it("keeps a manifest's bytes and type, by tag and by digest, and lists and deletes tags", async () => {
    const text = '{"schemaVersion":2, "layers":[]}';
    for (const tag of ["v2", "v1", "v3"])
      assert.equal((await ask("PUT", `/v2/tags/manifests/${tag}`, text, { "content-type": MANIFEST })).status, 201);
    const byDigest = await ask("GET", `/v2/tags/manifests/${digestOf(text)}`);
    assert.deepEqual([byDigest.headers.get("content-type"), await byDigest.text()], [MANIFEST, text]);
    const page = await ask("GET", "/v2/tags/tags/list?n=2");
    assert.deepEqual(await page.json(), { name: "tags", tags: ["v1", "v2"] });
    assert.match(page.headers.get("link") ?? "", /^<\/v2\/tags\/tags\/list\?n=2&last=v2>; rel="next"$/);
    assert.equal((await ask("DELETE", "/v2/tags/manifests/v2")).status, 202);
    assert.deepEqual(await (await ask("GET", "/v2/tags/tags/list?n=0")).json(), { name: "tags", tags: [] });
    assert.deepEqual(await (await ask("GET", "/v2/tags/tags/list?last=v1")).json(), { name: "tags", tags: ["v3"] });
    assert.equal((await ask("PUT", `/v2/tags/manifests/${digestOf("x")}`, text)).status, 400);
  });

  it("answers a subject with OCI-Subject, and lists referrers with type and annotations, on pages, filtered when asked", async () => {
    const put = async (document: object): Promise<Response> =>
      await ask("PUT", `/v2/r/manifests/${digestOf(JSON.stringify(document))}`, JSON.stringify(document), { "content-type": MANIFEST });
    for (let at = 0; at < 3; at++) {
      const answer = await put({ artifactType: `t/${at % 2}`, subject, annotations: { at: String(at) } });
      assert.equal(answer.headers.get("oci-subject"), subject.digest);
    }
    await put({ config: { mediaType: "t/config" }, subject });
    assert.equal((await put({ schemaVersion: 2 })).headers.get("oci-subject"), null);
    const read = async (path: string): Promise<[answer: Response, types: string[]]> => {
      const answer = await ask("GET", path);
      assert.deepEqual([answer.status, answer.headers.get("content-type")], [200, INDEX]);
      const { manifests } = (await answer.json()) as { manifests: { artifactType: string }[] };
      return [answer, manifests.map(({ artifactType }) => artifactType)];
    };
    const [first, types] = await read(`/v2/r/referrers/${subject.digest}`);
    assert.deepEqual(types, ["t/0", "t/1"]);
    const next = /^<(.+)>; rel="next"$/.exec(first.headers.get("link") ?? "")?.[1] ?? "";
    assert.deepEqual((await read(next))[1], ["t/0", "t/config"]);
    const [filtered, found] = await read(`/v2/r/referrers/${subject.digest}?artifactType=t/1`);
    assert.deepEqual([filtered.headers.get("oci-filters-applied"), found], ["artifactType", ["t/1"]]);
    assert.deepEqual((await read(`/v2/r/referrers/${digestOf("nobody")}`))[1], []);
    assert.equal((await ask("GET", "/v2/r/referrers/sha256:x")).status, 400);
  });
});
