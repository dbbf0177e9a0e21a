import assert from "node:assert/strict";
import { DOCKER_MANIFEST, OCI_INDEX } from "../../src/oci/media-types.ts";
import { usage, stored, WHY, type Replay } from "./convertor-replay-row.ts";
import { ALL_FIELDS } from "./convertor-replay-sources.ts";

/** Where `small-oci:v1` is converted. */
const SMALL_DIRECTORY = "1--0da5ea15638d84985451ec3d570c9153edb121945591482ec78aa888aba87a6e";

const WRONG_CALLS: readonly Replay[] = [
  usage("err-badflag", WHY.usage, /--bogus|--repository/),
  usage("err-noargs", WHY.usage, /--repository/),
  usage("err-norepo", WHY.usage, /--repository/),
  usage("err-noinput", WHY.usage, /--input-tag/),
  usage("err-nooutput", WHY.usage, /--output-tag/),
  usage("err-badvsize", WHY.usage, /--vsize.*abc/),
  usage("err-digest-and-tag", WHY.contradiction, /-i and -g/),
  usage("err-auth-nocolon", WHY.colon, /USER:PASSWORD/),
  usage("err-bad-digest", WHY.digest, /sha256:123/),
  usage("err-bad-outtag", WHY.tag, /bad tag!/),
  usage("err-badref", WHY.reference, /UPPER\/Repo space/),
  usage("err-repo-scheme", WHY.reference, /without http:/),
  usage("err-repo-with-tag", WHY.reference, /without tag or digest/),
  usage("err-clientcert-format", WHY.certificates, /foo.*CERT:KEY|--client-cert/),
  usage("obd-vsize-0", WHY.vsize, /from 1 to 16383/),
  usage("obd-vsize-neg", WHY.vsize, /from 1 to 16383/),
  usage("obd-vsize-16384", WHY.vsize, /from 1 to 16383/),
];

const FAILURES: readonly Replay[] = [
  { name: "err-auth-none", says: /credentials|log in/ },
  { name: "err-auth-wrong", says: /credentials|log in/ },
  { name: "err-conn-refused", says: /127\.0\.0\.1:\d+.*(refused|cannot be reached)/i },
  { name: "err-missing-digest", says: /sha256:0{64}/ },
  { name: "err-missing-repo", says: /none:v1/ },
  { name: "err-missing-tag", says: /small-oci:nope/ },
  { name: "err-tls-unknown-ca", says: /certificate|--root-ca/ },
  { name: "err-tls-noclientcert", says: /client certificate/ },
  { name: "err-rootca-missing", says: /\/nope\.crt/ },
  { name: "err-certdir-missing", says: /\/nope: does not exist/ },
  {
    name: "err-repo-nohost",
    // Nobody answers here, so that nothing leaves the machine; who was asked is in the message.
    environment: { HTTP_PROXY: "http://127.0.0.1:1", http_proxy: "http://127.0.0.1:1" },
    extra: ["--retry", "1"],
    says: /registry-1\.docker\.io\/v2\/library\/small-oci/,
  },
  { name: "err-noplain", like: "obd-small-oci", differs: [{ exit: 0, reason: WHY.plain }] },
  { name: "err-notools", like: "obd-small-oci", environment: { PATH: "/usr/bin:/bin" }, differs: [{ exit: 0, reason: WHY.tools }] },
  { name: "fault-dir-readonly", says: /\/proc\/nope/ },
];

