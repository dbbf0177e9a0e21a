import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { z } from "zod";
import { LazyError, messageOf, type ErrorCode } from "../errors.ts";

const MAX_BODY_BYTES = 16 * 2 ** 20;

/** A refusal with a status of its own, e.g. 409. */
export class HttpError extends Error {
  readonly status: number;
  readonly code: string;

  constructor(status: number, code: string, message: string) {
    super(message);
    this.name = "HttpError";
    this.status = status;
    this.code = code;
  }
}

/** What a client asks for. */
export interface JsonRequest {
  /** Parts of the path that the route's pattern names, decoded. */
  readonly parameters: Readonly<Record<string, string>>;
  readonly query: URLSearchParams;
  /** As the route's schema made it; undefined where there is none. */
  readonly body: unknown;
}

export interface JsonReply {
  readonly status: number;
  readonly body: object;
}

export interface Route {
  readonly method: "GET" | "POST" | "DELETE";
  /** `/devices/{id}`: each part in braces is a parameter. */
  readonly path: string;
  /** Of the request's body. */
  readonly schema?: z.ZodType | undefined;
  readonly handle: (request: JsonRequest) => Promise<JsonReply> | JsonReply;
}

const STATUS_OF: Readonly<Record<ErrorCode, number>> = {
  USAGE: 400,
  NOT_FOUND: 404,
  DENIED: 403,
  UNSUPPORTED: 422,
  CORRUPT: 422,
  UNAVAILABLE: 503,
};

/** A server that answers JSON, and `{success, code, message}` for whatever goes wrong. */
export function createJsonServer(routes: readonly Route[]): Server {
  return createServer((request, response) => {
    answer(routes, request).then(
      ({ status, body }) => send(response, status, body),
      (error: unknown) => {
        const { status, code } = failureOf(error);
        send(response, status, { success: false, code, message: messageOf(error) });
      },
    );
  });
}

function failureOf(error: unknown): { readonly status: number; readonly code: string } {
  if (error instanceof HttpError) return error;
  return error instanceof LazyError ? { status: STATUS_OF[error.code], code: error.code } : { status: 500, code: "INTERNAL" };
}

async function answer(routes: readonly Route[], request: IncomingMessage): Promise<JsonReply> {
  const url = new URL(request.url ?? "/", "http://localhost");
  const matches = routes.flatMap((route) => {
    const parameters = matchPath(route.path, url.pathname);
    return parameters === undefined ? [] : [{ route, parameters }];
  });
  if (matches.length === 0) throw new HttpError(404, "NOT_FOUND", `${url.pathname}: there is no such path`);
  const found = matches.find(({ route }) => route.method === request.method);
  if (found === undefined) {
    const methods = matches.map(({ route }) => route.method).join(", ");
    throw new HttpError(405, "USAGE", `${url.pathname}: method ${request.method}, expected ${methods}`);
  }
  const { route, parameters } = found;
  const body = route.schema === undefined ? undefined : parseBody(await readBody(request), route.schema);
  return await route.handle({ parameters, query: url.searchParams, body });
}

function matchPath(pattern: string, path: string): Record<string, string> | undefined {
  const [wanted, given] = [pattern.split("/"), path.split("/")];
  if (wanted.length !== given.length) return undefined;
  const parameters: Record<string, string> = {};
  for (const [index, part] of wanted.entries()) {
    const name = /^\{(\w+)\}$/.exec(part)?.[1];
    if (name === undefined && part !== given[index]) return undefined;
    if (name !== undefined) parameters[name] = decoded(given[index]);
  }
  return parameters;
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw new HttpError(400, "USAGE", `${JSON.stringify(text)}: expected percent signs to be followed by two hexadecimal digits of UTF-8`);
  }
}

async function readBody(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > MAX_BODY_BYTES) throw new HttpError(413, "USAGE", `the body is larger than ${MAX_BODY_BYTES} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString();
}

function parseBody(text: string, schema: z.ZodType): unknown {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new HttpError(400, "USAGE", `the body is no JSON: ${messageOf(error)}`);
  }
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const problems = parsed.error.issues.map(({ path, message }) => `${path.map(String).join(".") || "the body"}: ${message}`);
  throw new HttpError(400, "USAGE", problems.join("; "));
}

function send(response: ServerResponse, status: number, body: object): void {
  const text = `${JSON.stringify(body)}\n`;
  response.writeHead(status, { "content-type": "application/json", "content-length": Buffer.byteLength(text) });
  response.end(text);
}
