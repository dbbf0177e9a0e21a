import assert from "node:assert/strict";
import { OCI_LAYER_GZIP } from "../../src/oci/media-types.ts";
import { lazylayer } from "../support/programs.ts";
import { stored, usage, WHY, type Replay } from "./convertor-replay-row.ts";
import { parseDocument, RECORDING, type Documents } from "./convertor-replay-shape.ts";
import { WRAPPED_BASE } from "./convertor-replay-stage.ts";

/** A run whose turboOCI image is like the recorded one; the layers that it refers to are held by a tag that the other tool does not make. */
function turbo(name: string, { differs = [], ...row }: Omit<Replay, "name"> = {}): Replay {
  return { name, ...row, differs: [{ tags: [`${turboTag(name)}-layers`], reason: WHY.heldLayers }, ...differs] };
}

function turboTag(name: string): string {
  const { args = [] } = RECORDING.cases[name];
  return args[args.findIndex((arg) => arg === "--turboOCI" || arg === "--fastoci") + 1];
}

const IMAGES = ["small-oci", "small-docker", "multi-oci", "multi-docker"];

const REFERRERS: readonly Replay[] = IMAGES.flatMap((image) => [
  turbo(`referrer-5001-${image}`, {
    differs: [
      {
        tags: Object.keys(RECORDING.cases[`referrer-5001-${image}`].referrers ?? {}).map((digest) => digest.replace(":", "-")),
        reason: WHY.fallbackTag,
      },
      { referrers: "listed", reason: WHY.fallbackTag },
    ],
  }),
  turbo(`referrer-5004-${image}`),
]);

/** Layers are read once, not twice; whether they are there is seen by reading some of each; and a manifest of their own is stored. */
function requestsOnce(repository: string, tag: string): (recorded: readonly string[]) => readonly string[] {
  return (recorded) => {
    const isLayer = (request: string): boolean =>
      /^GET \S+ blobs/.test(request) && recorded.filter((other) => other === request).length > 1;
    const layers = recorded.filter(isLayer);
    return [
      ...recorded.filter((request) => !isLayer(request)),
      ...layers.toSorted().filter((_, at) => at % 2 === 0),
      ...[...new Set(layers)].map((request) => `${request} range`),
      ...["HEAD REPOSITORY blobs/NEW", "POST REPOSITORY upload", "PUT REPOSITORY upload", `PUT REPOSITORY manifests/${tag}-layers`].map(
        (request) => request.replace("REPOSITORY", repository),
      ),
    ];
  };
}

