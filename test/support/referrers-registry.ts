import { createHash } from "node:crypto";
import { once } from "node:events";
import { createServer, type IncomingMessage, type RequestListener, type ServerResponse } from "node:http";

/**
 * A registry in this process that keeps to the OCI distribution specification 1.1, with its content in memory: pull, push
 * (whole, in one POST, in chunks, resumable), mounts, deletion, tags, referrers. Its own tests hold it against the specification.
 */
export interface ReferrersRegistry extends AsyncDisposable {
  /** `127.0.0.1:PORT`. */
  readonly host: string;
  /** What is stored; a test may change it behind the registry's back. Keys are `REPOSITORY@DIGEST`. */
  readonly blobs: Map<string, Buffer>;
  stop(): Promise<void>;
}

export interface ReferrersRegistryOptions {
  /** Descriptors on one page of referrers. */
  readonly pageSize?: number;
  /** Whether `artifactType` is looked at; registries may leave that to clients. */
  readonly filters?: boolean;
}

const OCI_INDEX = "application/vnd.oci.image.index.v1+json";
const NAME = "([a-z0-9]+(?:(?:\\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\\.|_|__|-+)[a-z0-9]+)*)*)";
const DIGEST = /^sha256:[0-9a-f]{64}$/;
const TAG = /^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$/;

interface Stored {
  readonly bytes: Buffer;
  readonly mediaType: string;
}

interface Upload {
  bytes: Buffer;
  /** Settles when no request is under way: what a broken connection left behind is read first. */
  receiving: Promise<void>;
}

interface Exchange {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly url: URL;
  readonly repository: string;
  readonly rest: string;
}

type Handler = (exchange: Exchange) => void | Promise<void>;

export async function startReferrersRegistry(options: ReferrersRegistryOptions = {}): Promise<ReferrersRegistry> {
  const { listener, blobs } = createRegistry(options);
  const server = createServer(listener).listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("no port");
  const stop = async (): Promise<void> => {
    server.close();
    server.closeAllConnections();
    if (server.listening) await once(server, "close");
  };
  return { host: `127.0.0.1:${address.port}`, blobs, stop, [Symbol.asyncDispose]: stop };
}

/** The registry without a server around it. */
export function createRegistry(options: ReferrersRegistryOptions = {}): { listener: RequestListener; blobs: Map<string, Buffer> } {
  const registry = new MemoryRegistry(options);
  const routes: [pattern: RegExp, methods: Record<string, Handler>][] = [
    [new RegExp(`^/v2/${NAME}/blobs/uploads/()$`), { POST: registry.startUpload }],
    [
      new RegExp(`^/v2/${NAME}/blobs/uploads/([0-9a-z]+)$`),
      { GET: registry.uploadStatus, PATCH: registry.appendChunk, PUT: registry.endUpload, DELETE: registry.cancelUpload },
    ],
    [new RegExp(`^/v2/${NAME}/blobs/([^/]+)$`), { GET: registry.getBlob, HEAD: registry.getBlob, DELETE: registry.deleteBlob }],
    [
      new RegExp(`^/v2/${NAME}/manifests/([^/]+)$`),
      { GET: registry.getManifest, HEAD: registry.getManifest, PUT: registry.putManifest, DELETE: registry.deleteManifest },
    ],
    [new RegExp(`^/v2/${NAME}/tags/list()$`), { GET: registry.listTags }],
    [new RegExp(`^/v2/${NAME}/referrers/([^/]+)$`), { GET: registry.listReferrers }],
  ];
  const listener: RequestListener = (request, response) => {
    const url = new URL(request.url ?? "", "http://registry");
    request.on("error", () => undefined);
    response.on("error", () => undefined);
    if (/^\/v2\/?$/.test(url.pathname)) return void response.writeHead(200).end("{}");
    for (const [pattern, methods] of routes) {
      const match = pattern.exec(decodeURIComponent(url.pathname));
      if (!match) continue;
      const handler = methods[request.method ?? ""];
      if (!handler) return fail(response, 405, "UNSUPPORTED");
      Promise.resolve(handler({ request, response, url, repository: match[1], rest: match[2] })).catch(() => response.destroy());
      return;
    }
    fail(response, 404, "NAME_INVALID");
  };
  return { listener, blobs: registry.blobs };
}

class MemoryRegistry {
  readonly blobs = new Map<string, Buffer>();
  readonly #options: ReferrersRegistryOptions;
  readonly #manifests = new Map<string, Stored>();
  readonly #tags = new Map<string, Map<string, string>>();
  readonly #uploads = new Map<string, Upload>();
  #uploadCount = 0;

  constructor(options: ReferrersRegistryOptions) {
    this.#options = options;
  }

