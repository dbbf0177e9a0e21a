import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { digestOf, type Digest } from "../oci/digest.ts";
import { DOCKER_MANIFEST, OCI_MANIFEST } from "../oci/media-types.ts";
import type { Conversion, ConversionSource, ConversionStore, RepositoryName } from "./conversion-store.ts";

/** Something to test a store with. */
export interface ConversionStoreFixture {
  /** A store in a new, empty database. */
  openEmpty(): Promise<ConversionStore>;
  /** One more store in the database of that one, as another process has it. */
  openAgain(): Promise<ConversionStore>;
}

export const APP: RepositoryName = { host: "registry.example:5000", repository: "team/app" };
const OTHER: RepositoryName = { host: "registry.example:5000", repository: "team/other" };
const ELSEWHERE: RepositoryName = { host: "registry.example", repository: "team/app" };

export const named = (text: string): Digest => digestOf(Buffer.from(text));
export const LAYER: ConversionSource = { kind: "layer", chainId: named("chain") };
export const MANIFEST = { kind: "manifest", digest: named("source"), mediaType: OCI_MANIFEST } as const;

export function conversion(change: Partial<Conversion> = {}): Conversion {
  return { ...APP, source: LAYER, digest: named("converted"), size: 684_544, fingerprint: "overlaybd-1,ext4", ...change };
}

