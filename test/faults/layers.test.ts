import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { rm } from "node:fs/promises";
import { after, before, test } from "node:test";
import { gzipSync, zstdCompressSync } from "node:zlib";
import { LazyError } from "../../src/errors.ts";
import { digestOf } from "../../src/oci/digest.ts";
import { OCI_CONFIG, OCI_LAYER_GZIP, OCI_LAYER_TAR, OCI_LAYER_ZSTD } from "../../src/oci/media-types.ts";
import { convertLayout } from "../support/convert.ts";
import { damageBlob, layerOf, writeImage, type BuiltImage, type BuiltLayer } from "../support/image-builder.ts";
import { tarArchive } from "../support/tar-builder.ts";
import { TemporaryDirectory } from "../support/temporary-directory.ts";

const SEED = 20_261_121;
const FLIPS = 60;

let scratch: TemporaryDirectory;
let images = 0;

before(async () => (scratch = await TemporaryDirectory.create()));
after(async () => await scratch[Symbol.asyncDispose]());

/** A generator of the same numbers each time: 0 to below `limit`. */
function numbers(seed: number): (limit: number) => number {
  let state = seed;
  return (limit) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * limit);
  };
}

const next = numbers(SEED);
const TAR = tarArchive([
  { name: "etc/" },
  ...Array.from({ length: 20 }, (_, at) => ({
    name: `etc/file-${at}`,
    data: Buffer.from(Array.from({ length: 3000 }, () => next(256))),
    mtime: at,
  })),
  { name: "etc/link", type: "symlink", link: "file-1" },
]);
const DIFF_ID = digestOf(TAR);
const FORMS: readonly (readonly [name: string, blob: Uint8Array, mediaType: string])[] = [
  ["gzip", gzipSync(TAR), OCI_LAYER_GZIP],
  ["zstd", zstdCompressSync(TAR), OCI_LAYER_ZSTD],
  ["plain", TAR, OCI_LAYER_TAR],
];
const GOOD: BuiltLayer = layerOf([{ name: "other", data: "other" }]);

/** Converts an image of a good layer and the one given. Gives the digest, or the error; what failed has left nothing. */
async function outcome(image: BuiltImage, damage?: (directory: string) => Promise<void>): Promise<string | LazyError> {
  const [from, to] = [scratch.join(`in-${images}`), scratch.join(`out-${images++}`)];
  await writeImage(from, "x", image);
  await damage?.(from);
  try {
    return (await convertLayout(from, "x", to)).descriptor.digest;
  } catch (error) {
    assert.ok(error instanceof LazyError, String(error));
    assert.equal(existsSync(to), false, "nothing is stored");
    return error;
  } finally {
    assert.equal(existsSync(`${to}.work`), false, "no temporary data");
    await Promise.all([from, to].map(async (path) => await rm(path, { recursive: true, force: true })));
  }
}

function assertCorrupt(found: string | LazyError, pattern: RegExp): void {
  assert.ok(found instanceof LazyError, "it was converted");
  assert.match(found.message, pattern);
  assert.equal(found.code, "CORRUPT");
}

function stored(blob: Uint8Array, mediaType: string, diffId = DIFF_ID): BuiltImage {
  return { layers: [GOOD, { blob, mediaType, diffId }] };
}