  readonly startUpload: Handler = async (exchange) => {
    const { request, response, url, repository } = exchange;
    const query = url.searchParams;
    const mounted = this.blobs.get(`${query.get("from")}@${query.get("mount")}`);
    if (mounted) {
      this.blobs.set(`${repository}@${query.get("mount")}`, mounted);
      return created(response, `/v2/${repository}/blobs/${query.get("mount")}`);
    }
    const digest = query.get("digest");
    if (digest !== null) return this.#storeBlob(response, repository, digest, await readBody(request));
    const id = `u${++this.#uploadCount}`;
    this.#uploads.set(id, { bytes: Buffer.alloc(0), receiving: Promise.resolve() });
    request.resume();
    response.writeHead(202, { location: `/v2/${repository}/blobs/uploads/${id}?state=x`, "content-length": 0 }).end();
  };

  readonly uploadStatus: Handler = async ({ response, repository, rest }) => {
    const upload = this.#uploads.get(rest);
    if (!upload) return fail(response, 404, "BLOB_UPLOAD_UNKNOWN");
    await upload.receiving.catch(() => undefined);
    response.writeHead(204, { location: `/v2/${repository}/blobs/uploads/${rest}?state=y`, range: rangeOf(upload.bytes) }).end();
  };

  /** What arrived before a connection broke is kept. */
  readonly appendChunk: Handler = async ({ request, response, repository, rest }) => {
    const upload = this.#uploads.get(rest);
    if (!upload) return fail(response, 404, "BLOB_UPLOAD_UNKNOWN");
    const first = /^(\d+)-(\d+)$/.exec(request.headers["content-range"] ?? "")?.[1];
    if (first !== undefined && Number(first) !== upload.bytes.length) return fail(response, 416, "BLOB_UPLOAD_INVALID");
    await receive(request, upload);
    response.writeHead(202, { location: `/v2/${repository}/blobs/uploads/${rest}?state=z`, range: rangeOf(upload.bytes) }).end();
  };

  readonly endUpload: Handler = async ({ request, response, url, repository, rest }) => {
    const upload = this.#uploads.get(rest);
    if (!upload) return fail(response, 404, "BLOB_UPLOAD_UNKNOWN");
    await receive(request, upload);
    this.#uploads.delete(rest);
    this.#storeBlob(response, repository, url.searchParams.get("digest") ?? "", upload.bytes);
  };

  readonly cancelUpload: Handler = ({ response, rest }) => {
    if (!this.#uploads.delete(rest)) return fail(response, 404, "BLOB_UPLOAD_UNKNOWN");
    response.writeHead(204).end();
  };

  #storeBlob(response: ServerResponse, repository: string, digest: string, bytes: Buffer): void {
    if (digestOf(bytes) !== digest) return fail(response, 400, "DIGEST_INVALID");
    this.blobs.set(`${repository}@${digest}`, bytes);
    created(response, `/v2/${repository}/blobs/${digest}`, { "docker-content-digest": digest });
  }