const CONVERSIONS: readonly Replay[] = [
  turbo("both-small-oci"),
  turbo("fastoci-small-oci", { says: /--fastoci is deprecated; --turboOCI means the same/ }),
  turbo("o-ignored-with-turbo", { like: "obd-small-oci", differs: [{ tags: ["ignored_tag"], reason: WHY.bothTags }] }),
  turbo("verbose-toci", { says: /layer 2/ }),
  ...["toci-small-oci-oci", "toci-small-docker", "toci-multi-oci", "toci-multi-docker"].map((name) => turbo(name)),
  ...["toci-fstype-empty", "toci-vsize-16", "toci-mixed-nozstd", "toci-mixed-duplayer", "toci-mixed-emptyonly"].map((name) => turbo(name)),
  // Nothing is referred to.
  { name: "toci-mixed-nolayers" },
  ...["toci-mixed-all", "toci-mixed-zstd-as-gzip"].flatMap((name) => [
    { name, says: /layer 0 .*one frame of \d+ bytes: .*--recompress gzip/ },
    turbo(name, {
      variant: "recompressed",
      extra: ["--recompress", "gzip"],
      differs: [
        { exit: 0, reason: WHY.turboZstd },
        { result: "checked", reason: WHY.turboZstd },
      ],
      check: ({ documents }) => assert.equal(layersOf(documents)[0].target, OCI_LAYER_GZIP),
    }),
  ]),
  { name: "toci-mixed-badtar", says: /tar/ },
  { name: "toci-mixed-trunctar", says: /tar/, differs: [{ exit: 1, reason: WHY.turboCutTar }] },
  { name: "toci-mixed-fewdiffids", says: /diff ID/i, differs: [{ exit: 1, reason: WHY.fewDiffIds }] },
  { name: "toci-mixed-wrongdiffid", says: /diff ID/i, differs: [{ exit: 1, reason: WHY.wrongDiffIds }] },
  turbo("toci-mkfs-false", {
    differs: [{ result: "checked", reason: WHY.turboBase }],
    check: async ({ documents, played: { host } }) => {
      const layers = layersOf(documents);
      assert.deepEqual([layers.length, layers[0].digest, layers[0].target], [4, WRAPPED_BASE, ""]);
      const repository = `${host}/toci-mkfs-false/small-oci`;
      const { status, stdout } = await lazylayer(["verify", `${repository}:v1`, `${repository}:nomkfst`]);
      assert.equal(status, 0, stdout.toString());
    },
  }),
  {
    name: "toci-of-obd",
    prepare: ["-r", "{docker}/small-oci", "-i", "v1", "-o", "v1_obd"],
    differs: [{ result: "checked", reason: WHY.converted }],
    says: /converted already/,
    check: async ({ stage, played, digest }) => assert.equal(digest, (await stage.documents(stored(played), "v1_obd")).digest),
  },
  turbo("toci-small-docker", { variant: "with umask 022", sequence: "umask-turbo", umask: "022" }),
  turbo("toci-umask077", {
    sequence: "umask-turbo",
    umask: "077",
    differs: [{ result: "checked", reason: WHY.umask }],
    check: async ({ stage, played, digest }) => assert.equal(digest, (await stage.documents(stored(played), "v1_toci")).digest),
  }),
  {
    name: "obd-fstype-erofs",
    differs: [{ result: "checked", reason: WHY.erofs }],
    check: ({ documents }) => assertErofs(documents),
  },
  turbo("toci-fstype-erofs", { differs: [{ result: "checked", reason: WHY.erofs }], check: ({ documents }) => assertErofs(documents) }),
  usage("toci-fstype-xfs", WHY.fstype, /--fstype xfs is not supported/),
  usage("xfs-res", WHY.fstype, /--fstype xfs is not supported/),
];

/** Target media types stand for what kind of layer it is; none for the base layer. */
function layersOf(documents: Documents | undefined): { readonly digest: string; readonly target: string }[] {
  const { layers = [] } = parseDocument(documents?.get("top") ?? "{}");
  return layers.map(({ digest, annotations }) => ({
    digest,
    target: annotations?.["containerd.io/snapshot/overlaybd/turbo-oci/target-media-type"] ?? "",
  }));
}

function assertErofs(documents: Documents | undefined): void {
  const { layers = [] } = parseDocument(documents?.get("top") ?? "{}");
  assert.equal(layers.length, 3);
  for (const { annotations } of layers) assert.equal(annotations?.["containerd.io/snapshot/overlaybd/blob-fs-type"], "erofs");
}

const FILES: readonly Replay[] = [
  turbo("reserve-toci", { like: "fastoci-small-oci" }),
  turbo("reserve-tfirst", { sequence: "reserve-turbo", like: "fastoci-small-oci" }),
  turbo("reserve-tsecond", { sequence: "reserve-turbo", like: "fastoci-small-oci" }),
  { name: "noupload-toci" },
];

const TRACES: readonly Replay[] = [
  ...["small-oci", "small-docker", "multi-oci"].map((image) =>
    turbo(`http-toci-${image}`, {
      like: { "small-oci": "fastoci-small-oci", "small-docker": "toci-small-docker", "multi-oci": "toci-multi-oci" }[image] ?? "",
      differs: [{ requests: requestsOnce(image, "px2"), reason: WHY.readTwice }],
    }),
  ),
  {
    name: "noupload-toci-http",
    differs: [{ requests: (recorded) => [...new Set(recorded.filter((request) => request.startsWith("GET")))], reason: WHY.turboNoUpload }],
  },
  {
    name: "fault-corrupt-layer-toci",
    fault: ({ method, url }) => (method === "GET" && /blobs\/sha256:cf71ef90/.test(url) ? { kind: "corrupt", at: 60_000 } : undefined),
    says: /sha256:cf71|CRC|gzip/i,
  },
];

/** Runs that made turboOCI images, alone or beside overlaybd. */
export const TURBO_REPLAYS: readonly Replay[] = [...CONVERSIONS, ...REFERRERS, ...FILES, ...TRACES];