const FILES: readonly Replay[] = [
  {
    name: "dump-noreserve",
    like: "obd-small-oci",
    differs: [
      { files: (recorded) => [...recorded, `${SMALL_DIRECTORY}/config.json`, `${SMALL_DIRECTORY}/manifest.json`], reason: WHY.dump },
    ],
  },
  { name: "reserve-obd", like: "obd-small-oci" },
  { name: "reserve-first", sequence: "reserve", like: "obd-small-oci" },
  {
    name: "reserve-second",
    sequence: "reserve",
    like: "obd-small-oci",
    differs: [
      { exit: 0, reason: WHY.reserveTwice },
      { result: "checked", reason: WHY.reserveTwice },
    ],
    check: async ({ stage, played, digest }) => assert.equal(digest, (await stage.documents(stored(played), "rv1")).digest),
  },
  { name: "noupload-obd" },
  {
    name: "noupload-multi",
    differs: [
      { exit: 0, reason: WHY.noUploadIndex },
      { files: (recorded) => [...new Set([...recorded, "index.json"])], reason: WHY.noUploadIndex },
    ],
  },
];

/** Images whose documents were not kept; made anew after their description, and looked at here. */
const FIELDS: readonly Replay[] = [
  field("obd-fields-minimal", ({ top, config }) => {
    assert.deepEqual(Object.keys(top), ["schemaVersion", "mediaType", "config", "layers"]);
    assert.deepEqual(Object.keys(config), ["architecture", "os", "config", "rootfs"]);
  }),
  field("obd-fields-nomediatype", ({ top }) => assert.equal(top["mediaType"], DOCKER_MANIFEST)),
  field("obd-fields-subject", ({ top }) => {
    assert.deepEqual(Object.keys(top), ["schemaVersion", "mediaType", "artifactType", "config", "layers", "subject", "annotations"]);
    assert.deepEqual([top["mediaType"], top["artifactType"]], [DOCKER_MANIFEST, "application/x-test"]);
  }),
  {
    ...field("obd-fields-fields", ({ top, config }) => {
      assert.deepEqual(top["annotations"], { "org.example.note": "kept" });
      assert.deepEqual(config["x-unknown"], { kept: [1, 2.5] });
      assert.deepEqual(Object.keys(config["config"] as object), Object.keys(ALL_FIELDS.config));
      assert.equal(config["created"], ALL_FIELDS.created);
    }),
    differs: [{ result: "checked", reason: WHY.lostKeys }],
  },
  {
    ...field("obd-fields-idx-fields", ({ top }) => {
      assert.deepEqual(Object.keys(top), ["schemaVersion", "mediaType", "manifests", "annotations"]);
      assert.equal(top["mediaType"], OCI_INDEX, "the source's, as in the other tool");
      const entries = top["manifests"] as { annotations: object; platform: object }[];
      assert.deepEqual(
        entries.map(({ platform, annotations }) => [platform, annotations]),
        [
          [{ architecture: "amd64", os: "linux" }, { "org.example.entry": "0" }],
          [{ architecture: "amd64", os: "linux", variant: "v1" }, { "org.example.entry": "1" }],
          [{ architecture: "arm64", os: "linux" }, { "org.example.entry": "2" }],
        ],
      );
    }),
    differs: [
      { exit: 0, reason: WHY.urls },
      { result: "checked", reason: WHY.urls },
    ],
  },
  {
    ...field("obd-fields-idx-nomediatype", ({ top }) => assert.equal((top["manifests"] as object[]).length, 2)),
    differs: [{ result: "checked", reason: WHY.noMediaType }],
  },
  field("obd-fields-idx-nomediatype-oci", ({ top }) =>
    assert.deepEqual([top["mediaType"], (top["manifests"] as object[]).length], [OCI_INDEX, 2]),
  ),
];

type JsonObject = Readonly<Record<string, unknown>>;

function field(name: string, look: (documents: { top: JsonObject; config: JsonObject }) => void): Replay {
  return {
    name,
    like: "none",
    check: ({ documents }) => {
      const parse = (place: string): JsonObject => JSON.parse(documents?.get(place) ?? "{}") as JsonObject;
      look({ top: parse("top"), config: parse("top.config") });
    },
  };
}

/** What is refused or fails, what is left in `--dir`, and unusual documents. */
export const CALL_REPLAYS: readonly Replay[] = [...WRONG_CALLS, ...FAILURES, ...FILES, ...FIELDS];
