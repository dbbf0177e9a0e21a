import assert from "node:assert/strict";
import type { Documents } from "./convertor-replay-shape.ts";
import type { FaultOf, Play, Played, Stage } from "./convertor-replay-stage.ts";

/** Rows of the standalone convertor's two tables, by what they are keyed with: repository, source digest, and a manifest's media type. */
export interface KeyRows {
  readonly layers: readonly (readonly [repository: string, chainId: string])[];
  readonly manifests: readonly (readonly [repository: string, source: string, mediaType: string])[];
}

/** One thing in which a replay is meant to differ from the recording. `reason` is the first cell of a row of docs/migrating.md. */
export type Difference = { readonly reason: string } & (
  | { readonly exit: number }
  /** Documents are not the recorded ones: `check` looks, or they are like those of another case. */
  | { readonly result: "checked" | { readonly like: string } }
  /** Requests beyond the systematic differences; what is expected is made of what was recorded. */
  | { readonly requests: (recorded: readonly string[]) => readonly string[] }
  /** The convertor's two tables get no rows of ours. */
  | { readonly tables: "untouched" }
  /** Rows that named what was not there are fewer. */
  | { readonly healed: true }
  | { readonly rows: (recorded: KeyRows) => KeyRows }
  /** Tags beside the recorded ones. */
  | { readonly tags: readonly string[] }
  | { readonly referrers: "listed" }
  | { readonly files: (recorded: readonly string[]) => readonly string[] }
);

export interface Checked {
  readonly stage: Stage;
  readonly played: Played;
  /** Of the result's tag, if it is there. */
  readonly digest: string | undefined;
  readonly documents: Documents | undefined;
}

/** What statements need to know of a sequence. */
export interface DatabasePlace {
  readonly host: string;
  readonly sequence: string;
}

export interface Replay {
  /** The recorded case. */
  readonly name: string;
  /** Tells several replays of one case apart. */
  readonly variant?: string;
  /** Replays of one sequence share repositories, proxy and database, and follow each other. Without: the case is one by itself. */
  readonly sequence?: string;
  /** Flags that are left out, with their values. */
  readonly without?: readonly string[];
  /** Arguments that are added. */
  readonly extra?: readonly string[];
  /** Where no arguments were recorded. */
  readonly args?: readonly string[];
  /** Whether its flags alone decide what comes of it. */
  readonly refused?: boolean;
  /** A run before this one. */
  readonly prepare?: readonly string[];
  /** The case whose documents count, where this one's were not kept and must be the same. */
  readonly like?: string;
  readonly behind?: Play["behind"];
  readonly fault?: FaultOf;
  readonly faultTimes?: number;
  readonly signal?: Play["signal"];
  readonly umask?: string;
  /** The size of the filesystem that `--dir` is on. */
  readonly disk?: string;
  readonly environment?: Readonly<Record<string, string>>;
  /** Statements that bring the database into the state it was in. */
  readonly sql?: (place: DatabasePlace) => string;
  /** What must be on standard error; required where the status is not 0. */
  readonly says?: RegExp;
  readonly differs?: readonly Difference[];
  readonly check?: (checked: Checked) => Promise<void> | void;
}

/** Of the standalone convertor's temporary files those that we have none of. */
export const NOT_KEPT_FILES =
  /(^|\/)(layer\.tar|writable_data|writable_index|ext4\.fs\.meta|\.turbo\.ociv1|gzip\.meta)$|\/\d{4}_sha256:[0-9a-f]{64}\/config\.json$/;

/** Situations in which we mean to differ: first cells of the table in docs/migrating.md. */
export const WHY = {
  usage: "a wrong or missing flag",
  contradiction: "`-i` and `-g` together",
  colon: "`-u` without a colon",
  fstype: "`--fstype` other than ext4 and erofs",
  erofs: "`--fstype erofs`",
  vsize: "`--vsize` below 1 or above 16383",
  tag: "a tag that is none",
  reference: "a repository that is none, or with a scheme, tag or digest",
  digest: "a digest that is none",
  certificates: "certificate files that are missing or wrong",
  plain: "plain HTTP on this machine",
  tools: "overlaybd's tools are not installed",
  retries: "a request that fails more than once",
  uploadBreaks: "a connection that breaks during an upload",
  space: "little room in `--dir`",
  sigint: "SIGINT",
  force: "`-o` equal to `-i`",
  converted: "an image that is converted already",
  attestations: "attestations in an index",
  reserveTwice: "`--reserve` twice in one directory",
  dump: "`--dump-manifest` without `--reserve`",
  heldLayers: "layers that a turboOCI image refers to",
  readTwice: "a layer on its way to turboOCI",
  bothTags: "`-o` and `--turboOCI` together",
  turboBase: "`--turboOCI` and `--mkfs=false` together",
  turboZstd: "a zstd layer, and `--turboOCI`",
  turboCutTar: "a tar that ends early, and `--turboOCI`",
  turboNoUpload: "`--turboOCI` and `--no-upload` together",
  noUploadIndex: "`--no-upload` of an index",
  umask: "the umask",
  fewDiffIds: "fewer diff IDs than layers",
  wrongDiffIds: "diff IDs that are not those of the layers",
  urls: "`urls` of a descriptor",
  noMediaType: "an index without a media type",
  lostKeys: "`Healthcheck`, `Shell`, `OnBuild`, `StopTimeout` and unknown keys of the config",
  fallbackTag: "`--referrer`, and the registry has no referrers API",
  dbType: "a `--db-type` that is not `mysql`",
  dbStrAlone: "`--db-str` without `--db-type`",
  dbTypeAlone: "`--db-type mysql` without `--db-str`",
  dsn: "a `--db-str` that cannot be read",
  otherOptions: "rows that other options made",
  otherSubject: "`--referrer`, and the database knows the image without",
  readsInstead: "whether a known layer is there is seen by reading some of it",
  mounts: "rows of another repository of a registry with a port",
  stale: "rows whose blobs are gone",
  ownTable: "rows of what we convert",
  elsewhere: "an image that another repository has",
  noUploadRows: "`--no-upload` with a database",
} as const;

/** A call that is wrong here. */
export function usage(name: string, reason: string, says: RegExp): Replay {
  return { name, says, differs: [{ exit: 2, reason }] };
}

export function stored({ store }: Played): NonNullable<Played["store"]> {
  assert.ok(store);
  return store;
}
