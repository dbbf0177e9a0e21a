import { once } from "node:events";
import { createServer, request as forward, type IncomingMessage, type ServerResponse } from "node:http";

/** What a peer-to-peer proxy was asked. */
export interface ProxiedRequest {
  /** The URL behind the proxy's own address. */
  readonly url: string;
  readonly range: string | undefined;
  readonly authorization: string | undefined;
}

/** Serves `PREFIX/URL` with what the URL has, as peer-to-peer proxies do. */
export interface P2pProxy extends AsyncDisposable {
  readonly address: string;
  readonly seen: ProxiedRequest[];
  /** Instead of passing requests on. */
  answer: ((request: IncomingMessage, response: ServerResponse) => void) | undefined;
}

const PREFIX = "/accelerator/";

export async function startP2pProxy(): Promise<P2pProxy> {
  const seen: ProxiedRequest[] = [];
  const server = createServer((request, response) => {
    const { range, authorization } = request.headers;
    const path = request.url ?? "";
    const url = path.startsWith(PREFIX) ? path.slice(PREFIX.length) : "";
    seen.push({ url, range, authorization });
    if (proxy.answer) proxy.answer(request, response);
    else if (url === "") response.writeHead(404).end();
    else pass(url, { range, authorization }, response);
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("no port");
  const proxy: P2pProxy = {
    address: `http://127.0.0.1:${address.port}${PREFIX.slice(0, -1)}`,
    seen,
    answer: undefined,
    [Symbol.asyncDispose]: async () => {
      server.close();
      server.closeAllConnections();
      if (server.listening) await once(server, "close");
    },
  };
  return proxy;
}

function pass(url: string, headers: Record<string, string | undefined>, response: ServerResponse): void {
  const given = Object.fromEntries(Object.entries(headers).filter(([, value]) => value !== undefined));
  const upstream = forward(url, { headers: given, agent: false }, (answer) => {
    response.writeHead(answer.statusCode ?? 502, answer.headers);
    answer.pipe(response);
  });
  upstream.on("error", () => response.writeHead(502).end());
  upstream.end();
}
