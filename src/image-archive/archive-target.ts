import { randomUUID } from "node:crypto";
import { open, realpath, rename, rm, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { syncPath } from "../bytes/file-directories.ts";
import type { ByteSink } from "../bytes/sink.ts";
import { LazyError } from "../errors.ts";
import { placeError } from "../image-layout/layout-index.ts";

/** Where a finished archive goes. */
export interface ArchiveTarget {
  readonly name: string;
  /** A path that nothing is at, for a directory with what the archive is made from. It is removed after the last archive. */
  readonly stagingDirectory: string;
  /** Takes a whole archive or nothing of it that anybody would take for one. */
  publish(archive: AsyncIterable<Uint8Array>, signal: AbortSignal | undefined): Promise<void>;
}

/** A file, which is replaced. Throws `NOT_FOUND` without a directory to put it into, `USAGE` for anything but a regular file. */
export async function openFileTarget(name: string): Promise<ArchiveTarget> {
  const file = await pathBehind(name);
  const directory = dirname(file);
  const place = await find(directory);
  if (place === undefined) throw new LazyError("NOT_FOUND", `${directory}: does not exist; make it, or name another file`);
  if (!place.isDirectory()) throw new LazyError("USAGE", `${directory}: is not a directory`);
  const before = await find(file);
  if (before !== undefined && !before.isFile()) throw new LazyError("USAGE", `${file}: is not a regular file, which could be replaced`);
  const stagingDirectory = join(directory, `.lazylayer-${randomUUID()}`);
  return {
    name,
    stagingDirectory,
    publish: async (archive, signal) => await replaceFile(file, join(stagingDirectory, "archive.tar"), archive, signal),
  };
}

/** Where a symlink leads: what it names is replaced, not the link. */
async function pathBehind(name: string): Promise<string> {
  try {
    return await realpath(name);
  } catch {
    return name; // there is nothing yet
  }
}

async function find(path: string): Promise<Awaited<ReturnType<typeof stat>> | undefined> {
  try {
    return await stat(path);
  } catch (error) {
    const failure = placeError(path, error);
    if (failure.code === "NOT_FOUND") return undefined;
    throw failure;
  }
}

/** The file has its name when all of it is on disk. */
async function replaceFile(
  path: string,
  temporary: string,
  archive: AsyncIterable<Uint8Array>,
  signal: AbortSignal | undefined,
): Promise<void> {
  try {
    await using file = await open(temporary, "w");
    for await (const chunk of archive) {
      signal?.throwIfAborted();
      await file.writeFile(chunk);
    }
    await file.sync();
    signal?.throwIfAborted();
    await rename(temporary, path);
    await syncPath(dirname(path));
  } catch (error) {
    await rm(temporary, { force: true });
    signal?.throwIfAborted();
    throw placeError(path, error);
  }
}

/** A stream, which takes one archive. */
export function sinkTarget(sink: ByteSink, name: string, temporaryDirectory: string): ArchiveTarget {
  let isTaken = false;
  return {
    name,
    stagingDirectory: join(temporaryDirectory, `lazylayer-${randomUUID()}`),
    publish: async (archive, signal) => {
      if (isTaken) throw new LazyError("USAGE", `${name}: takes one image only, and has one`);
      isTaken = true;
      for await (const chunk of archive) {
        signal?.throwIfAborted();
        await sink.write(chunk);
      }
      await sink.close();
    },
  };
}