  readonly getBlob: Handler = ({ request, response, repository, rest }) => {
    const bytes = this.blobs.get(`${repository}@${rest}`);
    if (!bytes) return fail(response, 404, "BLOB_UNKNOWN");
    const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? "");
    const headers = { "docker-content-digest": rest, "content-type": "application/octet-stream", "accept-ranges": "bytes" };
    if (!range) return send(request, response, 200, headers, bytes);
    const [first, last] = [Number(range[1]), range[2] === "" ? bytes.length - 1 : Math.min(Number(range[2]), bytes.length - 1)];
    if (first > last) return fail(response, 416, "SIZE_INVALID");
    const part = { ...headers, "content-range": `bytes ${first}-${last}/${bytes.length}` };
    send(request, response, 206, part, bytes.subarray(first, last + 1));
  };

  readonly deleteBlob: Handler = ({ response, repository, rest }) => {
    if (!this.blobs.delete(`${repository}@${rest}`)) return fail(response, 404, "BLOB_UNKNOWN");
    response.writeHead(202).end();
  };

  readonly getManifest: Handler = ({ request, response, repository, rest }) => {
    const digest = DIGEST.test(rest) ? rest : this.#tags.get(repository)?.get(rest);
    const stored = this.#manifests.get(`${repository}@${digest}`);
    if (!stored || digest === undefined) return fail(response, 404, "MANIFEST_UNKNOWN");
    send(request, response, 200, { "content-type": stored.mediaType, "docker-content-digest": digest }, stored.bytes);
  };

  readonly putManifest: Handler = async ({ request, response, repository, rest }) => {
    const bytes = await readBody(request);
    const digest = digestOf(bytes);
    if (DIGEST.test(rest) ? rest !== digest : !TAG.test(rest)) return fail(response, 400, "DIGEST_INVALID");
    const document = parse(bytes);
    if (document === undefined) return fail(response, 400, "MANIFEST_INVALID");
    this.#manifests.set(`${repository}@${digest}`, { bytes, mediaType: request.headers["content-type"] ?? "" });
    const tags = this.#tags.get(repository) ?? new Map<string, string>();
    this.#tags.set(repository, tags);
    if (!DIGEST.test(rest)) tags.set(rest, digest);
    const subject = document.subject?.digest;
    const headers = { "docker-content-digest": digest, ...(subject !== undefined && { "oci-subject": subject }) };
    created(response, `/v2/${repository}/manifests/${digest}`, headers);
  };

  readonly deleteManifest: Handler = ({ response, repository, rest }) => {
    const tags = this.#tags.get(repository);
    const isThere = DIGEST.test(rest) ? this.#manifests.delete(`${repository}@${rest}`) : tags?.delete(rest);
    if (isThere !== true) return fail(response, 404, "MANIFEST_UNKNOWN");
    for (const [tag, digest] of tags ?? []) if (digest === rest) tags?.delete(tag);
    response.writeHead(202).end();
  };

  readonly listTags: Handler = ({ response, url, repository }) => {
    const tags = this.#tags.get(repository);
    if (!tags) return fail(response, 404, "NAME_UNKNOWN");
    const last = url.searchParams.get("last");
    const all = [...tags.keys()].toSorted().filter((tag) => last === null || tag > last);
    const page = url.searchParams.has("n") ? all.slice(0, Number(url.searchParams.get("n"))) : all;
    const link =
      page.length < all.length && page.length > 0 && `</v2/${repository}/tags/list?n=${page.length}&last=${page.at(-1)}>; rel="next"`;
    response
      .writeHead(200, { "content-type": "application/json", ...(link && { link }) })
      .end(JSON.stringify({ name: repository, tags: page }));
  };

  readonly listReferrers: Handler = ({ response, url, repository, rest }) => {
    if (!DIGEST.test(rest)) return fail(response, 400, "DIGEST_INVALID");
    const wanted = this.#options.filters === false ? null : url.searchParams.get("artifactType");
    const all = this.#referrersOf(repository, rest).filter(({ artifactType }) => wanted === null || artifactType === wanted);
    const start = Number(url.searchParams.get("start") ?? 0);
    const end = start + (this.#options.pageSize ?? 1000);
    url.searchParams.set("start", String(end));
    const headers = {
      "content-type": OCI_INDEX,
      ...(wanted !== null && { "oci-filters-applied": "artifactType" }),
      ...(end < all.length && { link: `<${url.pathname}${url.search}>; rel="next"` }),
    };
    const index = { schemaVersion: 2, mediaType: OCI_INDEX, manifests: all.slice(start, end) };
    response.writeHead(200, headers).end(JSON.stringify(index));
  };

  #referrersOf(repository: string, subject: string): { artifactType: string | undefined }[] {
    return [...this.#manifests].flatMap(([key, { bytes, mediaType }]) => {
      const document = parse(bytes);
      if (!key.startsWith(`${repository}@`) || document?.subject?.digest !== subject) return [];
      const artifactType = document.artifactType || document.config?.mediaType;
      return [{ mediaType, digest: digestOf(bytes), size: bytes.length, artifactType, annotations: document.annotations }];
    });
  }
}

interface Document {
  readonly subject?: { readonly digest: string };
  readonly artifactType?: string;
  readonly config?: { readonly mediaType?: string };
  readonly annotations?: Readonly<Record<string, string>>;
}

function parse(bytes: Buffer): Document | undefined {
  try {
    const value: unknown = JSON.parse(bytes.toString());
    return typeof value === "object" && value !== null ? value : undefined;
  } catch {
    return undefined;
  }
}

function digestOf(bytes: Buffer): string {
  return `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
}

function rangeOf(bytes: Buffer): string {
  return `0-${Math.max(0, bytes.length - 1)}`;
}

async function receive(request: IncomingMessage, upload: Upload): Promise<void> {
  upload.receiving = append(request, upload);
  await upload.receiving;
}

async function append(request: IncomingMessage, upload: Upload): Promise<void> {
  const chunks: Buffer[] = [];
  try {
    for await (const chunk of request as AsyncIterable<Buffer>) chunks.push(chunk);
  } finally {
    upload.bytes = Buffer.concat([upload.bytes, ...chunks]);
  }
}

async function readBody(request: IncomingMessage): Promise<Buffer> {
  const body = { bytes: Buffer.alloc(0), receiving: Promise.resolve() };
  await append(request, body);
  return body.bytes;
}

function created(response: ServerResponse, location: string, headers: Record<string, string> = {}): void {
  response.writeHead(201, { location, "content-length": 0, ...headers }).end();
}

function send(request: IncomingMessage, response: ServerResponse, status: number, headers: Record<string, string>, bytes: Buffer): void {
  response.writeHead(status, { ...headers, "content-length": bytes.length }).end(request.method === "HEAD" ? undefined : bytes);
}

function fail(response: ServerResponse, status: number, code: string): void {
  const body = JSON.stringify({ errors: [{ code, message: code.toLowerCase().replaceAll("_", " ") }] });
  response.writeHead(status, { "content-type": "application/json", "content-length": body.length }).end(body);
}
