import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdir, readFile, rename, rm, truncate, writeFile } from "node:fs/promises";
import { describe, test } from "node:test";
import { findDataExtents } from "../../test/support/data-extents.ts";
import { layOutImage, type RecordedImage } from "../../test/support/image-directories.ts";
import { assertTree, load } from "../../test/support/recorded-tree.ts";
import { TemporaryDirectory } from "../../test/support/temporary-directory.ts";
import { openCache } from "../../test/support/turbo-device.ts";
import { nativeLayer, recordedTarget, WatchedPlace } from "../../test/support/turbo-image.ts";
import { DiskFile } from "../bytes/file.ts";
import { LazyError } from "../errors.ts";
import { AppendLayer } from "../formats/lsmt/append-layer.ts";
import { SparseLayer } from "../formats/lsmt/sparse-layer.ts";
import { WarpUpper } from "../formats/lsmt/warp-upper.ts";
import type { WritableLayer } from "../formats/lsmt/writable-layer.ts";
import { digestOf } from "../oci/digest.ts";
import { openImageConfig, type OpenedImage, type ReadOnlyImage, type WritableImage } from "./image-config.ts";
import type { ImagePlaces } from "./image-config-places.ts";
import { parseImageConfig, type ImageConfig } from "./image-config-schema.ts";

const URL = "http://registry.example/v2/a/b/blobs";

function placesOf(parts: Partial<ImagePlaces> = {}): ImagePlaces & { readonly notices: string[] } {
  const notices: string[] = [];
  return {
    openRemote: async () => assert.fail("nothing remote is needed"),
    cache: undefined,
    gzipCache: undefined,
    notice: (message) => notices.push(message),
    notices,
    ...parts,
  };
}

function configOf(raw: object): ImageConfig {
  return parseImageConfig(JSON.stringify(raw), "config.json").config;
}

async function openReadOnly(config: ImageConfig, places: ImagePlaces = placesOf()): Promise<ReadOnlyImage> {
  const image = await openImageConfig(config, places);
  assert.ok(image.isReadOnly);
  return image;
}

/** Opening fails with that code and message, and with that in the result file. */
async function refuses(
  config: ImageConfig,
  directory: TemporaryDirectory,
  expected: { readonly code: string; readonly message: RegExp; readonly reason: string },
  places: ImagePlaces = placesOf(),
): Promise<void> {
  const resultFile = directory.join("result");
  await writeFile(resultFile, "what was there before, and longer than the result");
  await assert.rejects(openImageConfig({ ...config, resultFile }, places), { code: expected.code, message: expected.message });
  assert.equal(await readFile(resultFile, "utf8"), `failed:${expected.reason}`);
}

describe("recorded image configurations", () => {
  const cases: readonly (readonly [RecordedImage, lowers: number, tree: string])[] = [
    ["stack-base", 3, "base-tree1"],
    ["stack-mkfs", 2, "stack-tree1"],
    ["turbo-base", 2, "base-tree0"],
    ["turbo-base", 4, "base-tree2"],
    ["turbo-mkfs", 3, "stack-tree"],
  ];
  for (const [image, lowers, tree] of cases) {
    test(`${lowers} layers of ${image} have the recorded tree`, async () => {
      await using directory = await TemporaryDirectory.create();
      const config = await layOutImage(image, directory);
      const resultFile = directory.join("result");
      const readOnly = { ...config, lowers: config.lowers.slice(0, lowers), upper: configOf({}).upper, resultFile };
      const { device } = await openReadOnly(readOnly);
      assert.equal(device.layerCount, lowers);
      await assertTree(device, tree, { inodes: true });
      await device.close();
      assert.equal(await readFile(resultFile, "utf8"), "success");
    });
  }

  test("turbo-erofs is the device that the kernel has mounted", async () => {
    await using directory = await TemporaryDirectory.create();
    const { device } = await openImageConfig(await layOutImage("turbo-erofs", directory), placesOf());
    const hash = createHash("sha256");
    for (let at = 0; at < 64 * 2 ** 20; at += 2 ** 22) hash.update(await device.read(at, 2 ** 22));
    assert.equal(hash.digest("hex"), "f9f086bf286973b03881690859bd781db1674fe774c46fd5093b44d46cb94c28");
    await device.close();
  });
});

