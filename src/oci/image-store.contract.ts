import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { describe, it } from "node:test";
import { MemorySource, type ByteSource } from "../bytes/source.ts";
import { digestOf, type Digest } from "./digest.ts";
import type { Descriptor } from "./descriptor.ts";
import type { ImageStore } from "./image-store.ts";
import { encodeJson } from "./json.ts";
import { DOCKER_MANIFEST, OCI_CONFIG, OCI_INDEX, OCI_LAYER_TAR, OCI_MANIFEST } from "./media-types.ts";

/** Something to test a store with. */
export interface StoreFixture {
  /** A new store on an empty repository. */
  open(): Promise<ImageStore>;
  /** Changes a byte of a stored blob behind the store's back. */
  damage(store: ImageStore, digest: Digest): Promise<void>;
}

/** What every `ImageStore` must do. */
export function describeImageStore(kind: string, fixture: () => StoreFixture): void {
  const withStore = (test: (store: ImageStore) => Promise<void>) => async () => {
    const store = await fixture().open();
    try {
      await test(store);
    } finally {
      await store.close();
    }
  };

  describe(`an image store in ${kind}`, () => {
    it(
      "gives back a blob by every way of reading",
      withStore(async (store) => {
        const { bytes, descriptor } = blobOf(randomBytes(300_001));
        assert.equal(await store.hasBlob(descriptor.digest), false);
        assert.equal(await store.blobSize(descriptor.digest), undefined);
        assert.equal(await store.putBlob(descriptor, new MemorySource(bytes)), "uploaded");
        assert.equal(await store.blobSize(descriptor.digest), bytes.length);
        assert.equal(await store.hasBlob(descriptor.digest), true);
        assert.equal(await store.hasBlob(descriptor.digest, bytes.length), true);
        assert.equal(await store.hasBlob(descriptor.digest, bytes.length + 1), false);
        assert.deepEqual(Buffer.from(await store.blob(descriptor)), bytes);
        assert.deepEqual(await readAll(store.blobStream(descriptor)), bytes);
        const source = await store.blobSource(descriptor);
        assert.equal(source.size, bytes.length);
        for (const [offset, length] of [
          [0, 0],
          [0, 1],
          [0, bytes.length],
          [1, 4096],
          [299_000, 1001],
          [300_001, 0],
        ]) {
          assert.deepEqual(Buffer.from(await source.read(offset, length)), bytes.subarray(offset, offset + length), `${offset}+${length}`);
        }
        await assert.rejects(source.read(300_000, 2), { code: "CORRUPT" });
        await source.close();
      }),
    );

    it(
      "reports a blob that is there already and takes an empty one",
      withStore(async (store) => {
        const { bytes, descriptor } = blobOf(Buffer.alloc(0));
        assert.equal(await store.putBlob(descriptor, new MemorySource(bytes)), "uploaded");
        assert.equal(await store.putBlob(descriptor, new MemorySource(bytes)), "exists");
        assert.deepEqual(await readAll(store.blobStream(descriptor)), bytes);
      }),
    );

    it(
      "refuses content that contradicts its descriptor and keeps none of it",
      withStore(async (store) => {
        const { bytes, descriptor } = blobOf(randomBytes(2_500_000));
        const wrong = Buffer.from(bytes);
        wrong[7] ^= 1;
        await assert.rejects(store.putBlob(descriptor, new MemorySource(wrong)), { code: "CORRUPT" });
        await assert.rejects(store.putBlob(descriptor, new MemorySource(bytes.subarray(1))), { code: "CORRUPT" });
        assert.equal(await store.hasBlob(descriptor.digest), false);
        assert.equal(await store.putBlob(descriptor, new MemorySource(bytes)), "uploaded");
      }),
    );

    it(
      "stores what nobody has hashed out of one read of it",
      withStore(async (store) => {
        const { bytes, descriptor } = blobOf(randomBytes(2_500_000));
        const content = new MemorySource(bytes);
        let bytesRead = 0;
        const observed: ByteSource = {
          name: "content",
          size: content.size,
          read: async (offset, length) => {
            assert.equal(offset, bytesRead);
            bytesRead += length;
            return await content.read(offset, length);
          },
          close: async () => {},
        };
        assert.deepEqual(await store.putUnhashed(observed, { identity: "content" }), { digest: descriptor.digest, result: "uploaded" });
        assert.equal(bytesRead, bytes.length);
        assert.deepEqual(await readAll(store.blobStream(descriptor)), bytes);
        assert.equal(await store.putBlob(descriptor, content), "exists");
      }),
    );

    it(
      "passes on the failure of a source that cannot be read",
      withStore(async (store) => {
        const { bytes, descriptor } = blobOf(randomBytes(1_500_000));
        const failure = new Error("disk on fire");
        const source = new MemorySource(bytes);
        source.read = async () => Promise.reject(failure);
        const isPassedOn = (error: Error): boolean => error === failure || error.cause === failure;
        await assert.rejects(store.putBlob(descriptor, source), isPassedOn);
        await assert.rejects(store.putUnhashed(source, { identity: "content" }), isPassedOn);
        assert.equal(await store.hasBlob(descriptor.digest), false);
      }),
    );

    it(
      "finds damage in what it stores",
      withStore(async (store) => {
        const { bytes, descriptor } = blobOf(randomBytes(70_000));
        await store.putBlob(descriptor, new MemorySource(bytes));
        await fixture().damage(store, descriptor.digest);
        await assert.rejects(readAll(store.blobStream(descriptor)), { code: "CORRUPT" });
        await assert.rejects(store.blob(descriptor), { code: "CORRUPT" });
      }),
    );

    it(
      "refuses a descriptor of the wrong size",
      withStore(async (store) => {
        const { bytes, descriptor } = blobOf(randomBytes(5000));
        await store.putBlob(descriptor, new MemorySource(bytes));
        for (const size of [4999, 5001]) {
          const wrong = { ...descriptor, size };
          await assert.rejects(store.blob(wrong), { code: "CORRUPT" });
          await assert.rejects(readAll(store.blobStream(wrong)), { code: "CORRUPT" });
        }
      }),
    );

    it(
      "says NOT_FOUND for what is not there",
      withStore(async (store) => {
        const { descriptor } = blobOf(randomBytes(10));
        await assert.rejects(store.resolve({ tag: "none" }), { code: "NOT_FOUND" });
        await assert.rejects(store.resolve({ digest: descriptor.digest }), { code: "NOT_FOUND" });
        await assert.rejects(store.manifest(descriptor), { code: "NOT_FOUND" });
        await assert.rejects(store.blob(descriptor), { code: "NOT_FOUND" });
        await assert.rejects(readAll(store.blobStream(descriptor)), { code: "NOT_FOUND" });
      }),
    );

    it(
      "moves a tag from one image to another and keeps both reachable by digest",
      withStore(async (store) => {
        const first = await putImage(store, "one", OCI_MANIFEST, "v1");
        const other = await putImage(store, "two", OCI_MANIFEST, "v2");
        const second = await putImage(store, "three", OCI_MANIFEST, "v1");
        assert.deepEqual((await store.resolve({ tag: "v1" })).descriptor, second.descriptor);
        assert.deepEqual((await store.resolve({ tag: "v2" })).descriptor, other.descriptor);
        const old = await store.resolve({ tag: "v1", digest: first.descriptor.digest });
        assert.deepEqual([old.descriptor, Buffer.from(old.bytes)], [first.descriptor, Buffer.from(first.bytes)]);
        assert.deepEqual(Buffer.from(await store.manifest(first.descriptor)), Buffer.from(first.bytes));
      }),
    );

    it(
      "mounts a blob that is there already, and no other",
      withStore(async (store) => {
        const { bytes, descriptor } = blobOf(randomBytes(5000));
        assert.equal(await store.mountBlob(descriptor, "another/repository"), false);
        assert.equal(await store.hasBlob(descriptor.digest), false);
        await store.putBlob(descriptor, new MemorySource(bytes));
        assert.equal(await store.mountBlob(descriptor, "another/repository"), true);
        const signal = AbortSignal.abort(new Error("changed my mind"));
        await assert.rejects(store.mountBlob(descriptor, "another/repository", { signal }), { message: "changed my mind" });
      }),
    );

    it(
      "stores no manifest when the signal is aborted",
      withStore(async (store) => {
        const bytes = encodeJson({ schemaVersion: 2, mediaType: OCI_INDEX, manifests: [] });
        const signal = AbortSignal.abort(new Error("changed my mind"));
        await assert.rejects(store.putManifest(bytes, OCI_INDEX, { tag: "v1", signal }), { message: "changed my mind" });
        await assert.rejects(store.resolve({ tag: "v1" }), { code: "NOT_FOUND" });
        await assert.rejects(store.resolve({ digest: digestOf(bytes) }), { code: "NOT_FOUND" });
      }),
    );

    it(
      "refuses tags that are none before anything is stored",
      withStore(async (store) => {
        const bytes = encodeJson({ schemaVersion: 2, mediaType: OCI_MANIFEST, layers: [] });
        for (const tag of ["", "..", "a/b", "../../x/manifests/v1", "a b", "-x"]) {
          await assert.rejects(store.putManifest(bytes, OCI_MANIFEST, { tag }), { code: "USAGE" });
        }
        await assert.rejects(store.resolve({ digest: digestOf(bytes) }), { code: "NOT_FOUND" });
      }),
    );

    it(
      "holds an index whose children have no tags",
      withStore(async (store) => {
        const child = await putImage(store, "child", DOCKER_MANIFEST, undefined);
        const index = encodeJson({ schemaVersion: 2, mediaType: OCI_INDEX, manifests: [child.descriptor] });
        const stored = await store.putManifest(index, OCI_INDEX, { tag: "both" });
        assert.deepEqual((await store.resolve({ tag: "both" })).descriptor, stored);
        assert.deepEqual((await store.resolve({ digest: child.descriptor.digest })).descriptor, child.descriptor);
      }),
    );

    it(
      "lists what names an image as its subject, with type and annotations, once, and by type",
      withStore(async (store) => {
        const image = await putImage(store, "subject", OCI_MANIFEST, "v1");
        assert.deepEqual(await store.referrers(image.descriptor.digest), []);
        const subject = image.descriptor;
        const annotations = { "org.example.at": "1" };
        const first = await putImage(store, "first", OCI_MANIFEST, undefined, { artifactType: "a/one", subject, annotations });
        const second = await putImage(store, "second", OCI_MANIFEST, "signed", { subject });
        const index = encodeJson({ schemaVersion: 2, mediaType: OCI_INDEX, artifactType: "a/one", subject, manifests: [first.descriptor] });
        const third = await store.putManifest(index, OCI_INDEX, { tag: undefined });
        await putImage(store, "first", OCI_MANIFEST, undefined, { artifactType: "a/one", subject, annotations });
        const byDigest = (all: readonly Descriptor[]): Descriptor[] => all.toSorted((a, b) => (a.digest < b.digest ? -1 : 1));
        const expected = [
          { ...first.descriptor, artifactType: "a/one", annotations },
          { ...second.descriptor, artifactType: OCI_CONFIG },
          { ...third, artifactType: "a/one" },
        ];
        assert.deepEqual(byDigest(await store.referrers(subject.digest)), byDigest(expected));
        assert.deepEqual(byDigest(await store.referrers(subject.digest, "a/one")), byDigest([expected[0], expected[2]]));
        assert.deepEqual(await store.referrers(subject.digest, "a/none"), []);
        assert.deepEqual((await store.resolve({ tag: "v1" })).descriptor, subject);
      }),
    );

    it(
      "loses no referrer when several are put at once, also for a subject that is not there",
      withStore(async (store) => {
        const subject = { mediaType: OCI_MANIFEST, digest: digestOf(Buffer.from("later")), size: 5 };
        await Promise.all(
          Array.from({ length: 6 }, async (_, at) => await putImage(store, `at ${at}`, OCI_MANIFEST, undefined, { subject })),
        );
        assert.equal((await store.referrers(subject.digest)).length, 6);
      }),
    );

    it(
      "refuses a subject that is none before anything is stored",
      withStore(async (store) => {
        const bytes = encodeJson({ schemaVersion: 2, mediaType: OCI_INDEX, manifests: [], subject: { digest: "sha256:../x" } });
        await assert.rejects(store.putManifest(bytes, OCI_INDEX, { tag: "v1" }), { code: "CORRUPT" });
        await assert.rejects(store.resolve({ tag: "v1" }), { code: "NOT_FOUND" });
      }),
    );

    it(
      "stops a stream when its signal is aborted or its reader leaves",
      withStore(async (store) => {
        const { bytes, descriptor } = blobOf(randomBytes(3_000_000));
        await store.putBlob(descriptor, new MemorySource(bytes));
        for await (const chunk of store.blobStream(descriptor)) {
          assert.ok(chunk.length > 0);
          break;
        }
        const controller = new AbortController();
        const reason = new Error("changed my mind");
        const reading = async (): Promise<void> => {
          for await (const _ of store.blobStream(descriptor, { signal: controller.signal })) controller.abort(reason);
        };
        await assert.rejects(reading(), (error) => error === reason);
        assert.deepEqual(await readAll(store.blobStream(descriptor)), bytes);
      }),
    );
  });
}

function blobOf(bytes: Buffer): { bytes: Buffer; descriptor: Descriptor } {
  return { bytes, descriptor: { mediaType: OCI_LAYER_TAR, digest: digestOf(bytes), size: bytes.length } };
}

async function putImage(
  store: ImageStore,
  author: string,
  mediaType: string,
  tag: string | undefined,
  more: object = {},
): Promise<{ bytes: Uint8Array; descriptor: Descriptor }> {
  const config = blobOf(Buffer.from(encodeJson({ author, architecture: "amd64", os: "linux", rootfs: { type: "layers", diff_ids: [] } })));
  await store.putBlob(config.descriptor, new MemorySource(config.bytes));
  const bytes = encodeJson({ schemaVersion: 2, mediaType, config: { ...config.descriptor, mediaType: OCI_CONFIG }, layers: [], ...more });
  return { bytes, descriptor: await store.putManifest(bytes, mediaType, { tag }) };
}

async function readAll(stream: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of stream) chunks.push(Buffer.from(chunk));
  return Buffer.concat(chunks);
}
