import assert from "node:assert/strict";
import { test } from "node:test";
import { gunzipSync, gzipSync } from "node:zlib";
import fc from "fast-check";
import { openDevice } from "../../src/device/open-device.ts";
import { LazyError } from "../../src/errors.ts";
import { SECTOR_BYTES, TARGET_TAG } from "../../src/formats/lsmt/layout.ts";
import { digestOf } from "../../src/oci/digest.ts";
import { OCI_LAYER_GZIP, OCI_LAYER_ZSTD } from "../../src/oci/media-types.ts";
import { load } from "../support/recorded-tree.ts";
import type { TarMember } from "../support/tar-builder.ts";
import { TemporaryDirectory } from "../support/temporary-directory.ts";
import {
  BIG,
  BIG_CONTENT,
  BIG_INDEX,
  bigLayer,
  CONTENT_AT,
  manifestOf,
  METADATA,
  openCache,
  openLayers,
  PLAIN,
  plainLayer,
  refuses,
  VIRTUAL_SIZE,
  warpLayer,
  type Row,
} from "../support/turbo-device.ts";
import { nativeLayer, recordedTurboLayers, spanDigests, turboLayer, WatchedPlace, type StoredLayer } from "../support/turbo-image.ts";

const PREFIX = "containerd.io/snapshot/overlaybd/";

for (const isOld of [false, true]) {
  test(`a layer is known by its annotations${isOld ? ", the older ones too" : ""}`, async () => {
    const layer = await bigLayer();
    const group = isOld ? "fastoci" : "turbo-oci";
    const version = { [`${PREFIX}version`]: isOld ? "0.1.0-fastoci" : "0.1.0-turbo.ociv1" };
    const annotated = (annotations: Record<string, string>): StoredLayer => ({
      ...layer,
      descriptor: { ...layer.descriptor, annotations: { ...version, ...annotations } },
    });
    const named = { [`${PREFIX}${group}/target-digest`]: digestOf(layer.target) };
    const device = await openLayers([annotated(named)]);
    assert.equal(device.size, VIRTUAL_SIZE);
    await device.close();
    await refuses([annotated({})], { code: "CORRUPT", message: /^layer sha256:.*no annotation .*turbo-oci\/target-digest/ });
    await refuses([annotated({ [`${PREFIX}${group}/target-digest`]: "sha256:12" })], { code: "CORRUPT", message: /digest is "sha256:12"/ });
  });
}

test("a warp layer that is declared to be overlaybd is refused, as is a turboOCI blob", async () => {
  const metadata = load("turbo-oci/mkfs-layer0.fs.meta");
  await refuses([nativeLayer(metadata)], { code: "UNSUPPORTED", message: /metadata of a turboOCI layer/ });
  await refuses([nativeLayer((await bigLayer()).blob)], { code: "CORRUPT", message: /expected a ZFile or an LSMT layer/ });
});

test("the data may be in another place", async () => {
  const layer = await bigLayer();
  const [layers, data] = [new WatchedPlace([], "layers"), new WatchedPlace([], "data")];
  layers.add(layer.blob);
  await assert.rejects(openDevice(layers, manifestOf([layer])), {
    code: "NOT_FOUND",
    message: new RegExp(
      `^layers: blob ${layer.descriptor.digest}: its data is in blob ${digestOf(layer.target)}.*layers does not have.*--data-repository`,
    ),
  });
  data.add(layer.target);
  const device = await openDevice(layers, manifestOf([layer]), { dataPlace: data });
  assert.ok(BIG_CONTENT.subarray(0, 1000).equals(await device.read(CONTENT_AT, 1000)));
  await device.close();
  assert.deepEqual([layers.open, data.open], [0, 0]);
});

test("a target of another size than the index says is refused", async () => {
  const layer = await bigLayer();
  const place = new WatchedPlace([layer]);
  place.blobs.set(digestOf(layer.target), layer.target.subarray(1));
  await refuses([layer], { code: "CORRUPT", message: /which the layer says has 1863353 bytes; in place it has 1863352 bytes/ }, place);
});

test("a layer blob that is wrong is fetched once more, then refused", async () => {
  await using directory = await TemporaryDirectory.create();
  const layer = await bigLayer();
  for (const cache of [undefined, await openCache(directory)]) {
    const place = new WatchedPlace([layer]);
    let wrong = 1;
    place.spoil = (bytes, digest) => {
      if (digest === layer.descriptor.digest && wrong-- > 0) bytes[5000] ^= 1;
    };
    const device = await openLayers([layer], { cache }, place);
    assert.equal(place.readsOf(layer.blob).length, 2);
    await device.close();
  }
  const place = new WatchedPlace([layer]);
  place.spoil = (bytes, digest) => {
    if (digest === layer.descriptor.digest) bytes[5000] ^= 1;
  };
  await assert.rejects(openLayers([layer], {}, place), { code: "CORRUPT", message: /content has digest sha256:\w+, expected sha256:/ });
  assert.equal(place.reads.length, 2);
});