const BLOBS = [0, 1, 2].map((layer) => load(`overlaybd/stack-layer${layer}.commit.zst`));
const LOWERS = BLOBS.map((blob) => ({ digest: digestOf(blob), size: blob.length }));

function remote(blobs: readonly Uint8Array[] = BLOBS): { readonly place: WatchedPlace; readonly openRemote: ImagePlaces["openRemote"] } {
  const place = new WatchedPlace(blobs.map(nativeLayer));
  const openRemote = async (url: string): Promise<WatchedPlace> => {
    assert.equal(url, URL);
    return place;
  };
  return { place, openRemote };
}

async function closeWhole({ device }: OpenedImage, place: WatchedPlace): Promise<void> {
  await assertTree(device, "stack-tree", { inodes: true });
  await device.close();
  assert.equal(place.open, 0);
}

describe("where layers are looked for", () => {
  test("in their file, then in their directory under three names, then in the repository", async () => {
    await using directory = await TemporaryDirectory.create();
    const lowers = await Promise.all(
      LOWERS.map(async (lower, layer) => {
        const dir = directory.join(`layer${layer}`);
        await mkdir(dir);
        return { ...lower, dir, file: `${dir}/file` };
      }),
    );
    const [first] = lowers;
    const names = ["file", "overlaybd.commit", ".commit", "overlaybd.sealed"];
    for (const [at, name] of names.entries()) {
      await writeFile(`${first.dir}/${name}`, BLOBS[0]);
      for (const worse of names.slice(at + 1)) await writeFile(`${first.dir}/${worse}`, "not looked at");
      const { place, openRemote } = remote();
      const places = placesOf({ openRemote });
      await closeWhole(await openImageConfig(configOf({ repoBlobUrl: URL, lowers }), places), place);
      assert.equal(place.readsOf(BLOBS[0]).length, 0, name);
      assert.notEqual(place.readsOf(BLOBS[1]).length, 0);
      assert.deepEqual(places.notices, []);
      await rm(`${first.dir}/${name}`);
    }
    const { place, openRemote } = remote();
    await closeWhole(await openImageConfig(configOf({ repoBlobUrl: URL, lowers }), placesOf({ openRemote })), place);
    assert.notEqual(place.readsOf(BLOBS[0]).length, 0);
  });

  test("through the cache, where there is one: a second opening asks for nothing but sizes that are not given", async () => {
    await using directory = await TemporaryDirectory.create();
    const cache = await openCache(directory);
    const lowers = [LOWERS[0], { digest: LOWERS[1].digest }, LOWERS[2]];
    const config = configOf({ repoBlobUrl: URL, lowers });
    const first = remote();
    await closeWhole(await openImageConfig(config, placesOf({ openRemote: first.openRemote, cache })), first.place);
    const second = remote();
    const image = await openReadOnly(config, placesOf({ openRemote: second.openRemote, cache }));
    await closeWhole(image, second.place);
    assert.equal(second.place.reads.length, 0);
    assert.deepEqual(image.device.fetched, { requests: 1, bytes: 0 });
  });

  test("a local layer that is damaged is told of and read from the repository", async () => {
    await using directory = await TemporaryDirectory.create();
    const file = directory.join("layer");
    await writeFile(file, BLOBS[0].subarray(0, 100_000));
    const { place, openRemote } = remote();
    const places = placesOf({ openRemote });
    await closeWhole(
      await openImageConfig(configOf({ repoBlobUrl: URL, lowers: [{ ...LOWERS[0], file }, ...LOWERS.slice(1)] }), places),
      place,
    );
    assert.equal(places.notices.length, 1);
    assert.match(places.notices[0], /^lowers\[0\]: .*layer.*read from the registry instead$/);
  });

  for (const size of [BLOBS[0].length - 8192, BLOBS[0].length + 512, 100]) {
    test(`a size of ${size} that is wrong is told of and not used`, async () => {
      await using directory = await TemporaryDirectory.create();
      for (const cache of [undefined, await openCache(directory)]) {
        const { place, openRemote } = remote();
        const places = placesOf({ openRemote, cache });
        const config = configOf({ repoBlobUrl: `${URL}`, lowers: [{ ...LOWERS[0], size }, ...LOWERS.slice(1)] });
        await closeWhole(await openImageConfig(config, places), place);
        assert.deepEqual(places.notices, [
          `lowers[0].size is ${size}, but blob ${LOWERS[0].digest} has ${BLOBS[0].length} bytes; the latter is used`,
        ]);
      }
    });
  }
});

