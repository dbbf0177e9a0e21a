import { once } from "node:events";
import type { IncomingMessage } from "node:http";
import { corrupt, LazyError, messageOf } from "../errors.ts";
import { optionalString, parseJsonObject, requireObject } from "../oci/json.ts";
import { readClientCertificate, readRootFile } from "./certificate-files.ts";
import { findAuth } from "./credential-files.ts";
import type { Credential, CredentialSource } from "./credentials.ts";
import { http, https } from "./node-http.ts";
import { redactUrl } from "./registry-error.ts";

/** Where a service answers. */
export type ServiceAddress =
  | { readonly kind: "http"; readonly url: string }
  | SecuredAddress
  | { readonly kind: "uds"; readonly socketPath: string };

/** The service is verified. Files that are not given: the machine's authorities, no certificate of our own, a key beside its certificate. */
export interface SecuredAddress {
  readonly kind: "https";
  readonly url: string;
  readonly serverAuthorityPath?: string | undefined;
  readonly certificatePath?: string | undefined;
  readonly keyPath?: string | undefined;
}

export interface CredentialServiceOptions {
  /** For question and answer together. */
  readonly timeoutMs: number;
  /** Told why it is gone on without credentials. */
  readonly notice: (message: string) => void;
}

const UDS_URL = "http://localhost/auth";
const MAX_ANSWER_BYTES = 1 << 20;

/**
 * A service that knows credentials. It is asked `GET URL?remote_url=BLOB_URL`, the latter as it is, not escaped, and answers 200 with
 * `{"success":true,"data":{"auths":{…}}}`: entries as in docker's `config.json`, of which the longest that matches counts.
 * A service that fails is told of and gone on without, as the registry may not need to know who asks.
 */
export class CredentialService implements CredentialSource {
  readonly #address: ServiceAddress;
  readonly #options: CredentialServiceOptions;

  constructor(address: ServiceAddress, options: CredentialServiceOptions) {
    this.#address = address;
    this.#options = options;
  }

  async credentialFor(host: string, repository: string, url: URL): Promise<Credential | undefined> {
    const where = this.#address.kind === "uds" ? this.#address.socketPath : withoutQuery(this.#address.url);
    try {
      const bytes = await this.#ask(redactUrl(url), where);
      return findAuth(parseAnswer(bytes, where), host, repository, where);
    } catch (error) {
      const shown = error instanceof LazyError ? messageOf(error) : `${where}: ${failureOf(error, this.#options.timeoutMs)}`;
      this.#options.notice(`credential service ${shown}; going on without credentials`);
      return undefined;
    }
  }

  async #ask(blobUrl: string, where: string): Promise<Uint8Array> {
    const base = this.#address.kind === "uds" ? UDS_URL : this.#address.url;
    const { request } = this.#address.kind === "https" ? https() : http;
    const signal = AbortSignal.timeout(this.#options.timeoutMs);
    const asked = request(`${base}${base.includes("?") ? "&" : "?"}remote_url=${blobUrl}`, {
      ...(await connectOptions(this.#address)),
      agent: false,
      headers: { accept: "application/json" },
      signal,
    });
    asked.on("error", () => {}); // told to whoever waits for the answer or reads it
    try {
      const answered = once(asked, "response") as Promise<[IncomingMessage]>;
      asked.end();
      const [answer] = await answered;
      const bytes = await readAnswer(answer, where);
      if (answer.statusCode !== 200) throw new LazyError("UNAVAILABLE", `${where}: answers ${answer.statusCode}, expected 200`);
      return bytes;
    } catch (error) {
      signal.throwIfAborted();
      throw error;
    } finally {
      asked.destroy();
    }
  }
}

interface ConnectOptions {
  readonly socketPath?: string;
  readonly ca?: string;
  readonly cert?: string;
  readonly key?: string;
}

/** Read at each question, so that renewed certificates are seen. A key may be in the file with its certificate. */
async function connectOptions(address: ServiceAddress): Promise<ConnectOptions> {
  if (address.kind === "http") return {};
  if (address.kind === "uds") return { socketPath: address.socketPath };
  const { serverAuthorityPath, certificatePath, keyPath } = address;
  const client = certificatePath === undefined ? undefined : await readClientCertificate(certificatePath, keyPath ?? certificatePath);
  return {
    ...(serverAuthorityPath !== undefined && { ca: await readRootFile(serverAuthorityPath) }),
    ...(client && { cert: client.certificate, key: client.key }),
  };
}

async function readAnswer(body: AsyncIterable<unknown>, where: string): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of body) {
    if (!(chunk instanceof Uint8Array)) throw corrupt(`${where}: answers with something that is not bytes`);
    length += chunk.length;
    if (length > MAX_ANSWER_BYTES) throw corrupt(`${where}: answers with more than ${MAX_ANSWER_BYTES} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks, length);
}

/** The `data` of an answer, which has the `auths`. */
function parseAnswer(bytes: Uint8Array, where: string): ReturnType<typeof requireObject> {
  const answer = parseJsonObject(bytes, `${where}: answer`);
  if (answer["success"] !== true) {
    const trace = optionalString(answer, "traceId", where);
    throw corrupt(`${where}: answers without "success": true${trace ? ` (traceId ${JSON.stringify(trace.slice(0, 80))})` : ""}`);
  }
  const data = requireObject(answer["data"], `${where}: data`);
  requireObject(data["auths"], `${where}: data.auths`);
  return data;
}

function failureOf(error: unknown, timeoutMs: number): string {
  if (error instanceof Error && error.name === "TimeoutError") return `did not answer within ${timeoutMs} ms`;
  const cause = error instanceof Error && error.message === "" ? error.cause : error;
  const code = typeof error === "object" && error !== null && "code" in error ? String(error.code) : "";
  return `cannot be asked: ${messageOf(cause) || code || "unknown reason"}`;
}

function withoutQuery(url: string): string {
  return url.split("?", 1)[0];
}
