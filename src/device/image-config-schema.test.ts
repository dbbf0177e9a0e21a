import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { LazyError } from "../errors.ts";
import { isImageConfig, parseImageConfig } from "./image-config-schema.ts";

const SEED = 20_261_121;

test("what snapshotters write is taken as it is, without a notice", () => {
  const text = JSON.stringify({
    repoBlobUrl: "https://registry.example/v2/a/b/blobs",
    lowers: [
      { digest: "sha256:0123", size: 5, dir: "/snapshots/1/fs" },
      { file: "/snapshots/2/fs/ext4.fs.meta", dir: "/snapshots/2/fs", targetDigest: "sha256:4567", gzipIndex: "/snapshots/2/fs/gzip.meta" },
    ],
    upper: { index: "/snapshots/3/block/writable_index", data: "/snapshots/3/block/writable_data", vsize: 64 },
    resultFile: "/snapshots/3/block/init-debug.log",
    download: { enable: true },
    accelerationLayer: false,
    recordTracePath: "",
  });
  const { config, notices } = parseImageConfig(text, "config.v1.json");
  assert.deepEqual(notices, []);
  assert.equal(config.lowers[0].targetFile, "");
  assert.equal(config.download?.delay, 300, "what an image does not say of downloads is not the service's");
  assert.ok(isImageConfig(text));
  assert.ok(!isImageConfig('{"cacheConfig": {}}'));
});

test("an image that says nothing of downloads leaves them to the service", () => {
  assert.equal(parseImageConfig("{}", "x").config.download, undefined);
});

for (const [text, message] of [
  ['{"lowers": {}}', "x: lowers is {}, expected a list of layers"],
  ['{"lowers": [{"file": null}, "a"]}', 'x: lowers[0].file is null, expected a path; lowers[1] is "a", expected an object'],
  ['{"upper": {"data": 1}, "accelerationLayer": 1}', "x: upper.data is 1, expected a path; accelerationLayer is 1, expected true or false"],
  ['{"repoBlobUrl": ["long"]}', 'x: repoBlobUrl is ["long"], expected a URL like https://HOST/v2/REPOSITORY/blobs'],
  ['{"lowers": [{"size": 9007199254740993}]}', "x: lowers[0].size is 9007199254740993, expected bytes from 0 to 9007199254740991"],
] as const) {
  test(`${text} is refused with key, value and expectation`, () => {
    assert.throws(() => parseImageConfig(text, "x"), { code: "USAGE", message });
  });
}

test("any other text is taken or refused with a reason, of bounded length", () => {
  const keys = fc.constantFrom("lowers", "upper", "repoBlobUrl", "download", "resultFile", "lowrs", "__proto__");
  const lower = fc.dictionary(fc.constantFrom("file", "dir", "size", "digest", "toString"), fc.jsonValue({ maxDepth: 1 }));
  const raw = fc.dictionary(keys, fc.oneof(fc.jsonValue({ maxDepth: 2 }), fc.array(lower, { maxLength: 40 })));
  const text = fc.oneof(
    raw.map((value) => JSON.stringify(value)),
    fc.string(),
  );
  fc.assert(
    fc.property(text, (given) => {
      try {
        assert.ok(Array.isArray(parseImageConfig(given, "x").config.lowers));
      } catch (error) {
        assert.ok(error instanceof LazyError && error.code === "USAGE" && error.message.startsWith("x: "), String(error));
        assert.ok(error.message.length < 8000);
      }
    }),
    { seed: SEED, numRuns: 3000 },
  );
});
