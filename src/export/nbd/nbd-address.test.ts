import assert from "node:assert/strict";
import { test } from "node:test";
import { nbdUri, parseNbdAddress } from "./nbd-address.ts";

test("paths, names and addresses of both kinds are understood, and written as clients take them", () => {
  const rows = [
    ["unix:/run/a.sock", { kind: "unix", path: "/run/a.sock" }, "nbd+unix:///disk?socket=/run/a.sock"],
    ["unix:/run/a b&c", { kind: "unix", path: "/run/a b&c" }, "nbd+unix:///disk?socket=/run/a%20b%26c"],
    ["127.0.0.1:10809", { kind: "tcp", host: "127.0.0.1", port: 10809 }, "nbd://127.0.0.1:10809/disk"],
    ["localhost:0", { kind: "tcp", host: "localhost", port: 0 }, "nbd://localhost:0/disk"],
    ["[::1]:65535", { kind: "tcp", host: "::1", port: 65535 }, "nbd://[::1]:65535/disk"],
  ] as const;
  for (const [text, address, uri] of rows) {
    assert.deepEqual(parseNbdAddress(text), address);
    assert.equal(nbdUri(address, "disk"), uri);
  }
  assert.equal(nbdUri({ kind: "tcp", host: "h", port: 1 }, "a/b c"), "nbd://h:1/a%2Fb%20c");
});

test("everything else is refused with what was expected", () => {
  const rows = ["", "unix:", "unix:relative", "host", "host:", ":1", "host:65536", "host:1:2", "::1:10", "[host]:1", "[::1]", "a b:1"];
  for (const text of [...rows, `unix:/${"a".repeat(107)}`]) {
    assert.throws(() => parseNbdAddress(text), { code: "USAGE", message: /expected unix:\/PATH or HOST:PORT/ }, text);
  }
});
