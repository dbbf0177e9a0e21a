import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { chainIds } from "./chain-id.ts";
import { digestOf, DigestHash, hexOf, isDigest, parseDigest, type Digest } from "./digest.ts";

const hex = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"; // SHA-256 of "abc", FIPS 180-4

describe("a digest", () => {
  it("is the SHA-256 of the bytes, whole or in pieces", () => {
    assert.equal(digestOf(Buffer.from("abc")), `sha256:${hex}`);
    const hash = new DigestHash();
    hash.update(Buffer.from("a"));
    hash.update(Buffer.from("bc"));
    assert.equal(hash.digest(), `sha256:${hex}`);
  });

  it("is parsed when it is exactly sha256 and 64 lower-case hex digits", () => {
    const digest = parseDigest(`sha256:${hex}`, "here");
    assert.equal(hexOf(digest), hex);
    assert.ok(isDigest(digest));
  });

  for (const [text, code] of [
    [`sha256:${hex.toUpperCase()}`, "CORRUPT"],
    [`sha256:${hex.slice(1)}`, "CORRUPT"],
    [`sha256:${hex}0`, "CORRUPT"],
    [`sha256:${hex}\n`, "CORRUPT"],
    [` sha256:${hex}`, "CORRUPT"],
    [`sha256:../../../../etc/passwd`, "CORRUPT"],
    [hex, "CORRUPT"],
    ["", "CORRUPT"],
    [undefined, "CORRUPT"],
    [5, "CORRUPT"],
    [`sha512:${hex}${hex}`, "UNSUPPORTED"],
    [`blake3:${hex}`, "UNSUPPORTED"],
    [`sha512:../${hex}`, "CORRUPT"],
  ] as const) {
    it(`refuses ${JSON.stringify(text)?.slice(0, 40)} as ${code}`, () => {
      assert.throws(() => parseDigest(text, "layer 3"), { code, message: /^layer 3: digest / });
    });
  }
});

describe("chain IDs", () => {
  it("start with the diff ID and fold in one layer after another", () => {
    const diffIds: Digest[] = [digestOf(Buffer.from("1")), digestOf(Buffer.from("2")), digestOf(Buffer.from("3"))];
    const second = digestOf(Buffer.from(`${diffIds[0]} ${diffIds[1]}`));
    assert.deepEqual(chainIds(diffIds), [diffIds[0], second, digestOf(Buffer.from(`${second} ${diffIds[2]}`))]);
    assert.deepEqual(chainIds([]), []);
  });
});
