import { homedir, tmpdir } from "node:os";
import { join } from "node:path";
import { addAbortSignal } from "node:stream";
import type { HostPlatform } from "../oci/platform.ts";
import type { SystemRootPlaces } from "../registry/certificate-files.ts";
import type { ProxyOptions } from "../registry/connections.ts";

/** What the commands know of the world around them. Read once, here and nowhere else. */
export interface Environment {
  readonly stdin: AsyncIterable<Uint8Array>;
  readonly stdout: NodeJS.WritableStream & { readonly columns?: number; readonly rows?: number };
  readonly stderr: NodeJS.WritableStream & { readonly columns?: number; readonly rows?: number };
  readonly terminal: TerminalTraits;
  /** The machine's own platform. Images are Linux's, whatever it runs. */
  readonly host: HostPlatform;
  readonly proxy: ProxyOptions;
  /** Files that may hold credentials, the first that knows a registry wins. */
  readonly credentialFiles: readonly string[];
  /** `certs.d` directories, which say how registries are reached. */
  readonly registryHosts: readonly string[];
  /** Where the certificates are that the machine trusts, if not in the usual places. */
  readonly systemRoots: SystemRootPlaces;
  /** All variables, for credential helpers alone. */
  readonly variables: Readonly<Record<string, string | undefined>>;
  readonly temporaryDirectory: string;
  readonly stateDirectory: string;
  readonly cacheDirectory: string;
  /** The layer that `convertor --mkfs=false` builds on. */
  readonly baseLayer: string;
  /** Starts this program anew. */
  readonly launcher: readonly [command: string, ...args: string[]];
  /** Aborted by SIGINT and SIGTERM. */
  readonly signal: AbortSignal;
}

/** What standard error can show. */
export interface TerminalTraits {
  /** Lines can be written over. */
  readonly interactive: boolean;
  readonly color: boolean;
}

export function readEnvironment(signal: AbortSignal): Environment {
  const { env } = process;
  const root = process.geteuid?.() === 0;
  const cacheHome = env["XDG_CACHE_HOME"] || join(homedir(), ".cache");
  const runtime = env["XDG_RUNTIME_DIR"];
  return {
    stdin: addAbortSignal(signal, process.stdin),
    stdout: process.stdout,
    stderr: process.stderr,
    terminal: terminalTraits(env),
    host: { os: "linux", architecture: process.arch },
    proxy: {
      http: env["http_proxy"] ?? env["HTTP_PROXY"] ?? env["ALL_PROXY"],
      https: env["https_proxy"] ?? env["HTTPS_PROXY"] ?? env["ALL_PROXY"],
      no: env["no_proxy"] ?? env["NO_PROXY"],
    },
    credentialFiles: credentialFiles(env, runtime),
    registryHosts: [
      "/etc/containerd/certs.d",
      "/etc/docker/certs.d",
      "/etc/containers/certs.d",
      ...(root ? [] : ["docker", "containers"].map((name) => join(env["XDG_CONFIG_HOME"] || join(homedir(), ".config"), name, "certs.d"))),
    ],
    systemRoots: { file: env["SSL_CERT_FILE"], directories: env["SSL_CERT_DIR"] },
    variables: env,
    temporaryDirectory: tmpdir(),
    stateDirectory: root ? "/run/lazylayer" : join(runtime ?? tmpdir(), "lazylayer"),
    cacheDirectory: root ? "/var/cache/lazylayer" : join(cacheHome, "lazylayer"),
    baseLayer: env["LAZYLAYER_BASE_LAYER"] || "/opt/overlaybd/baselayers/ext4_64",
    launcher: [process.execPath, ...process.execArgv, process.argv[1] ?? ""],
    signal,
  };
}

function terminalTraits(env: NodeJS.ProcessEnv): TerminalTraits {
  const interactive = process.stderr.isTTY === true && env["TERM"] !== "dumb";
  return { interactive, color: interactive && !env["NO_COLOR"] };
}

function credentialFiles(env: NodeJS.ProcessEnv, runtime: string | undefined): string[] {
  const explicit = env["REGISTRY_AUTH_FILE"];
  if (explicit) return [explicit];
  return [
    join(env["DOCKER_CONFIG"] || join(homedir(), ".docker"), "config.json"),
    ...(runtime ? [join(runtime, "containers", "auth.json")] : []),
    join(env["XDG_CONFIG_HOME"] || join(homedir(), ".config"), "containers", "auth.json"),
  ];
}
