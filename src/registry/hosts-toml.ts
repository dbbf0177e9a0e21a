import { parse, type TomlTableWithoutBigInt, type TomlValueWithoutBigInt } from "smol-toml";
import { LazyError, messageOf } from "../errors.ts";
import { isLoopback } from "./origin.ts";

export type Capability = "pull" | "resolve" | "push";

/** A place that serves a registry's content, as `hosts.toml` describes it. Paths of files are as written. */
export interface HostEntry {
  /** With the path before the repository: `https://mirror.example/v2`. */
  readonly url: URL;
  readonly capabilities: ReadonlySet<Capability>;
  readonly roots: readonly string[];
  /** The key is undefined where certificate and key are in one file. */
  readonly clients: readonly { readonly certificate: string; readonly key: string | undefined }[];
  readonly insecure: boolean;
  /** Sent to this place only. Names are lower case. */
  readonly headers: Readonly<Record<string, string>>;
}

export interface HostsFile {
  /** The registry itself; undefined if the file does not say where it is. */
  readonly server: URL | undefined;
  /** What the file says of the registry itself, as for any other entry. */
  readonly own: Omit<HostEntry, "url">;
  /** In the order in which they are to be asked. */
  readonly mirrors: readonly HostEntry[];
}

const CAPABILITIES: readonly Capability[] = ["pull", "resolve", "push"];
const HEADER_NAME = /^[a-z0-9!#$%&'*+.^_`|~-]+$/;
const HEADER_VALUE = /^[\t\x20-\x7e]*$/;

/** Reads containerd's per-registry file. Keys that are not known are ignored, as there. Throws `USAGE`. */
export function parseHostsToml(text: string, path: string): HostsFile {
  const table = parseToml(text, path);
  const { server, host } = table;
  const own = parseEntry(table, path);
  if (server !== undefined && typeof server !== "string") throw bad(path, "server", "a URL");
  if (host !== undefined && !isTable(host)) throw bad(path, "host", 'tables such as [host."https://mirror.example"]');
  const mirrors = Object.entries(host ?? {}).map(([name, entry]) => {
    const where = `${path}: host ${JSON.stringify(name)}`;
    if (!isTable(entry)) throw bad(path, `host ${JSON.stringify(name)}`, "a table");
    return { url: parseHostUrl(name, overridesPath(entry, where), where), ...parseEntry(entry, where) };
  });
  return { server: server ? parseHostUrl(server, overridesPath(table, path), path) : undefined, own, mirrors };
}

function parseToml(text: string, path: string): TomlTableWithoutBigInt {
  try {
    return parse(text, { maxDepth: 16 });
  } catch (error) {
    // Only the first line: what follows quotes the file, which may hold an Authorization header.
    throw new LazyError("USAGE", `${path}: is not valid TOML: ${messageOf(error).split("\n")[0]}`);
  }
}

function parseEntry(table: TomlTableWithoutBigInt, where: string): Omit<HostEntry, "url"> {
  const { skip_verify: skipVerify, ca, client } = table;
  if (skipVerify !== undefined && typeof skipVerify !== "boolean") throw bad(where, "skip_verify", "true or false");
  return {
    capabilities: parseCapabilities(table["capabilities"], where),
    roots: ca === undefined ? [] : parseStrings(ca, where, "ca"),
    clients: parseClients(client, where),
    insecure: skipVerify ?? false,
    headers: parseHeaders(table["header"], where),
  };
}

function overridesPath(table: TomlTableWithoutBigInt, where: string): boolean {
  const value = table["override_path"];
  if (value !== undefined && typeof value !== "boolean") throw bad(where, "override_path", "true or false");
  return value ?? false;
}

/** None given means all, as containerd has it. */
function parseCapabilities(value: TomlValueWithoutBigInt | undefined, where: string): ReadonlySet<Capability> {
  const names = value === undefined ? [] : parseStrings(value, where, "capabilities");
  const known = names.map((name) => {
    const capability = CAPABILITIES.find((one) => one === name);
    if (capability === undefined) throw bad(where, `capability ${JSON.stringify(name)}`, CAPABILITIES.join(", "));
    return capability;
  });
  return new Set(known.length === 0 ? CAPABILITIES : known);
}

/** `"one-file"`, `["one-file", …]`, or `[["certificate", "key"], …]`. */
function parseClients(value: TomlValueWithoutBigInt | undefined, where: string): HostEntry["clients"] {
  if (value === undefined) return [];
  return (Array.isArray(value) ? value : [value]).map((item) => {
    if (typeof item === "string") return { certificate: item, key: undefined };
    const pair = parseStrings(item, where, "client");
    if (pair.length < 1 || pair.length > 2) throw bad(where, "client", "a file, or pairs of certificate and key");
    return { certificate: pair[0], key: pair[1] || undefined };
  });
}

function parseHeaders(value: TomlValueWithoutBigInt | undefined, where: string): Record<string, string> {
  if (value === undefined) return {};
  if (!isTable(value)) throw bad(where, "header", "a table");
  return Object.fromEntries(
    Object.entries(value).map(([name, content]) => {
      const text = parseStrings(content, where, "header").join(", ");
      // The value may be a secret, so it is not shown.
      if (!HEADER_NAME.test(name.toLowerCase()) || !HEADER_VALUE.test(text))
        throw bad(where, "header", "names and values that HTTP allows");
      return [name.toLowerCase(), text];
    }),
  );
}

function parseStrings(value: TomlValueWithoutBigInt, where: string, key: string): string[] {
  return (Array.isArray(value) ? value : [value]).map((item) => {
    if (typeof item !== "string") throw bad(where, key, "a string or a list of strings");
    return item;
  });
}

function parseHostUrl(text: string, overridePath: boolean, where: string): URL {
  const bare = !/^[a-z][a-z0-9+.-]*:\/\//i.test(text);
  const full = bare ? `${isLoopback(text.split("/")[0]) ? "http" : "https"}://${text}` : text;
  const url = URL.canParse(full) ? new URL(full) : undefined;
  if (url === undefined || !/^https?:$/.test(url.protocol)) throw bad(where, JSON.stringify(text), "an http or https address");
  if (url.username || url.password || url.search || url.hash)
    throw bad(where, `the address of ${url.host}`, "one without user, query and fragment");
  const path = url.pathname.replace(/\/+$/, "");
  url.pathname = overridePath || path.endsWith("/v2") ? path : `${path}/v2`;
  return url;
}

function isTable(value: TomlValueWithoutBigInt | undefined): value is TomlTableWithoutBigInt {
  return typeof value === "object" && !Array.isArray(value) && !(value instanceof Date);
}

function bad(where: string, what: string, expected: string): LazyError {
  return new LazyError("USAGE", `${where}: ${what}: expected ${expected}`);
}
