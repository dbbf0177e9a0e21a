import { LazyError } from "../errors.ts";

/** Where a MySQL or MariaDB server is, and how to talk to it. */
export interface MysqlAddress {
  readonly user: string;
  readonly password: string;
  readonly endpoint: { readonly host: string; readonly port: number } | { readonly socketPath: string };
  readonly database: string;
  readonly tls: "off" | "verify" | "skip-verify";
  readonly connectTimeoutMs: number;
  /** For one statement. */
  readonly queryTimeoutMs: number;
  /** System variables of the session, as `name` and an SQL expression. */
  readonly variables: readonly (readonly [name: string, value: string])[];
}

const DEFAULT_PORT = 3306;
const DEFAULT_SOCKET = "/tmp/mysql.sock";
const DEFAULT_CONNECT_TIMEOUT_MS = 10_000;
const DEFAULT_QUERY_TIMEOUT_MS = 30_000;
const MAX_DSN_LENGTH = 4096;

/** What the Go driver knows and makes no difference to our statements, which are ASCII, single and bound by the server. */
const WITHOUT_EFFECT = new Set(
  (
    "allowAllFiles allowFallbackToPlaintext allowNativePasswords charset checkConnLiveness clientFoundRows collation columnsWithAlias " +
    "compress connectionAttributes interpolateParams loc maxAllowedPacket multiStatements parseTime rejectReadOnly timeTruncate"
  ).split(" "),
);
const REFUSED = new Set(["allowCleartextPasswords", "allowOldPasswords", "serverPubKey"]);

/**
 * Parses a data source name as the Go driver for MySQL has it: `[user[:password]@][tcp[(host[:port])] | unix(/socket)]/database[?name=value&…]`.
 * User and password are taken as they stand. Throws `USAGE`; the message never quotes what may be a password.
 */
export function parseMysqlDsn(dsn: string): MysqlAddress {
  if (dsn.length > MAX_DSN_LENGTH) throw bad(`is longer than ${MAX_DSN_LENGTH} characters`);
  const slash = dsn.lastIndexOf("/");
  if (slash < 0) throw bad("has no slash before the database's name");
  const { user, password, network } = splitUser(dsn.slice(0, slash));
  const [name, query = ""] = splitOnce(dsn.slice(slash + 1), "?");
  const database = decoded(name, "the database's name");
  if (database === "") throw bad("names no database after the slash");
  const endpoint = parseEndpoint(network);
  const parameters = parseParameters(query);
  if (parameters.tls === "verify" && !hasName(endpoint)) throw bad("has tls=true and no host's name that a certificate could be for");
  return { user, password, endpoint, database, ...parameters };
}

function splitUser(text: string): { user: string; password: string; network: string } {
  const at = text.lastIndexOf("@");
  const [user, password = ""] = splitOnce(text.slice(0, Math.max(at, 0)), ":");
  return { user, password, network: text.slice(at + 1) };
}

function parseEndpoint(network: string): MysqlAddress["endpoint"] {
  const [protocol, rest] = splitOnce(network, "(");
  if (rest !== undefined && !rest.endsWith(")")) throw bad("has an address without its closing bracket");
  const address = rest?.slice(0, -1) ?? "";
  if (protocol === "unix") return { socketPath: address || DEFAULT_SOCKET };
  if (protocol !== "" && protocol !== "tcp") throw bad("has a network that is neither tcp nor unix; brackets belong around the address");
  if (address === "") return { host: "127.0.0.1", port: DEFAULT_PORT };
  const match = /^(?:\[([0-9A-Fa-f:.]+)\]|([^[\]:\s/@]+))(?::(\d{1,5}))?$/.exec(address);
  const port = Number(match?.[3] ?? DEFAULT_PORT);
  if (match === null || port < 1 || port > 65_535) throw bad("has an address that is not host or host:port, with IPv6 in square brackets");
  return { host: match[1] ?? match[2], port };
}

/** The driver compares certificates with names only, and would take one for `localhost` from any address. */
function hasName(endpoint: MysqlAddress["endpoint"]): boolean {
  return "host" in endpoint && !/:|^[\d.]+$/.test(endpoint.host);
}

function parseParameters(query: string): Pick<MysqlAddress, "tls" | "connectTimeoutMs" | "queryTimeoutMs" | "variables"> {
  const found = new Map<string, string>();
  for (const pair of query.split("&").filter((text) => text !== "")) {
    const [name, value] = splitOnce(pair, "=");
    if (value === undefined) throw bad("has a parameter without a value");
    found.set(name, decoded(value.replaceAll("+", " "), "a parameter"));
  }
  const connectTimeoutMs = parseDuration(found, "timeout", DEFAULT_CONNECT_TIMEOUT_MS);
  const readTimeoutMs = parseDuration(found, "readTimeout", DEFAULT_QUERY_TIMEOUT_MS);
  const writeTimeoutMs = parseDuration(found, "writeTimeout", 0);
  const tls = parseTls(found.get("tls"));
  const variables = [...found].filter(
    ([name]) => !["timeout", "readTimeout", "writeTimeout", "tls"].includes(name) && !WITHOUT_EFFECT.has(name),
  );
  for (const [name] of variables) {
    if (REFUSED.has(name)) throw bad(`sets ${name}, which is not supported`);
    if (!/^[A-Za-z_][A-Za-z0-9_.]{0,63}$/.test(name)) throw bad("has a parameter that is none of the driver and no system variable");
  }
  return { tls, connectTimeoutMs, queryTimeoutMs: Math.max(readTimeoutMs, writeTimeoutMs), variables };
}

function parseTls(text: string | undefined): MysqlAddress["tls"] {
  if (text === undefined || ["false", "0", "f", "F", "FALSE", "False"].includes(text)) return "off";
  if (["true", "1", "t", "T", "TRUE", "True"].includes(text)) return "verify";
  if (text === "skip-verify") return "skip-verify";
  throw bad("has a tls that is none of true, skip-verify and false");
}

const UNIT_MS: Readonly<Record<string, number>> = { ns: 1e-6, us: 1e-3, µs: 1e-3, μs: 1e-3, ms: 1, s: 1000, m: 60_000, h: 3_600_000 };
const MAX_TIMEOUT_MS = 24 * UNIT_MS["h"];

/** A duration of Go, such as `1m30s`; 0 is the default. */
function parseDuration(parameters: ReadonlyMap<string, string>, name: string, otherwise: number): number {
  const text = parameters.get(name) ?? "0";
  if (!/^(?:0|(?:\d{1,12}(?:\.\d{1,9})?(?:ns|us|µs|μs|ms|s|m|h))+)$/.test(text)) throw bad(`has a ${name} that is no duration such as 30s`);
  let milliseconds = 0;
  for (const [, number, unit] of text.matchAll(/([\d.]+)(ns|us|µs|μs|ms|s|m|h)/g)) milliseconds += Number(number) * UNIT_MS[unit];
  if (milliseconds > MAX_TIMEOUT_MS) throw bad(`has a ${name} of more than a day`);
  return milliseconds === 0 ? otherwise : Math.max(1, Math.round(milliseconds));
}

function decoded(text: string, what: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw bad(`has a % in ${what} that does not start a code`);
  }
}

function splitOnce(text: string, separator: string): [string, string | undefined] {
  const at = text.indexOf(separator);
  return at < 0 ? [text, undefined] : [text.slice(0, at), text.slice(at + 1)];
}

function bad(what: string): LazyError {
  return new LazyError("USAGE", `--db-str ${what}; expected user:password@tcp(host:port)/database, or user:password@unix(/path)/database`);
}