/** What every `ConversionStore` must do. */
export function describeConversionStore(kind: string, fixture: () => ConversionStoreFixture): void {
  const withStore = (test: (store: ConversionStore) => Promise<void>) => async () => {
    const store = await fixture().openEmpty();
    try {
      await test(store);
    } finally {
      await store.close();
    }
  };

  describe(`a conversion store in ${kind}`, () => {
    it(
      "gives back layers and manifests as they were put in, with and without a fingerprint",
      withStore(async (store) => {
        const rows = [
          conversion(),
          conversion({ source: MANIFEST, digest: named("manifest"), size: 0 }),
          conversion({ source: { kind: "layer", chainId: named("x") }, fingerprint: undefined, size: Number.MAX_SAFE_INTEGER }),
          conversion({ source: { ...MANIFEST, mediaType: DOCKER_MANIFEST }, fingerprint: undefined, digest: named("docker") }),
        ].map(withoutUndefined);
        for (const row of rows) assert.deepEqual(await store.find(row, row.source), []);
        for (const row of rows) assert.equal(await store.insert(row), true);
        for (const row of rows) assert.deepEqual(await store.find(row, row.source), [row]);
        assert.deepEqual(sorted(await store.list(APP)), sorted(rows));
      }),
    );

    it(
      "keeps the first of several rows of one key and tells rows of other options apart",
      withStore(async (store) => {
        const rows = ["a", "b", "A"].map((fingerprint) => conversion({ fingerprint, digest: named(`as ${fingerprint}`) }));
        const plain = withoutUndefined(conversion({ fingerprint: undefined, digest: named("plain") }));
        for (const row of [...rows, plain]) {
          assert.equal(await store.insert(row), true);
          assert.equal(await store.insert(row), false);
          assert.equal(await store.insert({ ...row, digest: named("late") }), false);
        }
        assert.deepEqual(sorted(await store.find(APP, LAYER)), sorted([...rows, plain]));
      }),
    );

    it(
      "removes a row only if it is still the same",
      withStore(async (store) => {
        for (const fingerprint of [undefined, "a"]) {
          const row = withoutUndefined(conversion({ fingerprint }));
          const other = { ...row, digest: named("newer") };
          await store.insert(row);
          assert.equal(await store.remove(other), false);
          assert.deepEqual(await store.find(APP, LAYER), [row]);
          assert.equal(await store.remove(row), true);
          assert.equal(await store.remove(row), false);
          assert.equal(await store.insert(other), true);
          assert.deepEqual(await store.find(APP, LAYER), [other]);
          assert.equal(await store.remove(other), true);
        }
        assert.deepEqual(await store.repositories(), []);
      }),
    );

    it(
      "finds rows of other repositories of the same host, and no others",
      withStore(async (store) => {
        for (const source of [LAYER, MANIFEST]) {
          for (const fingerprint of [undefined, "a"]) {
            const [own, other, far] = [APP, OTHER, ELSEWHERE].map((place) =>
              withoutUndefined(conversion({ ...place, source, fingerprint })),
            );
            for (const row of [own, other, far]) await store.insert(row);
            assert.deepEqual(await store.findElsewhere(APP, source), [other]);
            assert.deepEqual(await store.findElsewhere(ELSEWHERE, source), []);
            for (const row of [own, other, far]) await store.remove(row);
          }
        }
      }),
    );

    it(
      "bounds what it finds elsewhere",
      withStore(async (store) => {
        for (const fingerprint of ["a", undefined]) {
          for (let number = 100; number < 170; number++) await store.insert(conversion({ repository: `many/r${number}`, fingerprint }));
          const found = await store.findElsewhere(APP, LAYER);
          assert.deepEqual([found.length, found[0].repository, found.at(-1)?.repository], [64, "many/r100", "many/r163"]);
          for (const { repository } of await store.repositories()) {
            for (const row of await store.list({ ...APP, repository })) await store.remove(row);
          }
        }
      }),
    );

    it(
      "tells manifests from layers and media types from each other",
      withStore(async (store) => {
        const manifest = conversion({ source: MANIFEST });
        await store.insert(manifest);
        await store.insert(conversion({ source: { kind: "layer", chainId: MANIFEST.digest } }));
        assert.deepEqual(await store.find(APP, { ...MANIFEST, mediaType: DOCKER_MANIFEST }), []);
        assert.deepEqual(await store.find(APP, MANIFEST), [manifest]);
      }),
    );

    it(
      "lists repositories by host and name, and their rows, layers first",
      withStore(async (store) => {
        for (const place of [OTHER, APP, ELSEWHERE]) {
          for (const source of [MANIFEST, LAYER])
            for (const fingerprint of ["b", "a"]) await store.insert(conversion({ ...place, source, fingerprint }));
        }
        assert.deepEqual(await store.repositories(), [ELSEWHERE, APP, OTHER]);
        const rows = await store.list(OTHER);
        const shown = rows.map(({ repository, source, fingerprint }) => [repository, source.kind, fingerprint]);
        assert.deepEqual(
          shown,
          ["layer", "layer", "manifest", "manifest"].map((name, index) => ["team/other", name, index % 2 === 0 ? "a" : "b"]),
        );
      }),
    );

    it(
      "takes quotes, comments and wildcards for what they are: parts of a name",
      withStore(async (store) => {
        const names = [
          "';drop/**/table/**/lazylayer_conversions;--",
          `a"b\`c\\d`,
          "%",
          "_",
          "?",
          "$1",
          "a''b",
          "\\",
          "#",
          "@@version",
          "Team/App",
          "team/app",
        ];
        for (const name of names) {
          await store.insert(conversion({ host: name, repository: name, fingerprint: name, source: { ...MANIFEST, mediaType: name } }));
        }
        assert.equal((await store.repositories()).length, names.length);
        for (const name of names) {
          const [found, ...others] = await store.find({ host: name, repository: name }, { ...MANIFEST, mediaType: name });
          assert.deepEqual([found.host, found.repository, found.fingerprint, others.length], [name, name, name, 0]);
          assert.equal(await store.remove(found), true);
        }
        assert.deepEqual(await store.repositories(), []);
      }),
    );

    it(
      "holds the longest names and refuses what cannot be compared exactly",
      withStore(async (store) => {
        const longest = "r".repeat(255);
        for (const fingerprint of [longest, undefined]) {
          const row = withoutUndefined(
            conversion({
              host: longest,
              repository: longest,
              digest: named(`${fingerprint}`),
              source: { ...MANIFEST, mediaType: longest },
              fingerprint,
            }),
          );
          assert.equal(await store.insert(row), true);
          assert.ok((await store.find(row, row.source)).some((found) => found.fingerprint === fingerprint));
        }
        for (const name of ["", "r".repeat(256), "ärger", "名前", "🙂", "a b", "a\0b", "a\n", "\u212a"]) {
          const bad = [{ host: name }, { repository: name }, { source: { ...MANIFEST, mediaType: name } }, { fingerprint: name }];
          for (const change of bad) await assert.rejects(store.insert(conversion(change)), { code: "USAGE" }, JSON.stringify(change));
          await assert.rejects(store.find({ host: name, repository: "a" }, LAYER), { code: "USAGE" });
          await assert.rejects(store.findElsewhere({ host: "a", repository: name }, LAYER), { code: "USAGE" });
          await assert.rejects(store.list({ host: "a", repository: name }), { code: "USAGE" });
        }
        for (const size of [-1, 0.5, Number.NaN, 2 ** 53]) await assert.rejects(store.insert(conversion({ size })), { code: "USAGE" });
      }),
    );

    it("lets exactly one of many writers in several processes win", async () => {
      const stores = [await fixture().openEmpty()];
      try {
        for (let more = 0; more < 3; more++) stores.push(await fixture().openAgain());
        for (const fingerprint of ["a", undefined]) {
          for (let round = 0; round < 10; round++) {
            const source: ConversionSource = { kind: "layer", chainId: named(`round ${round}`) };
            const rows = Array.from({ length: 12 }, (_, writer) =>
              withoutUndefined(conversion({ source, fingerprint, digest: named(`${writer}`) })),
            );
            const won = await Promise.all(rows.map(async (row, writer) => await stores[writer % stores.length].insert(row)));
            const winners = rows.filter((_, writer) => won[writer]);
            assert.equal(winners.length, 1);
            const found = await Promise.all(stores.map(async (store) => await store.find(APP, source)));
            for (const rowsFound of found)
              assert.deepEqual(
                rowsFound.filter((row) => row.fingerprint === fingerprint),
                winners,
              );
            const removed = await Promise.all(stores.map(async (store) => await store.remove(winners[0])));
            assert.equal(removed.filter((was) => was).length, 1);
          }
        }
      } finally {
        for (const store of stores) await store.close();
      }
    });

    it("is closed as often as one likes and fails afterwards", async () => {
      const store = await fixture().openEmpty();
      await store.close();
      await store.close();
      await assert.rejects(store.find(APP, LAYER), { code: "UNAVAILABLE" });
    });
  });
}

export function withoutUndefined(row: Conversion): Conversion {
  if (row.fingerprint !== undefined) return row;
  const { fingerprint: _, ...others } = row;
  return others;
}

function sorted(rows: readonly Conversion[]): string[] {
  return rows.map((row) => JSON.stringify([row.source, row.digest, row.size, row.fingerprint, row.host, row.repository])).toSorted();
}