describe("turboOCI layers", () => {
  test("have their data in the repository where there is no file, and that in the cache for what is compressed", async () => {
    await using directory = await TemporaryDirectory.create();
    const config = await layOutImage("turbo-mkfs", directory);
    const targets = [0, 1, 2].map((layer) => recordedTarget(layer)[0]);
    const gzipCache = await openCache(directory);
    const wanted = { ...config, repoBlobUrl: URL, lowers: config.lowers.map((lower) => ({ ...lower, targetFile: "" })) };
    for (const reads of [1, 0]) {
      const { place, openRemote } = remote(targets);
      await closeWhole(await openImageConfig(wanted, placesOf({ openRemote, gzipCache })), place);
      assert.equal(place.reads.length > 0, reads > 0);
    }
  });

  test("open again from the cache while the repository cannot be asked whether the data is there", async () => {
    await using directory = await TemporaryDirectory.create();
    const config = await layOutImage("turbo-mkfs", directory);
    const lowers = config.lowers.map((lower) => ({ ...lower, targetFile: "" }));
    const wanted = { ...config, repoBlobUrl: URL, lowers };
    const { place, openRemote } = remote([0, 1, 2].map((layer) => recordedTarget(layer)[0]));
    const gzipCache = await openCache(directory);
    await closeWhole(await openImageConfig(wanted, placesOf({ openRemote, gzipCache })), place);
    place.reads.length = 0;
    const failures: [LazyError["code"], string][] = [["DENIED", "not for you"], ["NOT_FOUND", "gone"], ["UNAVAILABLE", "down"]]; // prettier-ignore
    for (const [code, message] of failures) {
      place.blobSize = async () => await Promise.reject(new LazyError(code, message));
      const places = placesOf({ openRemote, gzipCache });
      if (code !== "UNAVAILABLE") await assert.rejects(openImageConfig(wanted, places), { code });
      else {
        await closeWhole(await openImageConfig(wanted, places), place);
        const notice = /^lowers\[\d\]: down; opened without looking whether the data is there$/;
        assert.ok(places.notices.length === 3 && places.notices.every((text) => notice.test(text)), places.notices.join("\n"));
        await assert.rejects(openImageConfig(wanted, placesOf({ openRemote })), { code }, "nothing is kept without a cache");
      }
    }
    assert.deepEqual([place.reads, place.open], [[], 0]);
  });

  test("have their metadata in the repository, too", async () => {
    await using directory = await TemporaryDirectory.create();
    const config = await layOutImage("turbo-mkfs", directory);
    const metadata = [0, 1, 2].map((layer) => load(`turbo-oci/mkfs-layer${layer}.fs.meta`));
    const { place, openRemote } = remote(metadata);
    const lowers = config.lowers.map((lower, layer) => ({ ...lower, file: "", digest: digestOf(metadata[layer]) }));
    await closeWhole(await openImageConfig({ ...config, repoBlobUrl: URL, lowers }, placesOf({ openRemote })), place);
  });

  test("are refused, and never taken for plain layers, when their data or index is not to be had or not of each other", async () => {
    await using directory = await TemporaryDirectory.create();
    const config = await layOutImage("turbo-mkfs", directory);
    const [lower] = config.lowers;
    const change = (parts: object): ImageConfig => ({ ...config, repoBlobUrl: URL, lowers: [{ ...lower, ...parts }] });
    const { place, openRemote } = remote([]);
    const places = placesOf({ openRemote });
    const gone = directory.join("gone");
    await refuses(change({ targetFile: gone }), directory, {
      code: "NOT_FOUND",
      message: /^lowers\[0\]\.targetFile: .*gone: does not exist$/,
      reason: `failed to open local file ${gone}`,
    });
    await refuses(change({ gzipIndex: gone }), directory, {
      code: "UNAVAILABLE",
      message: /^lowers\[0\]\.gzipIndex: /,
      reason: `failed to open gzip index ${gone}`,
    });
    await refuses(change({ gzipIndex: "" }), directory, {
      code: "CORRUPT",
      message: /compressed with gzip, but the layer has no index/,
      reason: `failed to open local file ${lower.targetFile}`,
    });
    await refuses(change({ gzipIndex: config.lowers[1].gzipIndex }), directory, {
      code: "CORRUPT",
      message: /does not belong to this blob/,
      reason: `failed to open gzip index ${config.lowers[1].gzipIndex}`,
    });
    await refuses(change({ targetFile: "", targetDigest: "" }), directory, {
      code: "USAGE",
      message: /neither targetFile nor targetDigest/,
      reason: "failed to open layer 0",
    });
    const missing = { code: "NOT_FOUND", message: /^lowers\[0\]\.targetDigest: .* does not have/, reason: `failed to open remote file /${URL}/${lower.targetDigest}: No such file or directory` }; // prettier-ignore
    await refuses(change({ targetFile: "" }), directory, missing, places);
    assert.equal(place.open, 0);
  });
});

