import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { gunzipSync } from "node:zlib";
import { parseGzipIndex } from "./gzip-index-reader.ts";

const testdata = new URL("../../../testdata/", import.meta.url);
const GOLDEN = [
  { index: "gzip-index/layer0.gzip.meta", blob: "gzip-index/layer0.tar.gz", spans: 22 },
  { index: "gzip-index/layer2.gzip.meta", blob: "overlaybd/layer2.tar.gz", spans: 1 },
];

for (const { index: indexFile, blob: blobFile, spans } of GOLDEN) {
  test(`every span of ${blobFile} is decoded with the index that another tool made`, () => {
    const [bytes, blob] = [readFileSync(new URL(indexFile, testdata)), readFileSync(new URL(blobFile, testdata))];
    const content = gunzipSync(blob);
    const index = parseGzipIndex(bytes, "index");
    assert.equal(index.spanCount, spans);
    assert.equal(index.storedBytes, blob.length);
    assert.equal(index.contentBytes, content.length);
    for (let span = 0; span < index.spanCount; span++) {
      const { start, end } = index.storedRange(span);
      const expected = content.subarray(index.contentOffset(span), index.contentOffset(span + 1));
      assert.ok(expected.equals(index.decode(span, blob.subarray(start, end))), `span ${span}`);
    }
  });
}
