import { isIPv6 } from "node:net";
import { LazyError } from "../../errors.ts";

/** Where a server listens. */
export type NbdAddress =
  | { readonly kind: "unix"; readonly path: string }
  /** Port 0 lets the system choose a free one. */
  | { readonly kind: "tcp"; readonly host: string; readonly port: number };

/** The kernel's limit, without the NUL. */
const MAX_UNIX_PATH_BYTES = 107;

/** Parses `unix:/PATH`, `HOST:PORT` or `[ADDRESS]:PORT`. Throws `USAGE`. */
export function parseNbdAddress(text: string): NbdAddress {
  const expected = (what: string): LazyError =>
    new LazyError("USAGE", `NBD address ${JSON.stringify(text)}: ${what}; expected unix:/PATH or HOST:PORT`);
  if (text.startsWith("unix:")) {
    const path = text.slice("unix:".length);
    if (!path.startsWith("/") || path.includes("\0")) throw expected("the path is not absolute");
    if (Buffer.byteLength(path) > MAX_UNIX_PATH_BYTES) throw expected(`the path is longer than ${MAX_UNIX_PATH_BYTES} bytes`);
    return { kind: "unix", path };
  }
  const match = /^(?:\[([^\]]+)\]|([^:[\]/\s]+)):(\d{1,5})$/.exec(text);
  if (match === null) throw expected("found neither");
  const [, bracketed, name, digits] = match;
  if (bracketed !== undefined && !isIPv6(bracketed)) throw expected(`${bracketed} is no IPv6 address`);
  const port = Number(digits);
  if (port > 65535) throw expected(`port ${port} is larger than 65535`);
  return { kind: "tcp", host: bracketed ?? name, port };
}

/** The address of an export as NBD clients take it. */
export function nbdUri(address: NbdAddress, name: string): string {
  const path = encodeURIComponent(name);
  if (address.kind === "unix") return `nbd+unix:///${path}?socket=${address.path.split("/").map(encodeURIComponent).join("/")}`;
  return `nbd://${isIPv6(address.host) ? `[${address.host}]` : address.host}:${address.port}/${path}`;
}