describe("what cannot be opened says why, in words and in the result file", () => {
  test("nothing local, and no repository", async () => {
    await using directory = await TemporaryDirectory.create();
    await refuses(configOf({ lowers: LOWERS }), directory, {
      code: "USAGE",
      message: /^repoBlobUrl: is empty/,
      reason: "empty repoBlobUrl",
    });
    const dir = directory.join("none");
    await refuses(configOf({ repoBlobUrl: URL, lowers: [{ dir }] }), directory, {
      code: "NOT_FOUND",
      message: /^lowers\[0\]: the layer there is no .*none\/overlaybd.commit, no .* and it has no digest/,
      reason: "failed to open layer 0",
    });
    for (const [lower, code, message] of [
      [{}, "NOT_FOUND", /^lowers\[0\]: the layer has neither file, dir nor digest/],
      [{ dir }, "NOT_FOUND", /none\/overlaybd.commit, no .* and it has no digest/],
      [{ dir, digest: "sha256:1" }, "CORRUPT", /^lowers\[0\]: /],
    ] as const) {
      await refuses(configOf({ lowers: [lower] }), directory, { code, message, reason: "empty repoBlobUrl" });
    }
  });

  test("local files that are no layers", async () => {
    await using directory = await TemporaryDirectory.create();
    const file = directory.join("layer");
    const config = configOf({ lowers: [{ file }] });
    await writeFile(file, Buffer.alloc(511, 1));
    await refuses(config, directory, { code: "CORRUPT", message: /lowers\[0\]/, reason: `failed to open switch file ${file}` });
    await writeFile(file, Buffer.alloc(8192, 1));
    await refuses(config, directory, {
      code: "CORRUPT",
      message: /expected a ZFile or an LSMT layer/,
      reason: "failed to create overlaybd device",
    });
    await writeFile(file, BLOBS[0]);
    await truncate(file, 50_000);
    await refuses(config, directory, { code: "CORRUPT", message: /layer/, reason: `failed to open file as tar file ${file}` });
    await writeFile(file, load("lsmt/append/lz4-4k.commit"));
    await truncate(file, 50_000);
    await refuses(config, directory, { code: "CORRUPT", message: /layer/, reason: `failed to open switch file ${file}` });
    await rm(file);
    await mkdir(file);
    await refuses(config, directory, { code: "USAGE", message: /is not a regular file/, reason: `failed to open local file ${file}` });
  });

  test("remote blobs that are not there", async () => {
    await using directory = await TemporaryDirectory.create();
    await mkdir(directory.join("cache"));
    const { place, openRemote } = remote([]);
    const config = configOf({ repoBlobUrl: `${URL}`, lowers: [{ digest: LOWERS[0].digest }] });
    const failure = { code: "NOT_FOUND", message: /has no blob sha256:/ };
    const said = `/${URL}/${LOWERS[0].digest}: No such file or directory`;
    await refuses(config, directory, { ...failure, reason: `failed to open remote file ${said}` }, placesOf({ openRemote }));
    const cache = await openCache(directory);
    await refuses(
      config,
      directory,
      { ...failure, reason: `failed to open remote file as tar file ${said}` },
      placesOf({ openRemote, cache }),
    );
    assert.equal(place.open, 0);
  });

  test("too few and too many layers", async () => {
    await using directory = await TemporaryDirectory.create();
    const reason = "failed to create overlaybd device";
    await refuses(configOf({}), directory, { code: "USAGE", message: /^lowers: is empty/, reason });
    const lowers = Array.from({ length: 256 }, () => ({ file: "/nonexistent" }));
    await refuses(configOf({ lowers }), directory, {
      code: "UNSUPPORTED",
      message: /^lowers: has 256 layers, expected at most 255/,
      reason,
    });
  });

  test("a result file that cannot be written is told of", async () => {
    await using directory = await TemporaryDirectory.create();
    const config = await layOutImage("turbo-mkfs", directory);
    const places = placesOf();
    const { device } = await openImageConfig({ ...config, resultFile: directory.join("no", "such", "directory") }, places);
    await device.close();
    assert.match(places.notices.join(), /^resultFile: ENOENT.*was not written$/);
  });
});

