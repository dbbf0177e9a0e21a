import { corrupt, unsupported } from "../../errors.ts";
import type { ByteString } from "../../tree/entry.ts";
import { cleanPath, quoted } from "../../tree/path.ts";

/** What other replayers take of a list. */
export const MAX_LIST_BYTES = 64 * 1024;

/** A line of a list: what to fetch. */
export interface PrefetchPath {
  /** Relative to the image's root, without a slash at either end; `""` is the root. */
  readonly path: ByteString;
  /** All regular files below it are meant. */
  readonly isDirectory: boolean;
  /** Counted from 1. */
  readonly line: number;
}

/**
 * Reads a list of paths, one a line. Throws `CORRUPT` naming file and line for what cannot be a path, `UNSUPPORTED` for lists that
 * are too long.
 * @param name what to call the file in messages
 */
export function parsePrefetchList(bytes: Uint8Array, name: string): PrefetchPath[] {
  if (bytes.length > MAX_LIST_BYTES) {
    throw unsupported(
      `${name}: a list of ${bytes.length} bytes, expected at most ${MAX_LIST_BYTES}; name directories instead of their files`,
    );
  }
  const lines = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("latin1").split("\n");
  return lines.flatMap((text, index) => {
    const trimmed = text.replace(/^ +| *\r?$/g, "");
    return trimmed === "" ? [] : [parseLine(trimmed, index + 1, name)];
  });
}

function parseLine(text: string, line: number, name: string): PrefetchPath {
  const where = `${name}:${line}`;
  // oxlint-disable-next-line no-control-regex -- these show that a file is no text
  if (/[\0-\x08\x0e-\x1f\x7f]/.test(text)) {
    throw corrupt(`${where}: ${quoted(text)} has control characters: the file is neither a trace nor a list of paths`);
  }
  const isDirectory = /(?:^|\/)\*?$/.test(text);
  const path = isDirectory ? text.replace(/\*$/, "") : text;
  if (path.includes("*"))
    throw corrupt(`${where}: ${quoted(text)}: a * may only stand for all that is in a directory, at the end, as in usr/lib/*`);
  try {
    return { path: cleanPath(path), isDirectory, line };
  } catch (cause) {
    throw corrupt(`${where}: ${quoted(text)} is no path that Linux could look up`, { cause });
  }
}
