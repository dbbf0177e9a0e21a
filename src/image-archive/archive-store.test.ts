import assert from "node:assert/strict";
import { createReadStream } from "node:fs";
import { mkdir, open, readdir, readFile, writeFile } from "node:fs/promises";
import { after, before, describe, it } from "node:test";
import { gzipSync, zstdCompressSync } from "node:zlib";
import { run } from "../../test/support/command.ts";
import { layerOf, writeImage } from "../../test/support/image-builder.ts";
import { tarArchive, type TarMember } from "../../test/support/tar-builder.ts";
import { TemporaryDirectory } from "../../test/support/temporary-directory.ts";
import type { ByteSource } from "../bytes/source.ts";
import { blobPath } from "../image-layout/layout-blobs.ts";
import { createLayout } from "../image-layout/layout-index.ts";
import { openLayoutStore } from "../image-layout/layout-store.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import { digestOf, hexOf } from "../oci/digest.ts";
import { describeImageStore } from "../oci/image-store.contract.ts";
import type { CallOptions, ImageStore, PutManifestOptions } from "../oci/image-store.ts";
import { encodeJson } from "../oci/json.ts";
import { parseManifest } from "../oci/manifest.ts";
import { OCI_INDEX, OCI_MANIFEST } from "../oci/media-types.ts";
import { openArchiveFile, openArchiveStream, type ArchiveOptions } from "./archive-store.ts";

let scratch: TemporaryDirectory;
let stores = 0;

before(async () => {
  scratch = await TemporaryDirectory.create();
  await mkdir(scratch.join("tmp"));
});
after(async () => scratch[Symbol.asyncDispose]());

const options = (more: Partial<ArchiveOptions> = {}): ArchiveOptions => ({ temporaryDirectory: scratch.join("tmp"), ...more });

/** Puts into a layout, reads from a tar of it that GNU tar has made. */
class ArchivedLayout implements ImageStore {
  readonly name = "archived";
  readonly directory: string;
  readonly #layout: ImageStore;
  #archive: Promise<ImageStore> | undefined;

  constructor(directory: string, layout: ImageStore) {
    this.directory = directory;
    this.#layout = layout;
  }

