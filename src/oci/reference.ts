import { normalize } from "node:path/posix";
import { LazyError } from "../errors.ts";
import { isDigest, parseDigest, type Digest } from "./digest.ts";

/** An image in a registry. At least one of `tag` and `digest` is set; the digest decides when both are. */
export interface RegistryReference {
  readonly kind: "registry";
  /** `host` or `host:port`, lower case, as connected to: `registry-1.docker.io` for Docker Hub. */
  readonly host: string;
  readonly repository: string;
  readonly tag?: string;
  readonly digest?: Digest;
}

/** An image in an OCI layout directory. Without tag and digest: the only one in it. */
export interface LayoutReference {
  readonly kind: "layout";
  readonly directory: string;
  readonly tag?: string;
  readonly digest?: Digest;
}

/** An image in an archive file. Without tag and digest: the only one in it. */
export interface ArchiveReference {
  readonly kind: "oci-archive" | "docker-archive";
  readonly file: string;
  /** As it was given: `app` may be `docker.io/library/app` in the archive. Comes with a tag. */
  readonly repository?: string;
  readonly tag?: string;
  readonly digest?: Digest;
}

/** The only image of an archive on standard input, or one that goes to standard output. */
export interface StreamReference {
  readonly kind: "stream";
  readonly tag?: undefined;
  readonly digest?: undefined;
}

export type ImageReference = RegistryReference | LayoutReference | ArchiveReference | StreamReference;

export const DOCKER_HUB_HOST = "registry-1.docker.io";
const DOCKER_HUB_NAMES: ReadonlySet<string> = new Set(["docker.io", "index.docker.io", DOCKER_HUB_HOST]);

