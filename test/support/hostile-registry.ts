import { once } from "node:events";
import { createServer, request as forward, type IncomingMessage, type ServerResponse } from "node:http";
import type { Socket } from "node:net";

/** What goes wrong with one exchange. */
export type Fault =
  /** Answers by itself; the registry behind sees nothing. */
  | { readonly kind: "answer"; readonly status: number; readonly headers?: Record<string, string>; readonly body?: string | Uint8Array }
  /** Cuts the connection after this many bytes of the answer's body. */
  | { readonly kind: "truncate"; readonly afterBytes: number }
  /** Sends this many bytes of the answer's body, then nothing more. */
  | { readonly kind: "stall"; readonly afterBytes: number }
  /** Flips a bit of the answer's body, in a byte or in the first one of a text that its first piece has. */
  | { readonly kind: "corrupt"; readonly at: number | string }
  /** Hides the Range header from the registry. */
  | { readonly kind: "ignoreRange" }
  /** Resets the connection instead of answering. */
  | { readonly kind: "reset" }
  /** Takes the connection and the head of the request, and does nothing more; the registry behind sees nothing. */
  | { readonly kind: "hang" }
  /** Ends the answer's body after this many bytes as if that were all of it. */
  | { readonly kind: "shorten"; readonly toBytes: number }
  /** Resets the connection after this many bytes of the request's body. */
  | { readonly kind: "resetUpload"; readonly afterBytes: number }
  /** Reaches the registry behind only when this is settled. */
  | { readonly kind: "wait"; readonly until: Promise<unknown> }
  /** Flips a bit of the request's body. */
  | { readonly kind: "corruptUpload"; readonly at: number }
  /** The registry behind does what it was asked to, but the connection is reset instead of its answer. */
  | { readonly kind: "loseAnswer" }
  /** Passes the answer on with other headers. */
  | { readonly kind: "headers"; readonly headers: Record<string, string> };

export interface SeenRequest {
  readonly method: string;
  /** Path and query. */
  readonly url: string;
  readonly headers: Readonly<Record<string, string | undefined>>;
}

/** A server that passes requests on to a real registry, except where a test wants something else. */
export interface HostileRegistry extends AsyncDisposable {
  readonly host: string;
  /** Every request, in order of arrival. */
  readonly seen: SeenRequest[];
  /** The next `times` requests for which `fault` gives something fail in that way; rules added later come first. */
  inject(fault: (request: SeenRequest) => Fault | undefined, times?: number): void;
  /** Forgets rules and requests. */
  reset(): void;
  stop(): Promise<void>;
}

interface Rule {
  readonly fault: (request: SeenRequest) => Fault | undefined;
  left: number;
}

