import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { LazyError } from "../errors.ts";
import { parseConfig } from "./config.ts";
import { detectMediaType } from "./document.ts";
import { parseIndex } from "./index.ts";
import { encodeJson } from "./json.ts";
import { parseManifest } from "./manifest.ts";
import { DOCKER_INDEX, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST } from "./media-types.ts";

const digest = `sha256:${"ab".repeat(32)}`;
const descriptor = { mediaType: "application/vnd.oci.image.layer.v1.tar", digest, size: 3, urls: ["https://x"], "x-unknown": { a: 1 } };
const manifest = {
  schemaVersion: 2,
  mediaType: OCI_MANIFEST,
  config: descriptor,
  layers: [descriptor, descriptor],
  zebra: [1],
  annotations: { b: "1", a: "2" },
};
const index = {
  schemaVersion: 2,
  mediaType: OCI_INDEX,
  extra: null,
  manifests: [{ ...descriptor, platform: { architecture: "arm", os: "linux", more: 1 } }],
};
const config = {
  created: "2026-01-02T03:04:05.120+02:00",
  config: { Healthcheck: { Test: ["CMD"], Interval: 9007199254740993n }, Shell: ["/bin/sh"], OnBuild: ["RUN x"], StopTimeout: 3 },
  "moby.buildkit.cache.v0": "x",
  rootfs: { diff_ids: [digest], type: "layers", odd: true },
  history: [{ created_by: "a <b> && c", empty_layer: false }],
  os: "linux",
  architecture: "amd64",
};
const configText = JSON.stringify(config, (_, value: unknown) => (typeof value === "bigint" ? `#${value}#` : value)).replace(
  /"#(\d+)#"/,
  "$1",
);
const plainConfig = JSON.parse(configText) as object;
const bytesOf = (value: unknown): Uint8Array => Buffer.from(JSON.stringify(value));

describe("parsing keeps everything", () => {
  it("in a manifest", () => {
    assert.equal(JSON.stringify(parseManifest(bytesOf(manifest), OCI_MANIFEST, "m")), JSON.stringify(manifest));
  });

  it("in an index", () => {
    assert.equal(JSON.stringify(parseIndex(bytesOf(index), OCI_INDEX, "i")), JSON.stringify(index));
  });

  it("in a config, with numbers that no double holds and keys in their order", () => {
    const parsed = parseConfig(Buffer.from(configText), "c");
    const escaped = configText.replace(/[<>&]/g, (character) => `\\u00${character.charCodeAt(0).toString(16)}`);
    assert.equal(Buffer.from(encodeJson(parsed)).toString(), escaped);
    assert.ok(configText.includes("9007199254740993"));
  });
});

describe("a manifest or an index is refused", () => {
  for (const [what, change, code] of [
    ["with both layers and manifests", { manifests: [] }, "CORRUPT"],
    ["with a second spelling of layers", { Layers: [] }, "CORRUPT"],
    ["of another media type than it is stored as", { mediaType: DOCKER_MANIFEST }, "CORRUPT"],
    ["with a media type that is not text", { mediaType: 7 }, "CORRUPT"],
    ["of schema 1", { schemaVersion: 1 }, "UNSUPPORTED"],
    ["of schema 3", { schemaVersion: 3 }, "CORRUPT"],
    ["of schema 1 with layers", { fsLayers: [] }, "UNSUPPORTED"],
    ["without layers", { layers: undefined }, "CORRUPT"],
    ["with layers that are no list", { layers: {} }, "CORRUPT"],
    ["without config", { config: undefined }, "CORRUPT"],
    ["with a layer of a negative size", { layers: [{ ...descriptor, size: -1 }] }, "CORRUPT"],
    ["with a layer of a fractional size", { layers: [{ ...descriptor, size: 1.5 }] }, "CORRUPT"],
    ["with a layer whose digest is a path", { layers: [{ ...descriptor, digest: "sha256:../../x" }] }, "CORRUPT"],
    ["with a layer of another algorithm", { layers: [{ ...descriptor, digest: `sha512:${"ab".repeat(64)}` }] }, "UNSUPPORTED"],
    ["with a layer without media type", { layers: [{ ...descriptor, mediaType: "" }] }, "CORRUPT"],
    ["with an annotation that is not text", { annotations: { a: 1 } }, "CORRUPT"],
  ] as const) {
    it(what, () => {
      assert.throws(() => parseManifest(bytesOf({ ...manifest, ...change }), OCI_MANIFEST, "r/x:1"), { code, message: /^r\/x:1: / });
    });
  }

  it("that is not JSON, not UTF-8, not an object, or too large", () => {
    const tooLarge = Buffer.alloc((4 << 20) + 1, 0x20);
    for (const bytes of [
      Buffer.from("{"),
      Buffer.from([0x22, 0xff, 0x22]),
      Buffer.from("[]"),
      Buffer.from("null"),
      Buffer.from("\ufeff{}"),
      tooLarge,
    ]) {
      assert.throws(() => parseManifest(bytes, OCI_MANIFEST, "m"), { code: "CORRUPT" });
    }
    assert.throws(() => parseManifest(Buffer.from("[".repeat(1 << 20)), OCI_MANIFEST, "m"), { code: "CORRUPT" });
  });

  it("when the other kind was promised", () => {
    assert.throws(() => parseManifest(bytesOf(index), OCI_INDEX, "m"), { code: "UNSUPPORTED" });
    assert.throws(() => parseIndex(bytesOf(manifest), OCI_INDEX, "m"), { code: "CORRUPT" });
  });

  it("naming the layer at fault", () => {
    const bad = { ...manifest, layers: [descriptor, { ...descriptor, digest: "" }] };
    assert.throws(() => parseManifest(bytesOf(bad), OCI_MANIFEST, "m"), { message: /^m: layer 1: digest is ""/ });
  });
});

