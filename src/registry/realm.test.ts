import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { isLinkLocal, isLoopback } from "./origin.ts";
import { checkAudience, checkRealm } from "./realm.ts";

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

describe("a token service gets credentials", () => {
  for (const [realm, registry, trusted] of [
    ["https://registry.example/token", "https://registry.example", []],
    ["https://registry.example:8443/token", "https://registry.example:5000", []],
    ["https://auth.docker.io/token", "https://registry-1.docker.io", []],
    ["https://gitlab.corp.co.uk/jwt/auth", "https://registry.corp.co.uk", []],
    ["https://10.0.0.1:5001/auth", "https://10.0.0.1:5000", []],
    ["http://localhost:5001/auth", "http://127.0.0.1:5000", []],
    ["https://sso.other.example/auth", "https://registry.example", ["sso.other.example"]],
    ["https://sso.other.example:8443/auth", "https://registry.example", ["sso.other.example:8443"]],
  ] as const) {
    it(`of ${registry} at ${realm}`, () => checkAudience(new URL(realm), new URL(registry), trusted));
  }
  for (const [realm, registry, trusted] of [
    ["https://evil.example/token", "https://registry.corp.com", []],
    ["https://registry.corp.com.evil.example/token", "https://registry.corp.com", []],
    ["https://evilcorp.com/token", "https://corp.com", []],
    ["https://evil.co.uk/token", "https://registry.co.uk", []],
    ["https://10.0.0.2/auth", "https://10.0.0.1", []],
    ["https://evil.example:8443/auth", "https://registry.corp.com", ["evil.example:443", "x.evil.example"]],
  ] as const) {
    it(`not of ${registry} at ${realm}`, () => {
      assert.throws(() => checkAudience(new URL(realm), new URL(registry), trusted), { code: "DENIED", message: /--token-service/ });
    });
  }
});
