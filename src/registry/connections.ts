import type { Agent, AgentOptions } from "node:http";
import { LazyError } from "../errors.ts";
import { guardedLookup } from "./address-guard.ts";
import { http, https } from "./node-http.ts";
import { tlsSettings, trustedRoots, trusting, type HostTls, type TlsOptions } from "./tls.ts";

/** A connection that nobody uses for so long is closed, or for less if the other side says so. */
const IDLE_MS = 4_000;

/** As in `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`. Loopback hosts are never asked through a proxy. */
export interface ProxyOptions {
  readonly http?: string | undefined;
  readonly https?: string | undefined;
  readonly no?: string | undefined;
}

export interface ConnectionOptions {
  /** The registry. Other hosts are those that it names: its token service, its storage. */
  readonly home: URL;
  /** Connections to one host; requests beyond them queue. */
  readonly connectionsPerHost: number;
  readonly tls: TlsOptions;
  readonly proxy?: ProxyOptions | undefined;
}

/** Open connections, in pools that differ in what they are secured with: the registry's, those of configured hosts, all others. */
export class Connections {
  readonly #options: ConnectionOptions;
  readonly #hosts = new Map<string, Promise<HostTls | undefined>>();
  readonly #agents = new Map<string, Promise<Agent>>();
  #isClosed = false;

  constructor(options: ConnectionOptions) {
    this.#options = options;
  }

  /** Throws `USAGE` for certificates that cannot be read or used. */
  async agentFor(url: URL): Promise<Agent> {
    const isHome = url.hostname === this.#options.home.hostname;
    const host = url.protocol === "https:" ? await this.#hostTls(url.host) : undefined;
    const key = host ? url.host : isHome ? "home" : "other";
    const agent = this.#agents.get(`${key} ${url.protocol}`) ?? this.#open(url, host, isHome);
    this.#agents.set(`${key} ${url.protocol}`, agent);
    return await agent;
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    for (const agent of this.#agents.values()) (await agent.catch(() => undefined))?.destroy();
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

  async #open(url: URL, host: HostTls | undefined, isHome: boolean): Promise<Agent> {
    const { tls } = this.#options;
    const options = agentOptions(this.#options, isHome);
    const isSecure = url.protocol === "https:";
    const agent = isSecure ? new (https().Agent)({ ...options, ...(await tlsSettings(tls, host, isHome)) }) : new http.Agent(options);
    // A proxy is no registry: what is said about those does not hold for it.
    if (options.proxyEnv?.[isSecure ? "HTTPS_PROXY" : "HTTP_PROXY"]?.startsWith("https:")) verifyProxy(agent, await trustedRoots(tls));
    if (this.#isClosed) agent.destroy();
    return agent;
  }
}

/** Node takes no settings for a connection to a proxy but those that hold for all, and takes them when it is opened. */
function verifyProxy(agent: Agent, roots: readonly string[]): void {
  const open = agent.createConnection.bind(agent);
  agent.createConnection = (...args) => trusting(roots, () => open(...args));
}

function agentOptions({ home, connectionsPerHost, proxy }: ConnectionOptions, isHome: boolean): AgentOptions {
  const lookup = isHome ? {} : { lookup: guardedLookup(home.hostname) };
  const [http, https] = [proxyAddress(proxy?.http), proxyAddress(proxy?.https)];
  const env = { HTTP_PROXY: http, HTTPS_PROXY: https, NO_PROXY: noProxy(proxy?.no) };
  return { keepAlive: true, timeout: IDLE_MS, maxSockets: connectionsPerHost, ...lookup, ...((http ?? https) && { proxyEnv: env }) };
}

/** A name stands for those below it as well, as it does for other tools. */
function noProxy(text = ""): string {
  const entries = text.split(",").map((entry) => entry.trim());
  const below = entries.filter((entry) => /^[^.*:]/.test(entry)).map((entry) => `.${entry}`);
  return [...entries, ...below, "localhost", "127.0.0.1", "::1", "[::1]"].filter(Boolean).join(",");
}

/** An address may lack `http://`, as it may for other tools. Throws `USAGE` without repeating it: it may hold a password. */
function proxyAddress(text: string | undefined): string | undefined {
  if (!text) return undefined;
  const url = URL.parse(text.includes("://") ? text : `http://${text}`);
  if (url && (url.protocol === "http:" || url.protocol === "https:")) return url.href;
  throw new LazyError("USAGE", "the address of the proxy (HTTP_PROXY, HTTPS_PROXY or ALL_PROXY) is none; expected http://HOST:PORT");
}