  async #read(): Promise<ImageStore> {
    const file = `${this.directory}.tar`;
    this.#archive ??= run("tar", ["-C", this.directory, "-cf", file, "."]).then(async () => await openArchiveFile(file, options()));
    return await this.#archive;
  }

  async #put<T>(result: Promise<T>): Promise<T> {
    try {
      return await result;
    } finally {
      await this.changed();
    }
  }

  async changed(): Promise<void> {
    await (await this.#archive?.catch(() => undefined))?.close();
    this.#archive = undefined;
  }

  resolve: ImageStore["resolve"] = async (target) => await (await this.#read()).resolve(target);
  manifest: ImageStore["manifest"] = async (descriptor) => await (await this.#read()).manifest(descriptor);
  blob: ImageStore["blob"] = async (descriptor) => await (await this.#read()).blob(descriptor);
  blobSource: ImageStore["blobSource"] = async (descriptor) => await (await this.#read()).blobSource(descriptor);
  blobSize: ImageStore["blobSize"] = async (digest) => await (await this.#read()).blobSize(digest);
  hasBlob: ImageStore["hasBlob"] = async (digest, size) => await (await this.#read()).hasBlob(digest, size);
  referrers: ImageStore["referrers"] = async (digest, type) => await (await this.#read()).referrers(digest, type);

  async *blobStream(descriptor: Descriptor, call?: CallOptions): AsyncGenerator<Uint8Array> {
    yield* (await this.#read()).blobStream(descriptor, call);
  }

  putBlob = async (descriptor: Descriptor, content: ByteSource, call?: CallOptions): Promise<"uploaded" | "exists"> =>
    await this.#put(this.#layout.putBlob(descriptor, content, call));
  putUnhashed: ImageStore["putUnhashed"] = async (content, call) => await this.#put(this.#layout.putUnhashed(content, call));
  putManifest = async (bytes: Uint8Array, mediaType: string, call: PutManifestOptions): Promise<Descriptor> =>
    await this.#put(this.#layout.putManifest(bytes, mediaType, call));
  mountBlob: ImageStore["mountBlob"] = async (descriptor, from, call) => await this.#layout.mountBlob(descriptor, from, call);

  async close(): Promise<void> {
    await this.changed();
  }
}

describeImageStore("an archive that is read", () => ({
  open: async () => {
    const directory = scratch.join(`layout-${stores++}`);
    await mkdir(directory);
    await createLayout(directory);
    return new ArchivedLayout(directory, await openLayoutStore(directory));
  },
  damage: async (store, digest) => {
    assert.ok(store instanceof ArchivedLayout);
    await using file = await open(blobPath(store.directory, digest), "r+");
    await file.write(Buffer.from([0xff, 0xee, 0xdd]), 0, 3, 5);
    await store.changed();
  },
}));

const LAYERS = ["one", "two"].map((name) => tarArchive([{ name, data: name }]));
const CONFIG = JSON.stringify({
  architecture: "amd64",
  os: "linux",
  rootfs: { type: "layers", diff_ids: LAYERS.map((layer) => digestOf(layer)) },
});
const manifestJson = (...images: object[]): TarMember => ({ name: "manifest.json", data: JSON.stringify(images) });
const IMAGE = { Config: "config.json", RepoTags: ["app:v1"], Layers: ["1/layer.tar", "2/layer.tar"] };
const MEMBERS: readonly TarMember[] = [
  { name: "1/" },
  { name: "1/layer.tar", data: LAYERS[0] },
  { name: "2/layer.tar", data: LAYERS[1] },
  { name: "config.json", data: CONFIG },
];

async function write(members: readonly TarMember[]): Promise<string> {
  const path = scratch.join(`${stores++}.tar`);
  await writeFile(path, tarArchive(members));
  return path;
}

async function opened<T>(
  members: readonly TarMember[],
  use: (store: ImageStore) => Promise<T>,
  more: Partial<ArchiveOptions> = {},
): Promise<T> {
  const store = await openArchiveFile(await write(members), options(more));
  try {
    return await use(store);
  } finally {
    await store.close();
  }
}

async function textOf(store: ImageStore, descriptor: Descriptor): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of store.blobStream(descriptor)) chunks.push(Buffer.from(chunk));
  return Buffer.concat(chunks);
}

describe("an archive of docker save", () => {
  it("gets a manifest with the digests of what is in it", async () => {
    await opened([...MEMBERS, manifestJson(IMAGE)], async (store) => {
      for (const target of [{}, { tag: "v1" }]) {
        const { descriptor, bytes } = await store.resolve(target);
        const { config, layers } = parseManifest(bytes, descriptor.mediaType, "manifest");
        assert.equal(Buffer.from(await store.blob(config)).toString(), CONFIG);
        assert.deepEqual(
          layers.map(({ mediaType, digest, size }) => [mediaType, digest, size]),
          LAYERS.map((layer) => ["application/vnd.docker.image.rootfs.diff.tar", digestOf(layer), layer.length]),
        );
        assert.deepEqual(
          await Promise.all(layers.map(async (layer) => await textOf(store, layer))),
          LAYERS.map((layer) => Buffer.from(layer)),
        );
        assert.deepEqual(await store.resolve({ digest: descriptor.digest }), { descriptor, bytes });
      }
    });
  });

  it("may have layers that are links, compressed, or the same", async () => {
    const members: TarMember[] = [
      { name: "all/gzip", data: gzipSync(LAYERS[0]) },
      { name: "all/zstd", data: zstdCompressSync(LAYERS[1]) },
      { name: "1/layer.tar", type: "symlink", link: "../all/gzip" },
      { name: "2/layer.tar", type: "hardlink", link: "all/zstd" },
      { name: "config.json", data: CONFIG },
      { name: "repositories", data: "{}" },
      manifestJson({ ...IMAGE, Layers: ["1/layer.tar", "./2/layer.tar", "all/gzip"] }),
    ];
    await opened(members, async (store) => {
      const { descriptor, bytes } = await store.resolve({});
      const { layers } = parseManifest(bytes, descriptor.mediaType, "manifest");
      assert.deepEqual(
        layers.map(({ mediaType }) => mediaType.split(".").at(-1)),
        ["gzip", "zstd", "gzip"],
      );
      assert.equal(layers[0].digest, layers[2].digest);
      for (const layer of layers) assert.equal(digestOf(await textOf(store, layer)), layer.digest);
    });
  });

  it("of several images gives the one that is named, in docker's short or long form", async () => {
    const images = [
      IMAGE,
      { ...IMAGE, RepoTags: ["docker.io/library/other:v1", "localhost:5000/x/y:v2"], Layers: ["2/layer.tar"] },
      { ...IMAGE, RepoTags: null, Layers: null },
    ];
    const members = [...MEMBERS, manifestJson(...images)];
    const layersOf = async (tag: string | undefined, repository?: string): Promise<number> =>
      await opened(
        members,
        async (store) => {
          const { descriptor, bytes } = await store.resolve({ tag });
          return parseManifest(bytes, descriptor.mediaType, "manifest").layers.length;
        },
        { repository },
      );
    assert.equal(await layersOf("v1", "app"), 2);
    assert.equal(await layersOf("v1", "docker.io/library/app"), 2);
    assert.equal(await layersOf("v1", "other"), 1);
    assert.equal(await layersOf("v2", "localhost:5000/x/y"), 1);
    assert.equal(await layersOf("v2"), 1);
    await assert.rejects(layersOf("v1"), { code: "USAGE", message: /several images called "v1", name one of them: "app:v1", "docker\.io/ });
    await assert.rejects(layersOf(undefined), { code: "USAGE", message: /holds several images, .* "one without a name"/ });
    await assert.rejects(layersOf("v3", "app"), { code: "NOT_FOUND", message: /no image "app:v3"; it has "app:v1"/ });
  });

  for (const [what, manifest, code, message] of [
    ["names a config that is missing", { ...IMAGE, Config: "none.json" }, "CORRUPT", /names "none\.json", which is not in the archive/],
    ["names a layer outside", { ...IMAGE, Layers: ["../../../../etc/passwd"] }, "CORRUPT", /etc\/passwd", which is not in the archive/],
    ["names a directory as a layer", { ...IMAGE, Layers: ["1"] }, "CORRUPT", /is a directory, expected a file/],
    ["has a layer that is a number", { ...IMAGE, Layers: [5] }, "CORRUPT", /image 0: Layers 0 is 5, expected a string/],
    ["has no config", { ...IMAGE, Config: undefined }, "CORRUPT", /image 0: Config is missing/],
    ["has a string for tags", { ...IMAGE, RepoTags: "app:v1" }, "CORRUPT", /RepoTags is a string, expected an array/],
    ["has a string for an image", "image", "CORRUPT", /image 0: is a string, expected an object/],
  ] as const) {
    it(`is refused when its manifest ${what}`, async () => {
      const members = [...MEMBERS, { name: "manifest.json", data: JSON.stringify([manifest]) }];
      await assert.rejects(
        opened(members, async (store) => await store.resolve({})),
        { code, message },
      );
    });
  }

  for (const [what, data, message] of [
    ["no JSON", "[{", /manifest\.json: not valid UTF-8 JSON/],
    ["no UTF-8", Buffer.from([0x5b, 0xff, 0x5d]), /not valid UTF-8 JSON/],
    ["no array", "{}", /is no array/],
    ["too large", Buffer.alloc((4 << 20) + 1, " "), /4194305 bytes, expected at most 4194304/],
  ] as const) {
    it(`is refused when its manifest.json is ${what}`, async () => {
      await assert.rejects(
        opened([...MEMBERS, { name: "manifest.json", data }], async () => {}),
        { code: "CORRUPT", message },
      );
    });
  }

  it("is refused when its config is huge, and has no image when it lists none", async () => {
    const huge = [{ name: "config.json", data: Buffer.alloc((8 << 20) + 1) }, manifestJson({ Config: "config.json" })];
    await assert.rejects(
      opened(huge, async (store) => await store.resolve({})),
      { code: "CORRUPT", message: /expected at most 8388608/ },
    );
    await assert.rejects(
      opened([manifestJson()], async (store) => await store.resolve({})),
      { code: "NOT_FOUND", message: /no image at all/ },
    );
  });
});

describe("an archive", () => {
  const layoutMembers = async (tag: string): Promise<TarMember[]> => {
    const directory = scratch.join(`layout-${stores++}`);
    await writeImage(directory, tag, { layers: [layerOf([{ name: tag, data: "x" }])] });
    const names = await readdir(directory, { recursive: true, withFileTypes: true });
    return await Promise.all(
      names
        .filter((name) => name.isFile())
        .map(async (name) => {
          const path = `${name.parentPath}/${name.name}`;
          return { name: path.slice(directory.length + 1), data: await readFile(path) };
        }),
    );
  };

  it("with a layout and a manifest.json is read as a layout, under either name", async () => {
    const members = [...(await layoutMembers("v1")), ...MEMBERS, manifestJson(IMAGE)];
    for (const format of ["oci", "docker", undefined] as const) {
      const { descriptor } = await opened(members, async (store) => await store.resolve({ tag: "v1" }), { format });
      assert.equal(descriptor.mediaType, "application/vnd.oci.image.manifest.v1+json");
    }
  });

  it("of the other kind is refused with the name to use", async () => {
    await assert.rejects(
      opened(await layoutMembers("v1"), async () => {}, { format: "docker" }),
      {
        code: "USAGE",
        message: /is an OCI archive, name it oci-archive:/,
      },
    );
    await assert.rejects(
      opened([...MEMBERS, manifestJson(IMAGE)], async () => {}, { format: "oci" }),
      {
        code: "USAGE",
        message: /name it docker-archive:/,
      },
    );
  });

  for (const [what, members, code, message] of [
    ["something else", [{ name: "README", data: "hello" }], "CORRUPT", /none of its 1 members is an oci-layout or a manifest\.json/],
    ["an ancient docker's", [{ name: "repositories", data: "{}" }], "UNSUPPORTED", /before 1\.10/],
    [
      "a layout of another version",
      [
        { name: "oci-layout", data: '{"imageLayoutVersion":"9"}' },
        { name: "index.json", data: "{}" },
      ],
      "UNSUPPORTED",
      /layout version is "9"/,
    ],
    [
      "one with a broken index",
      [
        { name: "oci-layout", data: '{"imageLayoutVersion":"1.0.0"}' },
        { name: "index.json", data: "{}" },
      ],
      "CORRUPT",
      /index\.json/,
    ],
    [
      "one with two indexes",
      [
        { name: "oci-layout", data: '{"imageLayoutVersion":"1.0.0"}' },
        { name: "index.json", data: "{}" },
        { name: "./index.json", data: "{}" },
      ],
      "CORRUPT",
      /more than once/,
    ],
    [
      "one with a huge index",
      [
        { name: "oci-layout", data: '{"imageLayoutVersion":"1.0.0"}' },
        { name: "index.json", data: Buffer.alloc((4 << 20) + 1) },
      ],
      "CORRUPT",
      /at most 4194304/,
    ],
  ] as const) {
    it(`that is ${what} is refused`, async () => {
      await assert.rejects(
        opened(members, async () => {}),
        { code, message },
      );
    });
  }

  it("is found by a whole name in its index, as skopeo, podman and docker write it", async () => {
    const members = await layoutMembers("v1");
    const renamed = (annotations: object): TarMember[] =>
      members.map((member) => {
        if (member.name !== "index.json") return member;
        const index = JSON.parse(String(member.data)) as { manifests: [object] };
        return { ...member, data: JSON.stringify({ ...index, manifests: [{ ...index.manifests[0], annotations }] }) };
      });
    for (const annotations of [
      { "org.opencontainers.image.ref.name": "docker.io/library/app:v1" },
      { "org.opencontainers.image.ref.name": "v1", "io.containerd.image.name": "docker.io/library/app:v1" },
    ]) {
      for (const [repository, tag] of [
        [undefined, "v1"],
        ["app", "v1"],
        ["docker.io/library/app", "v1"],
        [undefined, undefined],
      ]) {
        await opened(renamed(annotations), async (store) => await store.resolve({ tag }), { repository });
      }
      await assert.rejects(
        opened(renamed(annotations), async (store) => await store.resolve({ tag: "v1" }), { repository: "other" }),
        {
          code: "NOT_FOUND",
        },
      );
    }
  });

  it("with one image of an index, as docker saves what it has pulled, is that image unless the index is asked for", async () => {
    const members = await layoutMembers("v1");
    const { manifests } = JSON.parse(String(members.find(({ name }) => name === "index.json")?.data)) as { manifests: Descriptor[] };
    const [{ annotations: _, ...present }] = manifests;
    const absent = { ...present, digest: digestOf(Buffer.from("absent")) };
    const attestation = { ...absent, annotations: { "vnd.docker.reference.type": "attestation-manifest" } };
    const top = async (...images: Descriptor[]): Promise<string> => {
      const bytes = encodeJson({ schemaVersion: 2, mediaType: OCI_INDEX, manifests: images });
      const descriptor = { mediaType: OCI_INDEX, digest: digestOf(bytes), size: bytes.length };
      const others = members.filter(({ name }) => name !== "index.json");
      const index = { name: "index.json", data: encodeJson({ schemaVersion: 2, manifests: [descriptor] }) };
      const blob = { name: `blobs/sha256/${hexOf(descriptor.digest)}`, data: bytes };
      return await opened([...others, index, blob], async (store) => {
        assert.equal((await store.resolve({ digest: descriptor.digest })).descriptor.digest, descriptor.digest);
        return (await store.resolve({})).descriptor.mediaType;
      });
    };
    assert.equal(await top(absent, present, attestation), OCI_MANIFEST);
    assert.equal(await top(present, attestation), OCI_INDEX);
    assert.equal(await top(absent, { ...absent, size: 5 }), OCI_INDEX);
    assert.equal(await top(present, present, absent), OCI_INDEX);
  });

  it("cannot be changed", async () => {
    await opened([...MEMBERS, manifestJson(IMAGE)], async (store) => {
      const { descriptor, bytes } = await store.resolve({});
      const refused = { code: "USAGE", message: /nothing can be added to an archive/ };
      await assert.rejects(store.putManifest(bytes, descriptor.mediaType, {}), refused);
      await assert.rejects(store.mountBlob(descriptor, "x"), refused);
    });
  });

  it("that is missing or a directory is said to be", async () => {
    await assert.rejects(openArchiveFile(scratch.join("none.tar"), options()), { code: "NOT_FOUND" });
    await assert.rejects(openArchiveFile(scratch.path, options()), { code: "USAGE", message: /is a directory, .* oci:DIRECTORY/ });
    await writeFile(scratch.join("empty.tar"), "");
    await assert.rejects(openArchiveFile(scratch.join("empty.tar"), options()), { code: "CORRUPT", message: /is empty/ });
  });

  it("may be compressed, or a stream, and leaves no temporary file", async () => {
    const members = [...MEMBERS, manifestJson(IMAGE)];
    const path = await write(members);
    const { descriptor } = await opened(members, async (store) => await store.resolve({}));
    const bytes = await readFile(path);
    await writeFile(`${path}.gz`, gzipSync(bytes));
    await writeFile(`${path}.zst`, zstdCompressSync(bytes));
    await run("mkfifo", [`${path}.fifo`]);
    const [, fifo] = await Promise.all([writeFile(`${path}.fifo`, bytes), openArchiveFile(`${path}.fifo`, options())]);
    const all = [
      fifo,
      await openArchiveFile(`${path}.gz`, options()),
      await openArchiveFile(`${path}.zst`, options()),
      await openArchiveStream(createReadStream(path), "standard input", options()),
      await openArchiveStream(createReadStream(`${path}.zst`, { highWaterMark: 3 }), "standard input", options()),
    ];
    for (const store of all) {
      const found = await store.resolve({});
      assert.deepEqual(found.descriptor, descriptor);
      const { config } = parseManifest(found.bytes, descriptor.mediaType, "manifest");
      assert.equal(Buffer.from(await store.blob(config)).toString(), CONFIG);
      assert.deepEqual(await readdir(scratch.join("tmp")), [], "the file has no name even while it is used");
      await store.close();
      await store.close();
      await assert.rejects(store.blob(config));
    }
  });
});