describe("upper layers", () => {
  const SIZE = 64 * 2 ** 30;
  const uuid = "01234567-89ab-cdef-0123-456789abcdef";
  const forms: readonly (readonly [string, (data: DiskFile, index: DiskFile) => Promise<WritableLayer>])[] = [
    ["append-only", async (data, index) => await AppendLayer.create(data, index, { virtualSize: SIZE, uuid })],
    ["sparse", async (data) => await SparseLayer.create(data, { virtualSize: SIZE, uuid })],
    ["turboOCI", async (data, index) => await WarpUpper.create(data, index, { virtualSize: SIZE, uuid })],
  ];

  /** The recorded image with a new upper layer; `target` is a tar. */
  async function withUpper(
    directory: TemporaryDirectory,
    create: (data: DiskFile, index: DiskFile) => Promise<WritableLayer>,
  ): Promise<ImageConfig> {
    const config = await layOutImage("turbo-mkfs", directory);
    const [data, index, target] = ["data", "index", "target"].map((name) => directory.join(name));
    const files = [await DiskFile.create(data), await DiskFile.create(index)];
    const layer = await create(files[0], files[1]);
    await layer.close();
    for (const file of files) await file.close(); // a sparse layer has no use for the second
    await writeFile(target, "a tar");
    return { ...config, upper: { ...config.upper, data, index, ...(layer instanceof WarpUpper && { target }) } };
  }

  async function openWritable(config: ImageConfig): Promise<WritableImage> {
    const image = await openImageConfig(config, placesOf({ findDataExtents }));
    assert.ok(!image.isReadOnly);
    return image;
  }

  for (const [name, create] of forms) {
    test(`${name}, take what is written, and have it when they are opened again`, async () => {
      await using directory = await TemporaryDirectory.create();
      const config = { ...(await withUpper(directory, create)), resultFile: directory.join("result") };
      const { device, lowers } = await openWritable(config);
      assert.equal(await readFile(config.resultFile, "utf8"), "success");
      assert.equal(device.size, SIZE);
      assert.equal(lowers?.layerCount, 3);
      await assertTree(device, "stack-tree", { inodes: true });
      const [before, written] = [Buffer.from(await device.read(0, 12_000)), Buffer.alloc(5000, "written")];
      await device.write(3000, written);
      await device.discard(9216, 1024);
      await device.flush();
      await device.close();
      written.copy(before, 3000);
      before.fill(0, 9216, 10_240);
      const again = await openWritable(config);
      assert.ok(Buffer.from(await again.device.read(0, 12_000)).equals(before));
      await again.device.close();
    });
  }

  test("need no layers below", async () => {
    await using directory = await TemporaryDirectory.create();
    const config = { ...(await withUpper(directory, forms[0][1])), lowers: [] };
    const { device, lowers } = await openWritable(config);
    assert.equal(lowers, undefined);
    assert.ok(Buffer.from(await device.read(4096, 4096)).equals(Buffer.alloc(4096)));
    await device.close();
  });

  test("that cannot be opened are told of, and leave result files without a reason", async () => {
    await using directory = await TemporaryDirectory.create();
    const config = await withUpper(directory, forms[0][1]);
    const change = (parts: object): ImageConfig => ({ ...config, upper: { ...config.upper, ...parts } });
    const places = placesOf({ findDataExtents });
    await refuses(
      change({ index: directory.join("gone") }),
      directory,
      { code: "NOT_FOUND", message: /^upper: .*gone/, reason: "" },
      places,
    );
    await refuses(change({ data: config.lowers[0].file }), directory, { code: "CORRUPT", message: /^upper: /, reason: "" }, places);
    await using other = await TemporaryDirectory.create();
    const warp = await withUpper(other, forms[2][1]);
    await writeFile(warp.upper.target, recordedTarget(2)[0]);
    await refuses(
      warp,
      directory,
      { code: "CORRUPT", message: /^upper: .*compressed with gzip, but the layer has no index/, reason: "" },
      places,
    );
  });
});

