import assert from "node:assert/strict";
import { dirname } from "node:path";
import { describe, it } from "node:test";
import fc from "fast-check";
import { LazyError } from "../errors.ts";
import { parseDigest } from "../oci/digest.ts";
import { blobPath } from "./layout-blobs.ts";

describe("a digest", () => {
  it("never leads out of the layout, whatever its text is", () => {
    const hex = fc.stringMatching(/^[0-9a-f]{60,68}$/);
    const piece = fc.constantFrom(
      "sha256:",
      "sha512:",
      "..",
      "/",
      "\\",
      "\0",
      "\n",
      "%2e%2e",
      "a".repeat(64),
      "0".repeat(63),
      "A",
      " ",
      "+",
      ":",
    );
    const text = fc.oneof(
      fc.array(fc.oneof(piece, hex), { maxLength: 6 }).map((pieces) => pieces.join("")),
      hex.map((digits) => `sha256:${digits}`),
      fc.string({ unit: "binary", maxLength: 100 }),
      fc.anything(),
    );
    let taken = 0;
    const check = (value: unknown): void => {
      try {
        const path = blobPath("/layout", parseDigest(value, "layer 1"));
        assert.equal(dirname(path), "/layout/blobs/sha256");
        assert.match(path, /\/[0-9a-f]{64}$/);
        taken++;
      } catch (error) {
        if (!(error instanceof LazyError)) throw error;
        assert.match(error.message, /^layer 1: digest /);
        assert.ok(error.message.length < 400);
      }
    };
    fc.assert(fc.property(text, check), { numRuns: 1500, seed: 20_260_101 });
    assert.ok(taken > 0);
  });
});