const withoutMember = (name: string) => (usual: TarMember[]) => usual.filter((member) => member.name !== name);

test("a layer blob without what it needs is refused with its name", async () => {
  const refusals: [(usual: TarMember[]) => TarMember[], RegExp][] = [
    [withoutMember("erofs.fs.meta"), /blob sha256:\w+: a turboOCI layer without ext4.fs.meta or erofs.fs.meta; it has ".turbo.ociv1", /],
    [() => [], /it has nothing/],
    [withoutMember("gzip.meta"), /is in blob sha256:\w+ of type application.*gzip, but it has no gzip.meta/],
    [(usual) => [...usual, { name: "ext4.fs.meta" }], /ext4.fs.meta: the layer has that twice/],
    [(usual) => [...usual, { name: "zstd.meta" }], /both gzip.meta and zstd.meta/],
    [(usual) => [{ name: "erofs.fs.meta", type: "symlink", link: "x" }, ...usual], /erofs.fs.meta: is not a plain file/],
    [(usual) => usual.map((member) => (member.name === "erofs.fs.meta" ? { ...member, data: "short" } : member)), /erofs.fs.meta: lsmt layer of 5 bytes/],
    [(usual) => usual.map((member) => (member.name === "gzip.meta" ? { ...member, data: "short" } : member)), /gzip.meta: .*gzip index/],
    [(usual) => usual.map((member) => (member.name === "spans.sha256" ? { ...member, data: "short" } : member)), /spans.sha256: .*span digests/],
  ]; // prettier-ignore
  for (const [members, message] of refusals) await refuses([await bigLayer({ members })], { code: "CORRUPT", message });
  const garbage = nativeLayer(Buffer.from("no gzip"));
  const { annotations } = (await bigLayer()).descriptor;
  await refuses([{ ...garbage, descriptor: { ...garbage.descriptor, annotations: annotations! } }], { code: "CORRUPT", message: /tar/ });
});

test("what would not fit into memory is refused", async () => {
  const layer = await bigLayer();
  const huge = { ...layer, descriptor: { ...layer.descriptor, size: 2 ** 30 } };
  await refuses([huge], { code: "UNSUPPORTED", message: /a turboOCI layer of 1073741824 bytes/ });
  const claimed = (usual: TarMember[]): TarMember[] => usual.map((member) => ({ ...member, raw: { size: "77777777777" } }));
  await refuses([await bigLayer({ members: claimed })], { code: "UNSUPPORTED", message: /8589934591 bytes of erofs.fs.meta/ });
  const zeros = gzipSync(Buffer.alloc(10 * 2 ** 20));
  const bomb = Buffer.concat([gzipSync(gunzipSync(layer.blob)), ...Array.from({ length: 52 }, () => zeros)]);
  const { descriptor } = nativeLayer(bomb);
  const bombed = { descriptor: { ...descriptor, annotations: layer.descriptor.annotations! }, blob: bomb, target: layer.target };
  await assert.rejects(openLayers([bombed]), { code: "UNSUPPORTED", message: /more than \d+ bytes unpacked/ });
});

test("a mapping beyond the target is refused with layer and offset", async () => {
  const rows: Row[] = [[0, 8, 8], [8, 10, BIG_CONTENT.length / SECTOR_BYTES - 5, TARGET_TAG]]; // prettier-ignore
  const metadata = await warpLayer(rows, METADATA, BIG_CONTENT.length + 10 * SECTOR_BYTES);
  const members = [
    { name: "ext4.fs.meta", data: metadata },
    { name: "gzip.meta", data: BIG[1] },
  ];
  const message =
    /blob sha256:\w+: ext4.fs.meta: lsmt index at 8192: segment 1 \(sectors 8 \+ 10\) maps to \[46135, 46145\) of .*, which has 46140 sectors/;
  await refuses([turboLayer({ members, target: BIG[0] })], { code: "CORRUPT", message });
});