/** `upstream` is `host:port` of a registry over plain HTTP; without one, whatever no rule answers is a 404. */
export async function startHostileRegistry(upstream?: string): Promise<HostileRegistry> {
  const seen: SeenRequest[] = [];
  const rules: Rule[] = [];
  const server = createServer((request, response) => {
    const { authorization, range } = request.headers;
    const headers = { ...plainHeaders(request), authorization, range };
    const what = { method: request.method ?? "", url: request.url ?? "", headers };
    seen.push(what);
    request.on("error", () => undefined);
    response.on("error", () => undefined);
    const fault = takeFault(rules, what);
    if (fault?.kind === "answer" || upstream === undefined)
      return answer(request, response, fault?.kind === "answer" ? fault : { status: 404 });
    if (fault?.kind === "reset") return resetConnection(request.socket);
    if (fault?.kind === "hang") return;
    if (fault?.kind === "wait") {
      const goOn = (): void => pass(upstream, request, response, undefined);
      return void fault.until.then(goOn, goOn);
    }
    pass(upstream, request, response, fault);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("no port");
  const stop = async (): Promise<void> => {
    server.close();
    server.closeAllConnections();
    if (server.listening) await once(server, "close");
  };
  return {
    host: `127.0.0.1:${address.port}`,
    seen,
    inject: (fault, times = 1) => void rules.unshift({ fault, left: times }),
    reset: () => {
      rules.length = 0;
      seen.length = 0;
    },
    stop,
    [Symbol.asyncDispose]: stop,
  };
}

function plainHeaders(request: IncomingMessage): Record<string, string | undefined> {
  return Object.fromEntries(
    Object.entries(request.headers).map(([name, value]) => [name, Array.isArray(value) ? value.join(", ") : value]),
  );
}

function takeFault(rules: Rule[], request: SeenRequest): Fault | undefined {
  for (const rule of rules) {
    const fault = rule.left > 0 ? rule.fault(request) : undefined;
    if (fault) {
      rule.left--;
      return fault;
    }
  }
  return undefined;
}

function answer(
  request: IncomingMessage,
  response: ServerResponse,
  { status, headers, body }: { status: number; headers?: Record<string, string>; body?: string | Uint8Array },
): void {
  request.resume();
  const chunked = headers?.["transfer-encoding"] !== undefined;
  response.writeHead(status, chunked ? headers : { "content-length": String(Buffer.byteLength(body ?? "")), ...headers });
  response.end(request.method === "HEAD" ? undefined : body);
}

function pass(upstream: string, request: IncomingMessage, response: ServerResponse, fault: Fault | undefined): void {
  const [hostname, port] = upstream.split(":");
  const headers = { ...request.headers };
  if (fault?.kind === "ignoreRange") delete headers.range;
  const onward = forward({ hostname, port, method: request.method, path: request.url, headers, agent: false });
  onward.on("error", () => request.socket.destroy());
  onward.on("response", (reply) => {
    if (fault?.kind === "loseAnswer") return void reply.resume().on("end", () => resetConnection(request.socket));
    const { "content-length": length, ...others } = { ...reply.headers, ...(fault?.kind === "headers" && fault.headers) };
    response.writeHead(reply.statusCode ?? 502, {
      ...others,
      ...(length !== undefined && fault?.kind !== "shorten" && { "content-length": length }),
    });
    sendBody(reply, response, fault);
  });
  let received = 0;
  request.on("data", (chunk: Buffer) => {
    if (fault?.kind === "corruptUpload") flipBit(chunk, fault.at - received);
    const cut = fault?.kind === "resetUpload" ? fault.afterBytes - received : Infinity;
    received += chunk.length;
    const isLast = chunk.length >= cut;
    if (isLast) request.pause();
    // What came before the cut reaches the registry.
    onward.write(isLast ? chunk.subarray(0, cut) : chunk, () => {
      if (!isLast) return;
      onward.destroy();
      resetConnection(request.socket);
    });
  });
  request.on("end", () => onward.end());
  response.on("close", () => onward.destroy());
}

/** With an RST, unless it is half closed already: then the handle of a socket that is reset stays, and Node turns in circles when it ends. */
function resetConnection(socket: Socket): void {
  if (socket.writableEnded) socket.destroy();
  else socket.resetAndDestroy();
}

function sendBody(reply: IncomingMessage, response: ServerResponse, fault: Fault | undefined): void {
  const limit = bytesToSend(fault);
  let sent = 0;
  reply.on("error", () => response.destroy());
  reply.on("data", (chunk: Buffer) => {
    const bytes = Buffer.from(chunk.subarray(0, Math.max(0, limit - sent)));
    if (fault?.kind === "corrupt") flipBit(bytes, typeof fault.at === "string" ? bytes.indexOf(fault.at) : fault.at - sent);
    sent += bytes.length;
    if (sent < limit) response.write(bytes);
    else if (fault?.kind === "truncate") response.write(bytes, () => response.destroy());
    else if (bytes.length > 0) response.write(bytes);
  });
  reply.on("end", () => {
    if (sent < limit || fault?.kind === "shorten") response.end();
  });
}

function bytesToSend(fault: Fault | undefined): number {
  if (fault?.kind === "truncate" || fault?.kind === "stall") return fault.afterBytes;
  return fault?.kind === "shorten" ? fault.toBytes : Infinity;
}

function flipBit(bytes: Buffer, at: number): void {
  if (at >= 0 && at < bytes.length) bytes[at] ^= 0x10;
}
