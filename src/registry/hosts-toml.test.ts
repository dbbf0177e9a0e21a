import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { LazyError } from "../errors.ts";
import { parseHostsToml } from "./hosts-toml.ts";

const FULL = `
server = "https://registry-1.docker.io"
unknown_key = { a = 1 }

[host."https://mirror.example/cache"]
  capabilities = ["pull", "resolve"]
  ca = "ca.crt"
  client = [["a.cert", "a.key"], ["b.cert", ""]]
  skip_verify = true
  [host."https://mirror.example/cache".header]
    Authorization = "Basic c2VjcmV0"
    x-two = ["1", "2"]

[host."http://10.0.0.1:5000/v2"]
  ca = ["one.pem", "/etc/two.pem"]
  client = "both.pem"

[host."localhost:5001"]
[host."other.example/exact"]
  override_path = true
`;

describe("hosts.toml", () => {
  it("gives the registry and its mirrors in order", () => {
    const { server, own, mirrors } = parseHostsToml(FULL, "h");
    assert.equal(server?.href, "https://registry-1.docker.io/v2");
    assert.deepEqual([own.capabilities.size, own.roots, own.clients, own.insecure, own.headers], [3, [], [], false, {}]);
    assert.deepEqual(
      mirrors.map(({ url }) => url.href),
      ["https://mirror.example/cache/v2", "http://10.0.0.1:5000/v2", "http://localhost:5001/v2", "https://other.example/exact"],
    );
    const [first, second] = mirrors;
    assert.deepEqual([...first.capabilities], ["pull", "resolve"]);
    assert.deepEqual(first.headers, { authorization: "Basic c2VjcmV0", "x-two": "1, 2" });
    assert.deepEqual(first.clients, [
      { certificate: "a.cert", key: "a.key" },
      { certificate: "b.cert", key: undefined },
    ]);
    assert.deepEqual([first.roots, first.insecure, second.roots, second.insecure], [["ca.crt"], true, ["one.pem", "/etc/two.pem"], false]);
    assert.equal(second.capabilities.size, 3);
  });

  it("may be empty", () => assert.deepEqual([parseHostsToml("", "h").server, parseHostsToml("", "h").mirrors], [undefined, []]));

  for (const text of [
    "server = 5",
    'server = "ftp://x"',
    'server = "https://u:secret@x"',
    'host = "x"',
    '[host]\n"https://x" = 1',
    '[host."https://"]',
    '[host."https://x"]\ncapabilities = ["pull", "delete"]',
    '[host."https://x"]\ncapabilities = 5',
    '[host."https://x"]\nskip_verify = "secret"',
    '[host."https://x"]\noverride_path = 1',
    '[host."https://x"]\nca = [[1]]',
    '[host."https://x"]\nclient = [["a", "b", "c"]]',
    '[host."https://x".header]\na = "secret\\r\\nb: c"',
    '[host."https://x".header]\n"a b" = "c"',
    '[host."https://x".header]\nauthorization = "secret',
  ]) {
    it(`is refused, without secrets in the message: ${JSON.stringify(text)}`, () => {
      assert.throws(
        () => parseHostsToml(text, "/certs.d/x/hosts.toml"),
        (error: Error) =>
          "code" in error &&
          error.code === "USAGE" &&
          error.message.startsWith("/certs.d/x/hosts.toml") &&
          !error.message.includes("secret"),
      );
    });
  }

  it("is read or refused clearly, whatever is in it", () => {
    const edits = fc.array(fc.tuple(fc.nat(FULL.length), fc.constantFrom('"', "[", "]", "=", "\n", "x", "5", "{", "")), {
      minLength: 1,
      maxLength: 4,
    });
    fc.assert(
      fc.property(edits, (changes) => {
        let text = FULL;
        for (const [at, put] of changes) text = text.slice(0, at) + put + text.slice(at + 1);
        try {
          parseHostsToml(text, "h");
        } catch (error) {
          if (!(error instanceof LazyError)) throw error;
        }
      }),
      { numRuns: 1000 },
    );
  });
});
