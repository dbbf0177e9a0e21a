import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Descriptor } from "./descriptor.ts";
import { digestOf } from "./digest.ts";
import { formatPlatform, parsePlatform, parsePlatformObject, samePlatform, selectPlatform, type Platform } from "./platform.ts";

const host = { os: "linux", architecture: "x64" };
const parse = (text: string): Platform => parsePlatform(text, host);
const entry = (text: string): Descriptor => {
  const [os, architecture, variant] = text.split("/");
  return { mediaType: "m", digest: digestOf(Buffer.from(text)), size: 1, platform: { os, architecture, ...(variant && { variant }) } };
};

describe("a platform", () => {
  for (const [text, normal] of [
    ["linux/amd64", "linux/amd64"],
    ["linux/x86_64", "linux/amd64"],
    ["Linux/AMD64/v1", "linux/amd64"],
    ["linux/amd64/v3", "linux/amd64/v3"],
    ["linux/aarch64", "linux/arm64"],
    ["linux/arm64/v8", "linux/arm64"],
    ["linux/arm64/8", "linux/arm64"],
    ["linux/arm64/v9", "linux/arm64/v9"],
    ["linux/arm", "linux/arm/v7"],
    ["linux/armhf", "linux/arm/v7"],
    ["linux/armel", "linux/arm/v6"],
    ["linux/arm/6", "linux/arm/v6"],
    ["linux/i386", "linux/386"],
    ["macos/arm64", "darwin/arm64"],
    ["linux/riscv64", "linux/riscv64"],
    ["local", "linux/amd64"],
  ]) {
    it(`${text} is ${normal}`, () => assert.equal(formatPlatform(parse(text)), normal));
  }

  it("is that of the host when it is called local", () => {
    assert.equal(formatPlatform(parsePlatform("local", { os: "darwin", architecture: "arm64" })), "darwin/arm64");
    assert.equal(formatPlatform(parsePlatform("local", { os: "linux", architecture: "ppc64" })), "linux/ppc64le");
  });

  for (const text of ["", "linux", "linux/", "/amd64", "linux/amd64/", "linux/amd64/v1/x", "linux/a b", "linux/../x"]) {
    it(`is not ${JSON.stringify(text)}`, () => assert.throws(() => parse(text), { code: "USAGE", message: /os\/arch/ }));
  }

  it("is compared in its normal form", () => {
    assert.ok(samePlatform({ os: "linux", architecture: "arm64", variant: "v8" }, { os: "linux", architecture: "aarch64" }));
    assert.ok(samePlatform({ os: "linux", architecture: "arm" }, { os: "linux", architecture: "arm", variant: "v7" }));
    assert.ok(!samePlatform({ os: "linux", architecture: "arm" }, { os: "linux", architecture: "arm", variant: "v6" }));
    assert.ok(!samePlatform({ os: "linux", architecture: "amd64" }, { os: "windows", architecture: "amd64" }));
  });

  it("keeps keys it does not know", () => {
    const raw = { os: "windows", architecture: "amd64", "os.version": "10.0", "os.features": ["x"] };
    assert.deepEqual(parsePlatformObject(raw, "entry"), raw);
    assert.throws(() => parsePlatformObject({ os: 1 }, "entry"), { code: "CORRUPT" });
  });
});

describe("selecting a platform from an index", () => {
  const entries = ["linux/amd64", "linux/arm64/v8", "linux/arm/v5", "linux/arm/v6", "windows/amd64"].map(entry);
  for (const [wanted, expected] of [
    ["linux/amd64", "linux/amd64"],
    ["linux/amd64/v3", "linux/amd64"],
    ["linux/arm64", "linux/arm64/v8"],
    ["linux/arm/v7", "linux/arm/v6"],
    ["linux/arm/v5", "linux/arm/v5"],
    ["windows/amd64", "windows/amd64"],
    ["linux/s390x", undefined],
    ["linux/386", undefined],
  ] as const) {
    it(`gives ${expected ?? "nothing"} for ${wanted}`, () => {
      assert.deepEqual(selectPlatform(entries, parse(wanted)), expected && entry(expected));
    });
  }

  it("passes over entries without a platform and less capable images for more demanding ones", () => {
    const { platform: _, ...bare } = entry("linux/amd64");
    assert.equal(selectPlatform([bare], parse("linux/amd64")), undefined);
    assert.equal(selectPlatform([entry("linux/arm/v7")], parse("linux/arm/v6")), undefined);
  });
});
