import { Agent, EnvHttpProxyAgent, type Dispatcher } from "undici";
import { LazyError } from "../errors.ts";
import { guardedLookup } from "./address-guard.ts";
import { tlsSettings, type HostTls, type TlsOptions, type TlsSettings } from "./tls.ts";

/** As in `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`. Loopback hosts are never asked through a proxy. */
export interface ProxyOptions {
  readonly http?: string | undefined;
  readonly https?: string | undefined;
  readonly no?: string | undefined;
}

export interface ConnectionOptions {
  /** The registry. Other hosts are those that it names: its token service, its storage. */
  readonly home: URL;
  /** Connecting, with TLS. */
  readonly connectMs: number;
  /** Connections to one host; requests beyond them queue. */
  readonly connectionsPerHost: number;
  readonly tls: TlsOptions;
  readonly proxy?: ProxyOptions | undefined;
}

/** Open connections, in pools that differ in what they are secured with: the registry's, those of configured hosts, all others. */
export class Connections {
  readonly #options: ConnectionOptions;
  readonly #hosts = new Map<string, Promise<HostTls | undefined>>();
  readonly #pools = new Map<string, Promise<Dispatcher>>();
  #closed = false;

  constructor(options: ConnectionOptions) {
    this.#options = options;
  }

  /** Throws `USAGE` for certificates that cannot be read or used. */
  async poolFor(url: URL): Promise<Dispatcher> {
    const isHome = url.hostname === this.#options.home.hostname;
    const host = url.protocol === "https:" ? await this.#hostTls(url.host) : undefined;
    const key = host ? url.host : isHome ? "home" : "other";
    const pool = this.#pools.get(`${key} ${url.protocol}`) ?? this.#open(url, host, isHome);
    this.#pools.set(`${key} ${url.protocol}`, pool);
    return await pool;
  }

  async close(): Promise<void> {
    this.#closed = true;
    for (const pool of this.#pools.values()) await (await pool.catch(() => undefined))?.destroy();
  }

  async #hostTls(host: string): Promise<HostTls | undefined> {
    const found = this.#hosts.get(host) ?? this.#readHostTls(host);
    this.#hosts.set(host, found);
    return await found;
  }

  async #readHostTls(host: string): Promise<HostTls | undefined> {
    const found = await this.#options.tls.hostTls?.(host);
    const isPlain = found === undefined || (found.roots.length === 0 && found.clientCertificates.length === 0 && !found.insecure);
    return isPlain ? undefined : found;
  }

  async #open(url: URL, host: HostTls | undefined, isHome: boolean): Promise<Dispatcher> {
    const { tls } = this.#options;
    const isSecure = url.protocol === "https:";
    const settings = isSecure ? await tlsSettings(tls, host, isHome) : { rejectUnauthorized: true };
    // A proxy is no registry: what is said about those does not hold for it.
    const proxyTls = this.#options.proxy && isSecure ? await tlsSettings({ ...tls, insecure: false }, undefined, false) : undefined;
    const pool = openPool(this.#options, settings, proxyTls, isHome);
    if (this.#closed) await pool.destroy();
    return pool;
  }
}

function openPool(options: ConnectionOptions, tls: TlsSettings, proxyTls: TlsSettings | undefined, isHome: boolean): Dispatcher {
  const lookup = isHome ? {} : { lookup: guardedLookup(options.home.hostname) };
  const shared = {
    connections: options.connectionsPerHost,
    allowH2: false,
    connect: { ...tls, ...lookup, timeout: options.connectMs },
    requestTls: tls,
    ...(proxyTls && { proxyTls }),
  };
  const { no } = options.proxy ?? {};
  const [http, https] = [proxyAddress(options.proxy?.http), proxyAddress(options.proxy?.https)];
  if (!http && !https) return new Agent(shared);
  // Empty strings keep the agent from looking at the environment by itself.
  const noProxy = [no, "localhost", "127.0.0.1", "[::1]"].filter(Boolean).join(",");
  return new EnvHttpProxyAgent({ ...shared, httpProxy: http ?? "", httpsProxy: https ?? "", noProxy });
}

/** An address may lack `http://`, as it may for other tools. Throws `USAGE` without repeating it: it may hold a password. */
function proxyAddress(text: string | undefined): string | undefined {
  if (!text) return undefined;
  const url = URL.parse(text.includes("://") ? text : `http://${text}`);
  if (url && (url.protocol === "http:" || url.protocol === "https:")) return url.href;
  throw new LazyError("USAGE", "the address of the proxy (HTTP_PROXY, HTTPS_PROXY or ALL_PROXY) is none; expected http://HOST:PORT");
}
