import assert from "node:assert/strict";
import { DOCKER_MANIFEST } from "../../src/oci/media-types.ts";
import { stored, usage, WHY, type Checked, type DatabasePlace, type Replay } from "./convertor-replay-row.ts";
import { parseDocument, type Documents } from "./convertor-replay-shape.ts";
import { WRAPPED_BASE } from "./convertor-replay-stage.ts";

const SMALL_CONFIG = "sha256:cb9619edff106";
/** What is said when a database cannot be used. */
const WITHOUT = /without the conversion database/;

const NO_MANIFESTS = "delete from overlaybd_manifests; delete from lazylayer_conversions where kind = 'manifest';";
const NOTHING = `${NO_MANIFESTS} delete from overlaybd_layers; delete from lazylayer_conversions;`;
const CHAIN = [
  "sha256:34165a27b9f3fac59e8954049e8e484688ddee64e4cea2e674c2d2eaa6bb5d87",
  "sha256:96829184c685cc06137455dbb587fa444fd11eed577746b86bb698706f55b34a",
  "sha256:213e9b3ef1b5e5eb6a99d98b69d6056a797dd83b04ce959e44e51262829a488b",
];
const SMALL_DIGEST = "sha256:0da5ea15638d84985451ec3d570c9153edb121945591482ec78aa888aba87a6e";

const staleLayers = ({ host, sequence }: DatabasePlace): string =>
  `${NOTHING} insert into overlaybd_layers(host, repo, chain_id, data_digest, data_size) values
     ${CHAIN.map((chainId) => `('${host}', '${sequence}/third', '${chainId}', 'sha256:${"1".repeat(64)}', 100)`).join(", ")};`;
const staleManifest = ({ host, sequence }: DatabasePlace): string =>
  `${NOTHING} insert into overlaybd_manifests(host, repo, src_digest, out_digest, data_size, mediatype) values
     ('${host}', '${sequence}/third', '${SMALL_DIGEST}', 'sha256:${"2".repeat(64)}', 1522, '${DOCKER_MANIFEST}');`;

/** One database, from one run to the next, as it was recorded. */
const DATABASE: readonly Replay[] = [
  ...inSequence("db", [
    { name: "db-1-first", differs: [{ tables: "untouched", reason: WHY.ownTable }] },
    { name: "db-2-second" },
    { name: "db-3-oci-flag" },
    {
      name: "db-4-vsize",
      differs: [{ result: "checked", reason: WHY.otherOptions }],
      check: async ({ stage, played, documents }) => {
        const before = await stage.documents(stored(played), "db1");
        assert.deepEqual(commonLayers(documents, before.documents), [], "nothing of the image of another size");
      },
    },
    { name: "db-5-crossrepo" },
    { name: "db-6-crossrepo-layers", sql: () => NO_MANIFESTS },
    { name: "db-7-samerepo-layers", sql: () => NO_MANIFESTS },
    { name: "db-8-stale-layers", sql: staleLayers, differs: [{ healed: true, reason: WHY.stale }] },
    // Rows of whole images that another tool made are not looked at, so they do no harm.
    { name: "db-9-stale-manifest", sql: staleManifest },
  ]),
  { name: "db-10-noupload", differs: [{ rows: () => ({ layers: [], manifests: [] }), reason: WHY.noUploadRows }] },
  ...inSequence("db-multi", [{ name: "db-11-multi" }, { name: "db-12-multi-second" }]),
  { name: "db-badpass", says: WITHOUT, check: saysOnce },
  { name: "db-down", says: WITHOUT, check: saysOnce },
  usage("db-baddsn", WHY.dsn, /garbage|--db-str/),
  { ...usage("db-nostr", WHY.dbTypeAlone, /--db-str/), like: "obd-small-oci" },
  usage("db-str-only", WHY.dbStrAlone, /--db-type/),
  {
    name: "db-unknown",
    extra: ["--db-str", "{directory}/conversions.sqlite"],
    differs: [{ files: (recorded) => [...recorded, "conversions.sqlite"], reason: WHY.dbType }],
  },
  ...inSequence("db-ref", [
    { name: "db-ref-1" },
    { name: "db-ref-2", differs: [{ result: { like: "referrer-5004-small-oci" }, reason: WHY.otherSubject }] },
    { name: "db-mkfs-1", sql: () => NOTHING },
    {
      name: "db-mkfs-2-layers",
      differs: [{ result: "checked", reason: WHY.otherOptions }],
      check: async ({ stage, played, documents }) => {
        const { layers = [] } = parseDocument(documents?.get("top") ?? "{}");
        assert.deepEqual([layers.length, layers[0].digest], [4, WRAPPED_BASE]);
        const before = await stage.documents(stored(played), "i");
        assert.deepEqual(commonLayers(documents, before.documents), [], "nothing of the image that has its own filesystem");
      },
    },
  ]),
];

