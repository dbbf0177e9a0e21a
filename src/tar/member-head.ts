import { LazyError } from "../errors.ts";
import { BLOCK_BYTES } from "./header.ts";
import { paxRecord } from "./payload.ts";

/** A member to write. All else is the same for all: root's, of time 0, and not executable. */
export interface WrittenMember {
  /** ASCII, at most 100 characters; a directory's ends with a slash, and its size is 0. */
  readonly path: string;
  readonly size: number;
}

const MAX_PATH_CHARACTERS = 100;
const MAX_OCTAL_SIZE = 0o77777777777;

/** The two blocks of zeros behind the last member. */
export const ARCHIVE_END: Uint8Array = new Uint8Array(2 * BLOCK_BYTES);

/** The headers in front of a member's data: ustar, after a pax header where the size is one that ustar cannot hold. */
export function memberHead({ path, size }: WrittenMember): Uint8Array {
  if (!/^[\x21-\x7e]+$/.test(path) || path.length > MAX_PATH_CHARACTERS) {
    throw new LazyError("USAGE", `tar member ${JSON.stringify(path)}: at most ${MAX_PATH_CHARACTERS} ASCII characters are written`);
  }
  if (!Number.isSafeInteger(size) || size < 0) throw new LazyError("USAGE", `tar member ${path} of ${size} bytes`);
  if (size <= MAX_OCTAL_SIZE) return header(path, path.endsWith("/") ? "5" : "0", size);
  const record = Buffer.from(paxRecord("size", String(size)), "latin1");
  return Buffer.concat([header("pax", "x", record.length), record, memberPadding(record.length), header(path, "0", 0)]);
}

/** The zeros between data of this size and the next block. */
export function memberPadding(size: number): Uint8Array {
  return new Uint8Array((BLOCK_BYTES - (size % BLOCK_BYTES)) % BLOCK_BYTES);
}

function header(path: string, typeflag: string, size: number): Uint8Array {
  const block = Buffer.alloc(BLOCK_BYTES);
  const put = (offset: number, text: string): number => block.write(text, offset, "latin1");
  put(0, path);
  put(100, octal(typeflag === "5" ? 0o755 : 0o644, 8));
  put(108, octal(0, 8)); // uid
  put(116, octal(0, 8)); // gid
  put(124, octal(size, 12));
  put(136, octal(0, 12)); // mtime
  put(148, " ".repeat(8));
  put(156, typeflag);
  put(257, "ustar\x0000");
  put(265, "root");
  put(297, "root");
  const sum = block.reduce((total, byte) => total + byte, 0);
  put(148, `${sum.toString(8).padStart(6, "0")}\0 `);
  return block;
}

function octal(value: number, width: number): string {
  return `${value.toString(8).padStart(width - 1, "0")}\0`;
}
