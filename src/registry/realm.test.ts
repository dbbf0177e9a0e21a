import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { isLinkLocal, isLoopback } from "./origin.ts";
import { checkRealm } from "./realm.ts";

describe("addresses", () => {
  const hosts = ["localhost", "a.localhost", "localhost:5000", "LOCALHOST.", "127.0.0.1", "127.9.9.9:80", "[::1]", "[::1]:5000", "::1"];
  for (const host of [
    ...hosts,
    "[::ffff:127.0.0.1]",
    new URL("http://[::ffff:127.0.0.1]").hostname,
    new URL("http://2130706433").hostname,
  ]) {
    it(`${host} is loopback`, () => assert.ok(isLoopback(host)));
  }
  for (const host of ["localhost.example.com", "127.example.com", "10.0.0.1", "128.0.0.1", "[::2]", "example.com:127", "mylocalhost"]) {
    it(`${host} is not`, () => assert.ok(!isLoopback(host)));
  }
  const mapped = new URL("http://[::ffff:169.254.169.254]").hostname;
  for (const host of [
    "169.254.169.254",
    "169.254.0.1:80",
    "[fe80::1]",
    "[febf::1]:5000",
    mapped,
    "0.0.0.0",
    "[::]",
    new URL("http://0xa9fea9fe").hostname,
  ]) {
    it(`${host} is link-local`, () => assert.ok(isLinkLocal(host)));
  }
  for (const host of ["169.253.0.1", "[fec0::1]", "fe80.example.com", "10.0.0.1", "example.com"]) {
    it(`${host} is not link-local`, () => assert.ok(!isLinkLocal(host)));
  }
});

describe("a token service", () => {
  const secure = new URL("https://registry.example");
  const plain = new URL("http://registry.example");
  const local = new URL("http://127.0.0.1:5000");
  for (const [realm, registry] of [
    ["https://registry.example/token", secure],
    ["https://auth.example/token?account=x", secure],
    ["https://auth.example/token", plain],
    ["http://auth.example/token", plain],
    ["http://127.0.0.1:5001/token", local],
    ["https://10.0.0.1/token", secure],
  ] as const) {
    it(`${realm} serves ${registry.origin}`, () => assert.equal(checkRealm(realm, registry).href, realm));
  }
  for (const [realm, registry] of [
    ["http://registry.example/token", secure],
    ["http://169.254.169.254/latest/meta-data", local],
    ["https://[fe80::1]/", secure],
    ["https://127.0.0.1/token", secure],
    ["http://localhost/token", plain],
    ["https://user:pw@auth.example/token", secure],
    ["file:///etc/passwd", local],
    ["ftp://auth.example/", plain],
    ["/token", secure],
    ["", secure],
    [undefined, secure],
  ] as const) {
    it(`${realm} does not serve ${registry.origin}`, () => {
      assert.throws(() => checkRealm(realm, registry), { code: "DENIED", message: /no credentials were sent/ });
    });
  }
});
