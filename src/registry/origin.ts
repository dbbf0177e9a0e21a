import { isIPv4, isIPv6 } from "node:net";

/** `localhost`, 127.0.0.0/8 and ::1, with or without a port. */
export function isLoopback(host: string): boolean {
  const name = bareHost(host);
  if (name === "localhost" || name.endsWith(".localhost")) return true;
  const address = embeddedIPv4(name);
  return isIPv4(address) ? address.startsWith("127.") : name === "::1";
}

/**
 * Addresses that no registry lives at, and that answer with a machine's own secrets on many clouds:
 * 169.254.0.0/16, fe80::/10, and the unspecified addresses.
 */
export function isLinkLocal(host: string): boolean {
  const name = bareHost(host);
  const address = embeddedIPv4(name);
  if (isIPv4(address)) return address.startsWith("169.254.") || address.startsWith("0.");
  return isIPv6(name) && (/^fe[89ab]/.test(name) || name === "::");
}

function bareHost(host: string): string {
  const bracketed = /^\[(.*)\](?::\d+)?$/.exec(host);
  return (bracketed ? bracketed[1] : isIPv6(host) ? host : host.replace(/:\d+$/, "")).toLowerCase().replace(/\.$/, "");
}

/** The IPv4 address inside of an IPv4-mapped one as URLs write it (`::ffff:a9fe:a9fe`), otherwise the text itself. */
function embeddedIPv4(name: string): string {
  const mapped = /^::ffff:([0-9a-f]{1,4}):([0-9a-f]{1,4})$/.exec(name);
  if (!mapped) return name.startsWith("::ffff:") ? name.slice("::ffff:".length) : name;
  const [high, low] = [Number.parseInt(mapped[1], 16), Number.parseInt(mapped[2], 16)];
  return [high >> 8, high & 255, low >> 8, low & 255].join(".");
}
