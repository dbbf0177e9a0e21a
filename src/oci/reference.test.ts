import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { LazyError } from "../errors.ts";
import { formatReference, parseReference, replacesImage } from "./reference.ts";

const D = `sha256:${"0123456789abcdef".repeat(4)}`;
const registry = (host: string, repository: string, tag?: string, digest?: string): object => ({
  kind: "registry",
  host,
  repository,
  ...(tag !== undefined && { tag }),
  ...(digest !== undefined && { digest }),
});

describe("parsing a reference", () => {
  for (const [text, expected] of [
    ["redis", registry("registry-1.docker.io", "library/redis", "latest")],
    ["redis:7", registry("registry-1.docker.io", "library/redis", "7")],
    ["user/img", registry("registry-1.docker.io", "user/img", "latest")],
    ["docker.io/redis", registry("registry-1.docker.io", "library/redis", "latest")],
    ["index.docker.io/user/img:1", registry("registry-1.docker.io", "user/img", "1")],
    ["localhost/x", registry("localhost", "x", "latest")],
    ["localhost:5000/a/b:v1", registry("localhost:5000", "a/b", "v1")],
    ["127.0.0.1:5000/x", registry("127.0.0.1:5000", "x", "latest")],
    ["[::1]:5000/x:y", registry("[::1]:5000", "x", "y")],
    ["[fe80::1]/x", registry("[fe80::1]", "x", "latest")],
    ["GHCR.io/a/b", registry("ghcr.io", "a/b", "latest")],
    ["LocalHost/a", registry("localhost", "a", "latest")],
    [`ghcr.io/a/b@${D}`, registry("ghcr.io", "a/b", undefined, D)],
    [`ghcr.io/a/b:v1@${D}`, registry("ghcr.io", "a/b", "v1", D)],
    [`localhost:5000/a@${D}`, registry("localhost:5000", "a", undefined, D)],
    ["h.x/a__b/c-d/e.f/g--h:T_1.-x", registry("h.x", "a__b/c-d/e.f/g--h", "T_1.-x")],
    [`h.x/r:${"t".repeat(128)}`, registry("h.x", "r", "t".repeat(128))],
    ["oci:dir", { kind: "layout", directory: "dir" }],
    ["oci:/a/b:v1", { kind: "layout", directory: "/a/b", tag: "v1" }],
    ["oci:/a:b/c", { kind: "layout", directory: "/a:b/c" }],
    ["oci:./x@y/z:1", { kind: "layout", directory: "./x@y/z", tag: "1" }],
    [`oci:dir@${D}`, { kind: "layout", directory: "dir", digest: D }],
    ["-", { kind: "stream" }],
    ["oci-archive:/a/b.tar", { kind: "oci-archive", file: "/a/b.tar" }],
    ["oci-archive:b.tar:v1", { kind: "oci-archive", file: "b.tar", tag: "v1" }],
    ["oci-archive:b.tar:x.y/app:v1", { kind: "oci-archive", file: "b.tar", repository: "x.y/app", tag: "v1" }],
    [`oci-archive:b@c.tar@${D}`, { kind: "oci-archive", file: "b@c.tar", digest: D }],
    ["docker-archive:./b.tar", { kind: "docker-archive", file: "./b.tar" }],
    ["docker-archive:b.tar:app", { kind: "docker-archive", file: "b.tar", repository: "app", tag: "latest" }],
    [
      "docker-archive:b.tar:localhost:5000/a/app:v1",
      { kind: "docker-archive", file: "b.tar", repository: "localhost:5000/a/app", tag: "v1" },
    ],
    [`docker-archive:b.tar:app:v1@${D}`, { kind: "docker-archive", file: "b.tar", repository: "app", tag: "v1", digest: D }],
    [`oci:dir:v@${D}`, { kind: "layout", directory: "dir", tag: "v", digest: D }],
  ] as const) {
    it(`understands ${text.replace(D, "sha256:…").slice(0, 60)}`, () => {
      const reference = parseReference(text);
      assert.deepEqual(reference, expected);
      assert.deepEqual(parseReference(formatReference(reference)), expected);
    });
  }

  for (const [text, hint] of [
    ["", /""/],
    ["https://ghcr.io/a", /no scheme/],
    ["docker://redis", /no scheme/],
    ["Redis", /lower-case/],
    ["a/B/c", /lower-case/],
    ["Host/a", /lower-case/],
    ["h.x/", /no repository/],
    ["h.x/a//b", /""/],
    ["h.x/a/../b", /"\.\."/],
    ["h.x/-a", /"-a"/],
    ["h.x/a:", /tag ""/],
    ["h.x/a:.b", /tag "\.b"/],
    [`h.x/a:${"t".repeat(129)}`, /at most 128/],
    ["h.x/a@sha256:12", /no digest/],
    [`h.x/a@sha256:${"A".repeat(64)}`, /no digest/],
    [`h.x/a@sha512:${"a".repeat(128)}`, /no digest/],
    [`oci:d@sha512:${"a".repeat(128)}`, /no digest/],
    ["h.x:99999/a", /no host/],
    ["h.x:0/a", /no host/],
    ["-h.x/a", /no host/],
    ["h..x/a", /no host/],
    ["user:pw@h.x/a", /no digest/],
    [`h.x/${"a/".repeat(128)}a`, /255/],
    ["oci:", /no directory/],
    ["oci::v1", /no directory/],
    ["oci:dir:", /tag/],
    ["a\nb", /lower-case/],
    ["oci-archive:", /no file after oci-archive:/],
    ["docker-archive::app:v1", /no file after docker-archive:/],
    ["oci-archive:a\0b", /no file/],
    ["oci-archive:a.tar:", /tag ""/],
    ["oci-archive:a.tar:-x", /tag "-x"/],
    ["oci-archive:a.tar:App:v1", /lower-case/],
    ["docker-archive:a.tar:app:", /tag ""/],
    ["docker-archive:a.tar:App", /lower-case/],
    ["docker-archive:a.tar:../x:v1", /".."/],
    ["docker-archive:a.tar:-h.x/a:v1", /no host/],
    [`docker-archive:a.tar@sha512:${"a".repeat(128)}`, /no digest/],
  ] as const) {
    it(`refuses ${JSON.stringify(text.slice(0, 60))} with a hint`, () => {
      assert.throws(() => parseReference(text), { code: "USAGE", message: hint });
    });
  }

  it("gives a reference or USAGE for any text, and what it gives can be written and read again", () => {
    const piece = fc.constantFrom(
      "a",
      "B",
      "0",
      ".",
      ":",
      "/",
      "@",
      "-",
      "_",
      "oci:",
      "oci-archive:",
      "docker-archive:",
      "sha256:",
      D,
      "localhost",
      "[::1]",
      ":80",
      "\0",
      "é",
    );
    const text = fc.oneof(
      fc.string(),
      fc.array(piece, { maxLength: 12 }).map((pieces) => pieces.join("")),
    );
    fc.assert(
      fc.property(text, (input) => {
        try {
          const reference = parseReference(input);
          assert.deepEqual(parseReference(formatReference(reference)), reference);
        } catch (error) {
          if (!(error instanceof LazyError) || error.code !== "USAGE") throw error;
        }
      }),
      { numRuns: 5000 },
    );
  });

  it("takes no longer for a hostile text", () => {
    for (const text of ["a-".repeat(50_000), `${"a".repeat(100_000)}.!/x`, `x/${"a".repeat(100_000)}!`, ":".repeat(100_000)]) {
      assert.throws(() => parseReference(text), { code: "USAGE" });
    }
  });
});

describe("an image that is put", () => {
  for (const [destination, source, expected] of [
    ["h.x/a:v1", "h.x/a:v1", true],
    ["redis", "docker.io/library/redis:latest", true],
    ["h.x/a:v2", "h.x/a:v1", false],
    ["oci:d:v1", "oci:d:v1", true],
    ["oci:d:v1", "oci:d:v2", false],
    ["oci-archive:a.tar:v1", "oci-archive:./a.tar:v2", true],
    ["docker-archive:d/../a.tar", "oci-archive:a.tar", true],
    ["oci-archive:a.tar", "oci-archive:b.tar", false],
    ["oci-archive:a", "oci:a", false],
    ["-", "-", false],
  ] as const) {
    it(`as ${destination} ${expected ? "takes the place of" : "leaves"} ${source}`, () => {
      assert.equal(replacesImage(parseReference(destination), parseReference(source)), expected);
    });
  }
});