describe("recorded reads", () => {
  test("are in a layer of their own, or in a file, which is empty where they are to be recorded", async () => {
    await using directory = await TemporaryDirectory.create();
    const config = await layOutImage("turbo-mkfs", directory);
    const traced = async (parts: Partial<ImageConfig>): Promise<OpenedImage["trace"]> => {
      const { device, trace } = await openReadOnly({ ...config, ...parts });
      assert.equal(device.layerCount, 3);
      await device.close();
      return trace;
    };
    const [path, dir] = [directory.join("trace"), directory.path];
    assert.equal(await traced({ recordTracePath: path }), undefined);
    await writeFile(path, "");
    assert.deepEqual(await traced({ recordTracePath: path }), { path, mode: "record" });
    const accelerated = { accelerationLayer: true, lowers: configOf({ lowers: [...config.lowers, { dir }] }).lowers };
    assert.equal(await traced(accelerated), undefined);
    await writeFile(path, "something");
    assert.deepEqual(await traced({ recordTracePath: path }), { path, mode: "replay" });
    assert.deepEqual(await traced(accelerated), { path, mode: "replay" });
    await rename(path, `${path}.moved`);
    assert.equal(await traced(accelerated), undefined);
    await refuses({ ...config, accelerationLayer: true, recordTracePath: path }, directory, {
      code: "USAGE",
      message: /^recordTracePath: is .* but accelerationLayer is true/,
      reason: "failed to create overlaybd device",
    });
  });
});