for (const cached of [false, true]) {
  test(`a target that was wrong once is asked again, one that stays wrong gives an error, never wrong bytes ${cached ? "(cache)" : "(no cache)"}`, async () => {
    await using directory = await TemporaryDirectory.create();
    const layer = await bigLayer();
    const place = new WatchedPlace([layer]);
    const device = await openLayers([layer], cached ? { cache: await openCache(directory) } : {}, place);
    const offset = BIG_INDEX.contentOffset(7) + 300_000;
    let wrong = 1;
    place.spoil = (bytes, digest) => {
      if (digest === digestOf(layer.target) && wrong-- > 0) bytes[20_000] ^= 1;
    };
    assert.ok(BIG_CONTENT.subarray(offset, offset + 5000).equals(await device.read(CONTENT_AT + offset, 5000)));
    assert.equal(place.readsOf(layer.target).length, 2);
    const later = BIG_INDEX.contentOffset(12);
    const wrongRange = BIG_INDEX.storedRange(12);
    place.spoil = (bytes, digest, at) => {
      const flipped = wrongRange.start + 20_000 - at;
      if (wrong > 0 && digest === digestOf(layer.target) && flipped >= 0 && flipped < bytes.length) bytes[flipped] ^= 1;
    };
    wrong = 1;
    const place12 = new RegExp(`blob ${digestOf(layer.target)}: bytes \\[${later}, ${BIG_INDEX.contentOffset(13)}\\) of the content`);
    for (const inside of [1000, 500_000]) {
      await assert.rejects(device.read(CONTENT_AT + later + inside, 5000), { code: "CORRUPT", message: place12 });
    }
    // What shares a chunk with it can still be read.
    assert.ok(BIG_CONTENT.subarray(later - 1000, later).equals(await device.read(CONTENT_AT + later - 1000, 1000)));
    assert.ok(METADATA.subarray(0, 100).equals(await device.read(0, 100)), "the rest can be read");
    wrong = 0;
    assert.ok(BIG_CONTENT.subarray(later, later + 5000).equals(await device.read(CONTENT_AT + later, 5000)));
    await device.close();
  });
}

test("an index that belongs to another blob of the same size gives errors, never wrong bytes", async () => {
  const other = gzipSync(Buffer.from(BIG_CONTENT).fill("x", 10_000_000, 10_001_000), { level: 6 });
  const sized = Buffer.concat([other, Buffer.alloc(Math.max(0, BIG[0].length - other.length))]).subarray(0, BIG[0].length);
  const layer = { ...(await bigLayer()), target: sized };
  const annotations = { ...layer.descriptor.annotations, [`${PREFIX}turbo-oci/target-digest`]: digestOf(sized) };
  const device = await openLayers([{ ...layer, descriptor: { ...layer.descriptor, annotations } }]);
  for (let span = 0; span < BIG_INDEX.spanCount; span++) {
    const offset = BIG_INDEX.contentOffset(span);
    await device.read(CONTENT_AT + offset, 1000).then(
      (bytes) => assert.ok(BIG_CONTENT.subarray(offset, offset + 1000).equals(bytes)),
      (error: unknown) => assert.ok(error instanceof LazyError && error.code === "CORRUPT", String(error)),
    );
  }
  await assert.rejects(device.read(CONTENT_AT + 10_000_000, 1000), { code: "CORRUPT" });
  await device.close();
});

test("a compressed target without an index is refused, whatever it is declared to be", async () => {
  const target = gzipSync(PLAIN);
  const digests = [{ name: "spans.sha256", data: spanDigests(target) }];
  await refuses([await plainLayer(digests, target)], {
    code: "CORRUPT",
    message: /which is compressed with gzip, but the layer has no index of it/,
  });
  for (const [type, index] of [[OCI_LAYER_GZIP, "gzip.meta"], [OCI_LAYER_ZSTD, "zstd.meta"]] as const) {
    const layer = await plainLayer(digests);
    const annotations = { ...layer.descriptor.annotations, [`${PREFIX}turbo-oci/target-media-type`]: type };
    await refuses([{ ...layer, descriptor: { ...layer.descriptor, annotations } }], { code: "CORRUPT", message: new RegExp(`it has no ${index}`) });
  } // prettier-ignore
});

test("layer blobs with random damage inside of them are refused, or read as before", async () => {
  const layer = recordedTurboLayers("mkfs")[2];
  const tar = gunzipSync(layer.blob);
  const expected = await (await openLayers([layer])).read(0, 2 ** 20);
  let refused = 0;
  await fc.assert(
    fc.asyncProperty(fc.array(fc.tuple(fc.nat(tar.length - 1), fc.nat(255)), { minLength: 1, maxLength: 3 }), async (edits) => {
      const damaged = Buffer.from(tar);
      for (const [at, value] of edits) damaged[at] = value;
      const blob = gzipSync(damaged, { level: 1 });
      const { descriptor } = nativeLayer(blob);
      const changed = { ...layer, blob, descriptor: { ...descriptor, annotations: layer.descriptor.annotations! } };
      try {
        const device = await openLayers([changed]);
        assert.ok(Buffer.from(expected).equals(await device.read(0, 2 ** 20)));
      } catch (error) {
        refused++;
        assert.ok(error instanceof LazyError && ["CORRUPT", "UNSUPPORTED"].includes(error.code), String(error));
      }
    }),
    { numRuns: 150 },
  );
  assert.ok(refused > 20, `${refused} were refused`);
});
