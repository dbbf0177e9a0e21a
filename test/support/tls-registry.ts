import { once } from "node:events";
import type { RequestListener } from "node:http";
import { createServer } from "node:https";
import { readFileSync } from "node:fs";
import { createRegistry } from "./referrers-registry.ts";

export interface TlsRegistryOptions {
  /** Whether clients must show a certificate of the test authority. */
  readonly wantsClientCertificate?: boolean;
  /** What answers; by default a registry. */
  readonly listener?: RequestListener;
}

export interface TlsRegistry extends AsyncDisposable {
  readonly host: string;
  /** The names in the certificates that clients have shown, in order of requests; undefined where none was. */
  readonly clients: (string | undefined)[];
  readonly seen: { readonly url: string; readonly headers: Readonly<Record<string, string | string[] | undefined>> }[];
}

/** The path of a file in testdata/tls. */
export function tlsFile(name: string): string {
  return new URL(`../../testdata/tls/${name}.pem`, import.meta.url).pathname;
}

/** A registry over TLS on 127.0.0.1, with a certificate of the test authority (`tlsFile("ca")`). */
export async function startTlsRegistry(options: TlsRegistryOptions = {}): Promise<TlsRegistry> {
  const clients: TlsRegistry["clients"] = [];
  const seen: TlsRegistry["seen"] = [];
  const { listener = createRegistry().listener, wantsClientCertificate = false } = options;
  const [key, cert, ca] = ["server-key", "server", "ca"].map((name) => readFileSync(tlsFile(name)));
  const server = createServer({ key, cert, ca, requestCert: true, rejectUnauthorized: wantsClientCertificate }, (request, response) => {
    const shown = "getPeerCertificate" in request.socket ? (request.socket as TlsSocket).getPeerCertificate() : undefined;
    clients.push(shown?.subject?.CN);
    seen.push({ url: request.url ?? "", headers: request.headers });
    listener(request, response);
  });
  server.on("tlsClientError", () => undefined);
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("no port");
  return {
    host: `127.0.0.1:${address.port}`,
    clients,
    seen,
    [Symbol.asyncDispose]: async () => {
      server.close();
      server.closeAllConnections();
      if (server.listening) await once(server, "close");
    },
  };
}

interface TlsSocket {
  getPeerCertificate(): { readonly subject?: { readonly CN?: string } };
}
