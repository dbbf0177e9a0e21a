import { readFileSync } from "node:fs";
import { isDigest } from "../../src/oci/digest.ts";

/** A recorded run of the standalone convertor; see testdata/convertor/README.md. */
export interface RecordedCase {
  readonly args?: readonly string[];
  readonly exit: number;
  readonly converted?: Readonly<Record<string, string>>;
  readonly refs?: Readonly<Record<string, string | null>>;
  readonly source?: string;
  readonly tags?: readonly string[];
  readonly requests?: readonly string[];
  readonly rows?: { readonly layers: readonly (readonly string[])[]; readonly manifests: readonly (readonly string[])[] };
  readonly referrers?: Readonly<Record<string, number | readonly { readonly digest: string; readonly artifactType: string }[]>>;
  readonly files?: readonly string[];
  readonly flags?: readonly string[];
}

interface Recording {
  readonly cases: Readonly<Record<string, RecordedCase>>;
  readonly documents: Readonly<Record<string, string>>;
}

export const RECORDING = JSON.parse(readFileSync(new URL("../../testdata/convertor/recorded.json", import.meta.url), "utf8")) as Recording;

/** Documents by place: `top` is what a tag points to, `top-0` the first entry of an index, `….config` an image's config. */
export type Documents = ReadonlyMap<string, string>;

interface Entry {
  readonly digest: string;
  readonly size: number;
  readonly annotations?: Readonly<Record<string, string>>;
}

/** What a manifest or an index names, as far as shapes need it. */
interface Document {
  readonly manifests?: readonly Entry[];
  readonly config?: Entry;
  readonly layers?: readonly Entry[];
}

export function parseDocument(text: string): Document {
  return JSON.parse(text) as Document;
}

/** The documents that hang together with a recorded one; undefined if it was not kept. */
export function recordedDocuments(digest: string | null | undefined): Documents | undefined {
  const top = RECORDING.documents[digest ?? ""];
  if (top === undefined) return undefined;
  const documents = new Map<string, string>();
  const visit = (place: string, text: string): void => {
    documents.set(place, text);
    const { manifests, config } = parseDocument(text);
    for (const [at, entry] of (manifests ?? []).entries()) visit(`${place}-${at}`, RECORDING.documents[entry.digest]);
    if (config) documents.set(`${place}.config`, RECORDING.documents[config.digest]);
  };
  visit("top", top);
  return documents;
}

const DESCRIPTOR = /"digest":"(sha256:[0-9a-f]{64})","size":\d+/g;
const BLOB_SIZE = /("containerd.io\/snapshot\/overlaybd\/blob-size":)"\d+"/g;
const DIGEST = /sha256:[0-9a-f]{64}/g;

/** A document's text without what depends on the converted bytes: digests that are not kept become numbers by appearance. */
function shapeOfText(text: string, known: ReadonlySet<string>): string {
  const numbers = new Map<string, number>();
  const name = (digest: string): string => {
    if (known.has(digest)) return digest;
    const number = numbers.get(digest) ?? numbers.size;
    numbers.set(digest, number);
    return `#${number}`;
  };
  return text
    .replaceAll(DESCRIPTOR, (whole, digest: string) => (known.has(digest) ? whole : `"digest":"${digest}","size":BYTES`))
    .replaceAll(BLOB_SIZE, '$1"BYTES"')
    .replaceAll(DIGEST, name);
}

const NOT_KEPT = new Set(["container", "container_config", "docker_version", "Healthcheck", "OnBuild", "Shell", "StopTimeout"]);

/** A config's value as the standalone convertor leaves it: without keys that it does not know, and without what is empty. */
function reduced(text: string): unknown {
  const isEmpty = (value: unknown): boolean => value === "" || value === false || (Array.isArray(value) && value.length === 0);
  const without = (value: Record<string, unknown>): Record<string, unknown> =>
    Object.fromEntries(Object.entries(value).filter(([key, inner]) => !NOT_KEPT.has(key) && !isEmpty(inner)));
  const config = JSON.parse(text) as Record<string, Record<string, unknown>>;
  return { ...without(config), config: without(config["config"]), rootfs: config["rootfs"] };
}

/** The digests of sources that a result names: those of subjects, attestations and the base layer. */
export function keptDigests(recorded: Documents, known: ReadonlySet<string>): Set<string> {
  const texts = [...recorded.values()].join("\n");
  return new Set((texts.match(DIGEST) ?? []).filter((digest) => known.has(digest)));
}

/** Everything about documents that must be the same in both tools' results. `kept` are digests that must be the same too. */
export function shapeOf(documents: Documents, kept: ReadonlySet<string>): Record<string, unknown> {
  return Object.fromEntries(
    [...documents].map(([place, text]) => {
      const shape = shapeOfText(text, kept);
      return [place, place.endsWith(".config") ? reduced(shape) : shape];
    }),
  );
}

/** What a request is about, without IDs, times and converted bytes. */
export interface RequestShape {
  /** `METHOD REPOSITORY WHAT`, such as `GET small-oci manifests/v1` or `HEAD small-oci blobs/NEW`. */
  readonly text: string;
  readonly status?: string;
}

/** `path` stands behind `/v2/`. */
export function shapeOfRequest(method: string, path: string, isRange: boolean, known: ReadonlySet<string>): string {
  const [, repository = "", kind = "", rest = ""] = /^(.*)\/(manifests|blobs)\/(.*)$/.exec(path) ?? [];
  if (kind === "") return `${method} ${path}`;
  const upload = /^uploads\/([^?]*)(?:\?(.*))?$/.exec(rest);
  if (upload) {
    const query = new URLSearchParams(upload[2]);
    if (query.has("mount")) return `${method} ${repository} mount`;
    return `${method} ${repository} upload`;
  }
  const name = isDigest(rest) && !known.has(rest) ? "NEW" : rest.slice(0, 20);
  return `${method} ${repository} ${kind}/${name}${isRange ? " range" : ""}`;
}

export function recordedRequests({ requests = [] }: RecordedCase, known: ReadonlySet<string>): RequestShape[] {
  return requests.map((line) => {
    const [method, path, ...rest] = line.split(" ");
    return { text: shapeOfRequest(method, path, rest[0] === "range", known), status: rest.at(-1) ?? "" };
  });
}

/** How often each request was made, sorted. */
export function countRequests(requests: readonly string[]): string[] {
  const counts = new Map<string, number>();
  for (const request of requests) counts.set(request, (counts.get(request) ?? 0) + 1);
  return [...counts].map(([request, count]) => `${count} × ${request}`).toSorted();
}
