import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { startDockerRegistry, type DockerRegistry } from "../../test/support/docker-registry.ts";
import { lazylayer } from "../../test/support/programs.ts";
import { unusedPort } from "../../test/support/server-process.ts";
import { TemporaryDirectory } from "../../test/support/temporary-directory.ts";
import { MemorySource } from "../bytes/source.ts";
import { conversion, LAYER, MANIFEST, named } from "../dedup/conversion-store.contract.ts";
import type { ConversionStore } from "../dedup/conversion-store.ts";
import { openConversionStore } from "../dedup/open-store.ts";
import { digestOf } from "../oci/digest.ts";
import { encodeJson } from "../oci/json.ts";
import { OCI_CONFIG, OCI_LAYER_TAR, OCI_MANIFEST } from "../oci/media-types.ts";
import { parseReference } from "../oci/reference.ts";
import { openRegistryStore } from "../registry/registry-store.ts";

let directory: TemporaryDirectory;
let registry: DockerRegistry;
before(async () => {
  directory = await TemporaryDirectory.create();
  registry = await startDockerRegistry();
});
after(async () => {
  await registry.stop();
  await directory[Symbol.asyncDispose]();
});

async function openStore(file: string): Promise<ConversionStore> {
  const store = await openConversionStore({ type: "sqlite", address: directory.join(file), directory: "" });
  assert.ok(store);
  return store;
}

/** Puts a layer and a manifest into a repository and gives rows for them. */
async function push(repository: string) {
  const reference = parseReference(`${registry.host}/${repository}:tag`);
  assert.equal(reference.kind, "registry");
  const images = openRegistryStore(reference, { plainHttp: true });
  try {
    const blob = Buffer.from(`layer of ${repository}`);
    const config = encodeJson({ architecture: "amd64", os: "linux", rootfs: { type: "layers", diff_ids: [] } });
    const [layer, configuration] = [blob, config].map((bytes) => ({
      mediaType: OCI_LAYER_TAR,
      digest: digestOf(bytes),
      size: bytes.length,
    }));
    await images.putBlob(layer, new MemorySource(blob));
    await images.putBlob(configuration, new MemorySource(config));
    const document = { schemaVersion: 2, mediaType: OCI_MANIFEST, config: { ...configuration, mediaType: OCI_CONFIG }, layers: [layer] };
    const manifest = await images.putManifest(encodeJson(document), OCI_MANIFEST, { tag: "tag" });
    const place = { host: registry.host, repository };
    return [
      conversion({ ...place, digest: layer.digest, size: layer.size }),
      conversion({ ...place, source: MANIFEST, digest: manifest.digest, size: manifest.size }),
    ];
  } finally {
    await images.close();
  }
}

describe("lazylayer db", () => {
  it("gc removes rows of what is gone, keeps what it could not ask about, and says so", async () => {
    const present = await push("team/app");
    const place = { host: registry.host, repository: "team/app" };
    const gone = [
      conversion({ ...place, fingerprint: "other", digest: named("gone") }),
      conversion({ ...place, source: MANIFEST, fingerprint: "other", digest: named("gone too") }),
      // The blob is there, but not of that size.
      conversion({ ...place, fingerprint: "third", digest: present[0].digest, size: present[0].size + 1 }),
      conversion({ host: registry.host, repository: "no/such", digest: present[0].digest, size: present[0].size }),
    ];
    const unreachable = conversion({ host: `127.0.0.1:${await unusedPort()}`, repository: "team/app" });
    const store = await openStore("gc.sqlite");
    for (const row of [...present, ...gone, unreachable]) await store.insert(row);
    const options = ["--db-type", "sqlite", "--db-str", directory.join("gc.sqlite")];

    const dry = await lazylayer(["db", "gc", "--dry-run", ...options]);
    assert.equal(dry.stdout.toString().trimEnd().split("\n").length, gone.length);
    assert.match(dry.stderr, /would remove 4 rows, kept 2; 1 repositories could not be asked/);
    assert.equal((await store.list(place)).length, 5);

    const real = await lazylayer(["db", "gc", ...options]);
    assert.equal(real.status, 1);
    assert.match(real.stderr, /warning: 127\.0\.0\.1:\d+\/team\/app: rows kept: /);
    assert.equal(real.stdout.toString(), dry.stdout.toString());
    assert.deepEqual(await store.list(place), present);
    assert.deepEqual((await store.repositories()).length, 2);

    await store.remove(unreachable);
    const clean = await lazylayer(["db", "gc", ...options]);
    assert.deepEqual([clean.status, clean.stdout.toString(), clean.stderr], [0, "", "removed 0 rows, kept 2\n"]);
    await store.close();
  });

  it("ls shows a line for each row, for people and for machines", async () => {
    const store = await openStore("ls.sqlite");
    const manifest = conversion({ source: MANIFEST, fingerprint: undefined, digest: named("manifest"), size: 5 });
    for (const row of [manifest, conversion()]) await store.insert(row);
    await store.close();
    const options = ["--db-type", "sqlite", "--db-str", directory.join("ls.sqlite")];
    const { host, repository, size, fingerprint } = conversion();
    const plain = await lazylayer(["db", "ls", ...options]);
    assert.deepEqual(plain.stdout.toString().split("\n"), [
      [`${host}/${repository}`, "layer", LAYER.kind === "layer" && LAYER.chainId, named("converted"), size, fingerprint].join("\t"),
      [`${host}/${repository}`, "manifest", MANIFEST.digest, named("manifest"), 5, "-", MANIFEST.mediaType].join("\t"),
      "",
    ]);
    const json = await lazylayer(["db", "ls", "--json", ...options]);
    const [layer, other] = json.stdout
      .toString()
      .trimEnd()
      .split("\n")
      .map((line): unknown => JSON.parse(line));
    assert.deepEqual(layer, { host, repository, kind: "layer", source: named("chain"), digest: named("converted"), size, fingerprint });
    assert.deepEqual(other, {
      host,
      repository,
      kind: "manifest",
      source: MANIFEST.digest,
      mediaType: MANIFEST.mediaType,
      digest: named("manifest"),
      size: 5,
    });
  });

  it("refuses databases that make no sense, with status 2, and never repeats a password", async () => {
    const rows: [args: string[], expected: RegExp][] = [
      [["ls", "--db-type", "none"], /no database to work on/],
      [["ls", "--db-type", "oracle"], /Allowed choices are none, sqlite, mysql, postgres/],
      [["init", "--db-type", "mysql"], /needs --db-str/],
      [["init", "--db-str", "u:secret@/d"], /--db-str and LAZYLAYER_DB_TYPE=none contradict each other/],
      [["init", "--db-str", "u:secret@/d", "--db-type", "none"], /--db-str and --db-type none contradict each other/],
      [["gc", "--db-type", "mysql", "--db-str", "u:secret"], /no slash/],
    ];
    for (const [args, expected] of rows) {
      const { status, stderr } = await lazylayer(["db", ...args]);
      assert.equal(status, 2, stderr);
      assert.match(stderr, expected);
      assert.doesNotMatch(stderr, /secret/);
    }
  });

  it("does not show in its help what the environment says", async () => {
    const { stdout } = await lazylayer(["db", "ls", "--help"], { env: { LAZYLAYER_DB_STR: "u:secret@/d" } });
    assert.match(stdout.toString(), /LAZYLAYER_DB_STR/);
    assert.doesNotMatch(stdout.toString(), /secret/);
  });
});
