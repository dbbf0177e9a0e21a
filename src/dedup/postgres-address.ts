import { LazyError } from "../errors.ts";

/** Where a PostgreSQL server is, and how to talk to it. */
export interface PostgresAddress {
  /** A name, an address, or the directory of a unix socket. */
  readonly host: string;
  readonly port: number;
  readonly user: string;
  readonly password: string;
  readonly database: string;
  readonly tls: "off" | "skip-verify" | "verify-ca" | "verify-full";
  /** Files in PEM. */
  readonly rootCertificate?: string | undefined;
  readonly certificate?: string | undefined;
  readonly key?: string | undefined;
  readonly connectTimeoutMs: number;
}

const DEFAULT_PORT = 5432;
const DEFAULT_CONNECT_TIMEOUT_S = 10;
const MAX_LENGTH = 4096;
const KNOWN = new Set(
  "host hostaddr port user password dbname sslmode sslrootcert sslcert sslkey connect_timeout application_name client_encoding".split(" "),
);

/** Without the name: a password with an unquoted space falls into pieces that look like names. */
const UNKNOWN = `has a parameter that is none of ${[...KNOWN].join(", ")}`;

/**
 * Parses what libpq calls a connection string: `postgres://user:password@host:port/database?sslmode=…`, or `host=… port=… dbname=…`
 * with values in single quotes where they have spaces. Throws `USAGE`; the message never quotes what may be a password.
 *
 * Without `sslmode`, a server on this machine is reached in the clear and any other with TLS and a verified certificate.
 */
export function parsePostgresAddress(text: string): PostgresAddress {
  if (text.length > MAX_LENGTH) throw bad(`is longer than ${MAX_LENGTH} characters`);
  const settings = /^postgres(?:ql)?:\/\//.test(text) ? urlSettings(text) : keywordSettings(text);
  const host = settings.get("host") ?? settings.get("hostaddr") ?? "localhost";
  const user = settings.get("user") ?? "";
  if (user === "") throw bad("names no user");
  if (/[\s,\0]/.test(host) || host === "") throw bad("has a host that is not one name, address or socket directory");
  return {
    host,
    port: wholeNumber(settings, "port", DEFAULT_PORT, 65_535),
    user,
    password: settings.get("password") ?? "",
    database: settings.get("dbname") ?? user,
    tls: parseSslMode(settings.get("sslmode"), host),
    rootCertificate: settings.get("sslrootcert"),
    certificate: settings.get("sslcert"),
    key: settings.get("sslkey"),
    connectTimeoutMs: 1000 * wholeNumber(settings, "connect_timeout", DEFAULT_CONNECT_TIMEOUT_S, 86_400),
  };
}

function urlSettings(text: string): Map<string, string> {
  const match = /^[a-z]+:\/\/(?:([^@/?#]*)@)?(\[[^\]/?#]*\]|[^:/?#[\]]*)(?::(\d*))?(?:\/([^?#]*))?(?:\?([^#]*))?$/.exec(text);
  if (match === null) throw bad("is no URL that can be taken apart; write @ : / ? # in names and passwords as %40 %3A %2F %3F %23");
  const [, login, host, port, database, query] = match;
  const settings = new Map<string, string>();
  const set = (name: string, value: string | undefined): void => {
    if (value === undefined || value === "") return;
    if (!KNOWN.has(name)) throw bad(UNKNOWN);
    settings.set(name, value);
  };
  const colon = login?.indexOf(":") ?? -1;
  set("user", decoded(colon < 0 ? login : login?.slice(0, colon)));
  if (colon >= 0) set("password", decoded(login?.slice(colon + 1)));
  set("host", decoded(host?.replace(/^\[(.*)\]$/, "$1")));
  set("port", port);
  set("dbname", decoded(database));
  for (const pair of (query ?? "").split("&").filter((part) => part !== "")) {
    const equals = pair.indexOf("=");
    if (equals < 0) throw bad("has a parameter without a value");
    set(pair.slice(0, equals), decoded(pair.slice(equals + 1)));
  }
  return settings;
}

/** `name = value` pairs; in values, `\` stands before a quote or another `\`. */
function keywordSettings(text: string): Map<string, string> {
  const settings = new Map<string, string>();
  const pair = /\s*([a-z_]+)\s*=\s*(?:'((?:\\[^]|[^'\\])*)'|((?:\\[^]|[^'\\\s])*))(?=\s|$)/y;
  const end = text.trimEnd().length;
  while (pair.lastIndex < end) {
    const match = pair.exec(text);
    if (match === null) throw bad("is neither a URL nor a list of name=value");
    const [, name, inQuotes, plain] = match;
    if (!KNOWN.has(name)) throw bad(UNKNOWN);
    settings.set(name, (inQuotes ?? plain ?? "").replace(/\\([^])/g, "$1"));
  }
  if (settings.size === 0) throw bad("is empty");
  return settings;
}

function parseSslMode(mode: string | undefined, host: string): PostgresAddress["tls"] {
  const isHere = host.startsWith("/") || host === "localhost" || host === "::1" || /^127(?:\.\d{1,3}){3}$/.test(host);
  switch (mode) {
    case undefined:
      return isHere ? "off" : "verify-full";
    case "disable":
      return "off";
    case "require":
      return "skip-verify";
    case "verify-ca":
    case "verify-full":
      return mode;
    default:
      throw bad("has an sslmode that is none of disable, require, verify-ca and verify-full");
  }
}

function wholeNumber(settings: ReadonlyMap<string, string>, name: string, otherwise: number, most: number): number {
  const text = settings.get(name);
  if (text === undefined) return otherwise;
  const number = /^\d{1,9}$/.test(text) ? Number(text) : 0;
  if (number < 1 || number > most) throw bad(`has a ${name} that is no number from 1 to ${most}`);
  return number;
}

function decoded(text: string | undefined): string | undefined {
  try {
    return text === undefined ? undefined : decodeURIComponent(text);
  } catch {
    throw bad("has a % that does not start a code; write it as %25");
  }
}

function bad(what: string): LazyError {
  return new LazyError(
    "USAGE",
    `--db-str ${what}; expected postgres://user:password@host:port/database, or host=… port=… user=… password=… dbname=…`,
  );
}