const ARCHIVE = /^(oci-archive|docker-archive):/;
const LOCAL = /^(?:oci|oci-archive|docker-archive):/;
const TAG = /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$/;
const HOST = /^(?:\[[0-9a-f:]+\]|[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*)(?::([0-9]{1,5}))?$/;
const PATH_PART = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*$/;
const MAX_REPOSITORY_LENGTH = 255;
const MAX_HOST_LENGTH = 260; // 253 of a name, and a port

/**
 * `host[:port]/repository[:tag][@digest]` with Docker's short forms (`redis`, `user/image`; no tag and no digest means `latest`),
 * `oci:DIRECTORY[:tag][@digest]`, `oci-archive:FILE[:[repository:]tag][@digest]`, `docker-archive:FILE[:repository[:tag]][@digest]`,
 * or `-`. An archive's file ends at the first colon. Throws `USAGE` with a hint.
 */
export function parseReference(text: string): ImageReference {
  if (text === "-") return { kind: "stream" };
  if (ARCHIVE.test(text)) return parseArchiveReference(text);
  return text.startsWith("oci:") ? parseLayoutReference(text) : parseRegistryReference(text);
}

function parseArchiveReference(text: string): ArchiveReference {
  const kind = text.startsWith("oci-archive:") ? "oci-archive" : "docker-archive";
  const [rest, digest] = splitDigest(text.slice(kind.length + 1), text);
  const colon = rest.indexOf(":");
  const file = colon < 0 ? rest : rest.slice(0, colon);
  if (file === "" || file.includes("\0")) throw bad(text, `no file after ${kind}:`);
  const named = colon < 0 ? {} : parseArchivedName(rest.slice(colon + 1), kind, text);
  return { kind, file, ...named, ...(digest && { digest }) };
}

function parseArchivedName(text: string, kind: ArchiveReference["kind"], whole: string): { repository?: string; tag: string } {
  if (kind === "oci-archive" && !/[:/]/.test(text)) {
    if (!TAG.test(text)) throw bad(whole, tagHint(text));
    return { tag: text };
  }
  const { name: repository, tag = "latest" } = splitTag(text, whole);
  checkRepository(splitHost(repository, whole).repository, whole);
  return { repository, tag };
}

function parseLayoutReference(text: string): LayoutReference {
  const [rest, digest] = splitDigest(text.slice("oci:".length), text);
  const { name, tag } = splitTag(rest, text);
  if (name === "" || name.includes("\0")) throw bad(text, "no directory after oci:");
  return { kind: "layout", directory: name, ...(tag !== undefined && { tag }), ...(digest && { digest }) };
}

function parseRegistryReference(text: string): RegistryReference {
  if (text.includes("://")) throw bad(text, "references have no scheme; leave out everything up to //");
  const [rest, digest] = splitDigest(text, text);
  const { name, tag } = splitTag(rest, text);
  const { host, repository } = splitHost(name, text);
  checkRepository(repository, text);
  return { kind: "registry", host, repository, ...tagAndDigest(tag, digest) };
}

function checkRepository(repository: string, whole: string): void {
  if (repository.length > MAX_REPOSITORY_LENGTH) throw bad(whole, `the repository has more than ${MAX_REPOSITORY_LENGTH} characters`);
  for (const part of repository.split("/")) {
    if (!PATH_PART.test(part))
      throw bad(whole, `${JSON.stringify(part)} in the repository: lower-case letters, digits and single . _ - between them`);
  }
}

function tagAndDigest(tag: string | undefined, digest: Digest | undefined): { tag?: string; digest?: Digest } {
  if (digest) return tag === undefined ? { digest } : { tag, digest };
  return { tag: tag ?? "latest" };
}

function splitDigest(text: string, whole: string): [rest: string, digest: Digest | undefined] {
  const at = text.lastIndexOf("@");
  if (at < 0) return [text, undefined];
  const digest = text.slice(at + 1);
  if (isDigest(digest)) return [text.slice(0, at), digest];
  // In a directory's or a file's name an @ means nothing.
  if (LOCAL.test(whole) && !/^[a-z0-9+._-]+:[0-9a-fA-F]{32,}$/.test(digest)) return [text, undefined];
  try {
    return [text.slice(0, at), parseDigest(digest, "")];
  } catch (cause) {
    throw bad(whole, `${JSON.stringify(digest)} is no digest; expected sha256: and 64 lower-case hex digits`, { cause });
  }
}

/** A colon before the last slash belongs to a port or a directory. */
function splitTag(text: string, whole: string): { name: string; tag: string | undefined } {
  const colon = text.lastIndexOf(":");
  if (colon < 0 || text.indexOf("/", colon) >= 0) return { name: text, tag: undefined };
  const tag = text.slice(colon + 1);
  if (!TAG.test(tag)) throw bad(whole, tagHint(tag));
  return { name: text.slice(0, colon), tag };
}

/** A tag on its own. Throws `USAGE`; whatever passes is safe as a part of a path. */
export function parseTag(text: string): string {
  if (TAG.test(text)) return text;
  throw new LazyError("USAGE", tagHint(text));
}

function tagHint(tag: string): string {
  return `tag ${JSON.stringify(tag.slice(0, 200))}: at most 128 letters, digits and _ . -, not starting with . or -`;
}

function splitHost(name: string, whole: string): { host: string; repository: string } {
  const slash = name.indexOf("/");
  const first = name.slice(0, Math.max(slash, 0));
  const isHost = /[.:[]/.test(first) || first.toLowerCase() === "localhost";
  const host = isHost ? first.toLowerCase() : "docker.io";
  const repository = isHost ? name.slice(slash + 1) : name;
  if (repository === "") throw bad(whole, "no repository; expected host/repository:tag");
  const port = host.length <= MAX_HOST_LENGTH ? HOST.exec(host) : null;
  if (!port || Number(port[1] ?? 1) > 65_535 || Number(port[1] ?? 1) === 0)
    throw bad(whole, `${JSON.stringify(first)} is no host or host:port`);
  if (!DOCKER_HUB_NAMES.has(host)) return { host, repository };
  return { host: DOCKER_HUB_HOST, repository: repository.includes("/") ? repository : `library/${repository}` };
}

/** The shortest full form, for messages; parses to the same reference. */
export function formatReference(reference: ImageReference): string {
  if (reference.kind === "stream") return "-";
  const { tag, digest } = reference;
  return placeOf(reference) + (tag === undefined ? "" : `:${tag}`) + (digest === undefined ? "" : `@${digest}`);
}

function placeOf(reference: Exclude<ImageReference, StreamReference>): string {
  if (reference.kind === "registry") return `${reference.host}/${reference.repository}`;
  if (reference.kind === "layout") return `oci:${reference.directory}`;
  return `${reference.kind}:${reference.file}${reference.repository === undefined ? "" : `:${reference.repository}`}`;
}

/**
 * Whether an image that is put there takes the place of the other one: under its tag, or, since an archive is written anew, in its file.
 * Different names of one file or directory are not seen through, beyond `.` and `..`.
 */
export function replacesImage(destination: ImageReference, source: ImageReference): boolean {
  if (destination.kind === "stream" || source.kind === "stream") return false;
  if ("file" in destination && "file" in source) return normalize(destination.file) === normalize(source.file);
  return formatReference(destination) === formatReference(source);
}

function bad(text: string, hint: string, options?: ErrorOptions): LazyError {
  return new LazyError("USAGE", `image reference ${JSON.stringify(text.slice(0, 300))}: ${hint}`, options);
}
