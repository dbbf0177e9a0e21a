import { ARCHIVE_END, memberHead, memberPadding } from "../tar/member-head.ts";

/** A member to be written: a file, or a directory where the path ends with a slash. */
export interface ArchiveMember {
  readonly path: string;
  readonly size: number;
  /** Exactly `size` bytes, or it throws. */
  readonly content: () => AsyncIterable<Uint8Array>;
}

/** The bytes of a tar with these members, sorted by name: the same members give the same bytes. */
export async function* archiveBytes(members: readonly ArchiveMember[]): AsyncGenerator<Uint8Array> {
  for (const { path, size, content } of members.toSorted((a, b) => (a.path < b.path ? -1 : 1))) {
    yield memberHead({ path, size });
    yield* content();
    yield memberPadding(size);
  }
  yield ARCHIVE_END;
}

export function directoryMember(path: string): ArchiveMember {
  return { path, size: 0, async *content() {} };
}

export function memoryMember(path: string, bytes: Uint8Array): ArchiveMember {
  return {
    path,
    size: bytes.length,
    async *content() {
      yield bytes;
    },
  };
}
