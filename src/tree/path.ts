import { corrupt, unsupported } from "../errors.ts";
import type { ByteString } from "./entry.ts";

const MAX_PATH_BYTES = 4096; // Linux PATH_MAX
/** Linux NAME_MAX, and what a directory entry of ext4 or EROFS can hold. */
export const MAX_NAME_BYTES = 255;

/** An element that has to go: empty, `.` or `..`. */
const UNCLEAN = /(?:^|\/)\.{0,2}(?:\/|$)/;

/**
 * The path relative to the root that an archive's name stands for: no leading or trailing slash, no empty, `.` or `..`
 * element; `""` is the root. `..` stops at the root, absolute names are relative to it, so the result never climbs out.
 * Throws `CORRUPT` for a NUL byte and `UNSUPPORTED` for a name that Linux could not look up.
 */
export function cleanPath(name: ByteString): ByteString {
  if (name.includes("\0")) throw corrupt(`name ${quoted(name)} has a NUL byte in it`);
  const trimmed = name.endsWith("/") ? name.slice(0, -1) : name;
  const path = UNCLEAN.test(trimmed) ? joinedClean(trimmed) : trimmed;
  if (path.length > MAX_NAME_BYTES) checkLengths(path);
  return path;
}

function joinedClean(name: ByteString): ByteString {
  const kept: ByteString[] = [];
  for (const element of name.split("/")) {
    if (element === "..") kept.pop();
    else if (element !== "" && element !== ".") kept.push(element);
  }
  return kept.join("/");
}

function checkLengths(path: ByteString): void {
  if (path.length > MAX_PATH_BYTES) {
    throw unsupported(
      `path ${quoted(path)} is ${path.length} bytes long; paths longer than ${MAX_PATH_BYTES} bytes cannot be opened on Linux`,
    );
  }
  for (const element of path.split("/")) {
    if (element.length > MAX_NAME_BYTES) {
      throw unsupported(`name ${quoted(element)} is ${element.length} bytes long; filesystems hold at most ${MAX_NAME_BYTES}`);
    }
  }
}

/** The path of the directory that holds the last element; the root's is the root. */
export function parentPath(path: ByteString): ByteString {
  const slash = path.lastIndexOf("/");
  return slash < 0 ? "" : path.slice(0, slash);
}

/** The last element; `""` for the root. */
export function baseName(path: ByteString): ByteString {
  return path.slice(path.lastIndexOf("/") + 1);
}

export function joinPath(directory: ByteString, name: ByteString): ByteString {
  return directory === "" ? name : `${directory}/${name}`;
}

/** A byte string for messages: as text where it is UTF-8, with control characters escaped, shortened when long. */
export function quoted(name: ByteString): string {
  const text = Buffer.from(name.length > 200 ? `${name.slice(0, 200)}...` : name, "latin1").toString("utf8");
  return JSON.stringify(text).replaceAll("\u007f", "\\u007f");
}
