import type { TarEntry } from "../../src/tar/tar-entry.ts";
import { TarReader } from "../../src/tar/tar-reader.ts";

/** A member of an archive with its stored data. */
export interface ReadMember extends TarEntry {
  readonly data: Buffer;
}

/** All members of an archive, which is written to the reader in pieces of the given sizes, the last one repeated. */
export function readTar(bytes: Uint8Array, pieceSizes: readonly number[] = [bytes.length], name = "layer"): ReadMember[] {
  const members: ReadMember[] = [];
  let entry: TarEntry | undefined;
  let pieces: Buffer[] = [];
  const reader = new TarReader(
    {
      entry(next) {
        if (entry !== undefined) throw new Error("entry before the end of the last one");
        entry = next;
      },
      data(piece) {
        if (entry === undefined || piece.length === 0) throw new Error("data without an entry, or none");
        pieces.push(Buffer.from(piece));
      },
      entryEnd() {
        if (entry === undefined) throw new Error("end without an entry");
        members.push({ ...entry, data: Buffer.concat(pieces) });
        entry = undefined;
        pieces = [];
      },
    },
    name,
  );
  for (let at = 0, piece = 0; at < bytes.length; piece++) {
    const size = Math.max(1, pieceSizes[Math.min(piece, pieceSizes.length - 1)]);
    reader.write(bytes.subarray(at, at + size));
    at += size;
  }
  reader.close();
  return members;
}

/** The content of a file with its holes filled with zeros. */
export function contentOf(member: ReadMember): Buffer {
  const content = Buffer.alloc(member.size);
  let at = 0;
  for (const { offset, length } of member.extents) {
    member.data.copy(content, offset, at, at + length);
    at += length;
  }
  return content;
}