describe("a config is refused", () => {
  for (const [what, change] of [
    ["without rootfs", { rootfs: undefined }],
    ["with another kind of rootfs", { rootfs: { type: "tree", diff_ids: [] } }],
    ["with diff IDs that are no digests", { rootfs: { type: "layers", diff_ids: ["x"] } }],
    ["with a history that is no list", { history: {} }],
    ["with an os that is not text", { os: 1 }],
  ] as const) {
    it(what, () => {
      const changed = { ...plainConfig, ...change };
      assert.throws(() => parseConfig(bytesOf(changed), "c"), { code: "CORRUPT", message: /^c: / });
    });
  }
});

describe("the media type of a document", () => {
  for (const [what, document, declared, expected] of [
    ["is the declared one", {}, `${DOCKER_INDEX}; charset=utf-8`, DOCKER_INDEX],
    ["is its own if none is declared", { mediaType: DOCKER_MANIFEST }, undefined, DOCKER_MANIFEST],
    ["is its own if the declared one says nothing", { mediaType: DOCKER_MANIFEST }, "text/plain", DOCKER_MANIFEST],
    ["follows from layers", { layers: [] }, undefined, OCI_MANIFEST],
    ["follows from manifests", { manifests: [] }, undefined, OCI_INDEX],
  ] as const) {
    it(what, () => assert.equal(detectMediaType(bytesOf(document), declared, "m"), expected));
  }

  it("is refused when it is something else", () => {
    assert.throws(() => detectMediaType(bytesOf({ mediaType: "text/css" }), undefined, "m"), { code: "UNSUPPORTED" });
    assert.throws(() => detectMediaType(bytesOf({}), undefined, "m"), { code: "CORRUPT" });
    assert.throws(() => detectMediaType(bytesOf({ fsLayers: [] }), "application/json", "m"), { code: "UNSUPPORTED" });
  });
});

describe("canonical JSON", () => {
  it("is escaped as Go escapes it, byte for byte", () => {
    const value = { z: "a<b>&c\u2028\u2029", a: 'quote" back\\ tab\t nul\u0000 del\u007f é 😀', "k<": [1, null, true], u: undefined };
    const expected =
      '{"z":"a\\u003cb\\u003e\\u0026c\\u2028\\u2029","a":"quote\\" back\\\\ tab\\t nul\\u0000 del\u007f é 😀","k\\u003c":[1,null,true]}';
    assert.equal(Buffer.from(encodeJson(value)).toString(), expected);
    assert.deepEqual(JSON.parse(expected), JSON.parse(JSON.stringify(value)));
  });

  it("keeps a key named __proto__ as data", () => {
    const text = `{"rootfs":{"type":"layers","diff_ids":[]},"config":{"Labels":{"__proto__":"x"}},"__proto__":{"os":1}}`;
    assert.equal(Buffer.from(encodeJson(parseConfig(Buffer.from(text), "c"))).toString(), text);
  });
});

describe("parsers under fuzz", () => {
  const parsers = [
    (bytes: Uint8Array): unknown => parseManifest(bytes, OCI_MANIFEST, "m"),
    (bytes: Uint8Array): unknown => parseIndex(bytes, OCI_INDEX, "m"),
    (bytes: Uint8Array): unknown => parseConfig(bytes, "m"),
    (bytes: Uint8Array): unknown => detectMediaType(bytes, undefined, "m"),
  ];
  const check = (bytes: Uint8Array): void => {
    for (const parse of parsers) {
      try {
        parse(bytes);
      } catch (error) {
        if (!(error instanceof LazyError) || !["CORRUPT", "UNSUPPORTED"].includes(error.code)) throw error;
      }
    }
  };

  it("give a value or a clear error for damaged documents", () => {
    const valid = [bytesOf(manifest), bytesOf(index), Buffer.from(configText)];
    const edits = fc.array(fc.tuple(fc.nat(2000), fc.nat(255)), { minLength: 1, maxLength: 4 });
    fc.assert(
      fc.property(fc.constantFrom(...valid), edits, (document, changes) => {
        const damaged = Buffer.from(document);
        for (const [at, value] of changes) damaged[at % damaged.length] = value;
        check(damaged);
      }),
      { numRuns: 3000 },
    );
  });

  it("give a value or a clear error for documents with anything as a value", () => {
    const keys = fc.constantFrom(
      "schemaVersion",
      "mediaType",
      "config",
      "layers",
      "manifests",
      "subject",
      "annotations",
      "rootfs",
      "history",
      "platform",
      "os",
    );
    const values = fc.oneof(fc.jsonValue({ maxDepth: 3 }), fc.constantFrom(2, [], {}, [descriptor], [null], null));
    fc.assert(
      fc.property(fc.constantFrom(manifest, index, plainConfig), keys, values, (document: object, key, value) => {
        check(bytesOf({ ...document, [key]: value }));
      }),
      { numRuns: 3000 },
    );
  });
});