for (const [name, blob, mediaType] of FORMS) {
  test(`a ${name} layer that is cut off is refused, wherever it ends`, async () => {
    for (const bytes of [0, 1, 10, 511, 512, 1024, Math.floor(blob.length / 2), blob.length - 1025, blob.length - 9, blob.length - 1]) {
      const found = await outcome(stored(blob.subarray(0, bytes), mediaType));
      assertCorrupt(found, /layer 1 \(sha256:/);
    }
  });

  test(`a ${name} layer with a flipped bit is refused, or is the same layer`, async () => {
    const pristine = await outcome(stored(blob, mediaType));
    let refused = 0;
    for (let flip = 0; flip < FLIPS; flip++) {
      const damaged = Buffer.from(blob);
      const at = next(blob.length);
      damaged[at] ^= 1 << next(8);
      const found = await outcome(stored(damaged, mediaType));
      // Only what means nothing may change without being noticed, such as a time in gzip's header.
      if (typeof found === "string") assert.equal(found, pristine, `seed ${SEED}, flip ${flip}: byte ${at}`);
      else refused++;
    }
    assert.ok(refused >= FLIPS - 5, `${refused} of ${FLIPS}`);
  });

  test(`a ${name} layer whose stored bytes are not those of its digest is refused`, async () => {
    for (const change of ["flip", "cut", "grow"] as const) {
      const found = await outcome(stored(blob, mediaType), async (directory) => await damageBlob(directory, digestOf(blob), change));
      assertCorrupt(found, new RegExp(digestOf(blob).slice(7)));
    }
  });

  test(`a ${name} layer with something behind its end is refused`, async () => {
    const found = await outcome(stored(Buffer.concat([blob, Buffer.from("tail")]), mediaType));
    assertCorrupt(found, /layer 1/);
  });
}

test("a layer whose content is not that of its diff ID is refused, naming both", async () => {
  const [, blob, mediaType] = FORMS[0];
  const found = await outcome(stored(blob, mediaType, digestOf(Buffer.from("else"))));
  assertCorrupt(found, new RegExp(`layer 1 .* diff ID ${DIFF_ID}, the config says sha256:`));
});

test("a config or manifest that is none, or that does not fit its layers, is refused", async () => {
  const rootfs = (...ids: unknown[]): Record<string, unknown> => ({ rootfs: { type: "layers", diff_ids: ids } });
  const rows: [image: BuiltImage, expected: RegExp][] = [
    [{ layers: [GOOD], config: rootfs() }, /the manifest has 1 layers, the config 0 diff IDs/],
    [{ layers: [GOOD], config: rootfs(GOOD.diffId, GOOD.diffId) }, /the manifest has 1 layers, the config 2 diff IDs/],
    [{ layers: [GOOD], config: rootfs("sha256:12") }, /config: diff_id 0/],
    [{ layers: [GOOD], config: { rootfs: { type: "other", diff_ids: [GOOD.diffId] } } }, /rootfs.type is "other"/],
    [{ layers: [GOOD], config: { rootfs: null } }, /config: rootfs/],
    [{ layers: [GOOD], manifest: { config: { mediaType: OCI_CONFIG, digest: DIFF_ID, size: -1 } } }, /size/],
    [{ layers: [GOOD], manifest: { layers: "none" } }, /layers/],
    [{ layers: [GOOD], manifest: { schemaVersion: 3 } }, /schemaVersion/],
  ];
  for (const [image, expected] of rows) assertCorrupt(await outcome(image), expected);
});

test("a config or manifest whose stored bytes are not those of its digest is refused", async () => {
  const image = { layers: [GOOD] };
  const config = digestOf(
    Buffer.from(JSON.stringify({ architecture: "amd64", os: "linux", config: {}, rootfs: { type: "layers", diff_ids: [GOOD.diffId] } })),
  );
  for (const change of ["flip", "cut", "grow"] as const) {
    assertCorrupt(await outcome(image, async (directory) => await damageBlob(directory, config, change)), /digest|bytes/);
    const manifest = (await writeImage(scratch.join("known"), "x", image)).digest;
    assertCorrupt(await outcome(image, async (directory) => await damageBlob(directory, manifest, change)), /digest|bytes/);
  }
});

test("a layer that is no tar, and one that is encrypted, is refused by its media type", async () => {
  for (const mediaType of ["application/vnd.oci.image.layer.v1.tar+gzip+encrypted", "application/vnd.wasm.content.layer.v1+wasm"]) {
    const found = await outcome({ layers: [{ ...GOOD, mediaType }] });
    assert.ok(found instanceof LazyError);
    assert.equal(found.code, "UNSUPPORTED");
    assert.ok(found.message.includes(`layer 0 has media type ${mediaType}`), found.message);
  }
});