/** The same with a view of the requests. */
const DATABASE_TRACES: readonly Replay[] = [
  ...inSequence("http-db", [
    { name: "http-db-1", prepare: ["-r", "{proxy}/small-oci", "-i", "v1", "-o", "before"] },
    { name: "http-db-2" },
    {
      name: "http-db-3-layers",
      sql: () => NO_MANIFESTS,
      differs: [{ requests: (expected) => withoutLooks(expected, 3), reason: WHY.readsInstead }],
    },
    { name: "http-db-4-cross", differs: [{ requests: () => mounted("fourth", "pxdb4"), reason: WHY.mounts }] },
    {
      name: "http-db-5-crosslayers",
      sql: () => NO_MANIFESTS,
      differs: [{ requests: () => mounted("fifth", "pxdb5"), reason: WHY.mounts }],
    },
  ]),
  ...inSequence("db-mount-noport", [
    { name: "db-mount-noport-seed", prepare: ["-r", "{default-port}/small-oci", "-i", "v1", "-o", "before"] },
    {
      name: "db-mount-noport-manifest",
      differs: [
        { requests: () => mounted("np1", "pm1"), reason: WHY.elsewhere },
        {
          rows: ({ layers, manifests }) => ({ layers: [...layers, ...CHAIN.map((id) => ["np1", id] as const)], manifests }),
          reason: WHY.elsewhere,
        },
      ],
    },
    {
      name: "db-mount-noport-layers",
      sql: () => NO_MANIFESTS,
      differs: [
        {
          rows: ({ layers, manifests }) => ({ layers: [...layers, ...CHAIN.map((id) => ["np1", id] as const)], manifests }),
          reason: WHY.elsewhere,
        },
      ],
    },
  ]),
];

/** What is asked when all layers are taken over from another repository. */
function mounted(repository: string, tag: string): string[] {
  const three = (request: string): string[] => [request, request, request];
  return [
    `GET ${repository} manifests/v1`,
    `GET ${repository} blobs/${SMALL_CONFIG}`,
    ...three(`HEAD ${repository} blobs/NEW`),
    ...three(`POST ${repository} mount`),
    `HEAD ${repository} blobs/NEW`,
    `POST ${repository} upload`,
    `PUT ${repository} upload`,
    `PUT ${repository} manifests/${tag}`,
  ];
}

/** Without so many of the questions whether a blob of the result is there. */
function withoutLooks(requests: readonly string[], count: number): string[] {
  let left = count;
  return requests.filter((request) => !/^HEAD \S+ blobs\/NEW$/.test(request) || left-- <= 0);
}

function inSequence(sequence: string, rows: readonly Replay[]): Replay[] {
  return rows.map((row) => ({ like: "obd-small-oci", ...row, sequence }));
}

/** Blobs that two images share. */
function commonLayers(one: Documents | undefined, other: Documents): string[] {
  const digests = (documents: Documents | undefined): string[] =>
    (parseDocument(documents?.get("top") ?? "{}").layers ?? []).map(({ digest }) => digest);
  const others = digests(other);
  return digests(one).filter((digest) => others.includes(digest));
}

function saysOnce({ played }: Checked): void {
  assert.equal(played.stderr.split("\n").filter((line) => WITHOUT.test(line)).length, 1, played.stderr);
}

/** Runs with a database of the sequence's own. */
export const DATABASE_REPLAYS: readonly Replay[] = [...DATABASE, ...DATABASE_TRACES];
