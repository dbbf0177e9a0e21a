import { unsupported } from "../errors.ts";
import type { ByteString, EntryType } from "./entry.ts";
import { quoted } from "./path.ts";

const MAX_NAME_BYTES = 255; // Linux XATTR_NAME_MAX
const NAMESPACES = ["user.", "trusted.", "security."];
const ACCESS_ACL = "system.posix_acl_access";
const DEFAULT_ACL = "system.posix_acl_default";

/**
 * The extended attributes of an entry that a Linux filesystem stores for its type: `user.*` only on files and
 * directories, access ACLs on everything but symlinks, default ACLs on directories. The kernel refuses the others, and
 * what unpacks images drops them. Throws `UNSUPPORTED` for names in a namespace that Linux does not have.
 */
export function keptXattrs(type: EntryType, xattrs: ReadonlyMap<ByteString, Uint8Array>): ReadonlyMap<ByteString, Uint8Array> {
  if (xattrs.size === 0) return xattrs;
  const kept = new Map<ByteString, Uint8Array>();
  for (const [name, value] of xattrs) {
    checkName(name);
    if (isStored(type, name)) kept.set(name, value);
  }
  return kept;
}

function checkName(name: ByteString): void {
  const known = name === ACCESS_ACL || name === DEFAULT_ACL || NAMESPACES.some((prefix) => name.startsWith(prefix) && name !== prefix);
  if (!known) {
    throw unsupported(
      `extended attribute ${quoted(name)} cannot be stored; Linux knows ${NAMESPACES.map((prefix) => `${prefix}*`).join(", ")}, ${ACCESS_ACL} and ${DEFAULT_ACL}`,
    );
  }
  if (name.length > MAX_NAME_BYTES)
    throw unsupported(`extended attribute ${quoted(name)} has a name of ${name.length} bytes, Linux allows ${MAX_NAME_BYTES}`);
}

function isStored(type: EntryType, name: ByteString): boolean {
  if (name.startsWith("user.")) return type === "file" || type === "directory";
  if (name === ACCESS_ACL) return type !== "symlink";
  if (name === DEFAULT_ACL) return type === "directory";
  return true;
}
