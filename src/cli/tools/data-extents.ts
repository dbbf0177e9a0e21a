import { spawn } from "node:child_process";
import { basename, dirname, resolve } from "node:path";
import { LazyError } from "../../errors.ts";
import type { FileExtent } from "../../formats/lsmt/unsealed-layer.ts";
import { TarReader } from "../../tar/tar-reader.ts";

/** GNU tar puts the map of a sparse file in front of its data; with these flags the map is what the filesystem says. */
const TAR_ARGUMENTS = ["--create", "--file=-", "--format=pax", "--sparse", "--hole-detection=seek"];
const MAX_COMPLAINT_BYTES = 4096;

/**
 * Where a file has data and no holes, ascending. Node has no call for it (SEEK_DATA), so tar is asked, and stopped when it gets to
 * the data. Throws `UNSUPPORTED` where there is no GNU tar.
 */
export async function findDataExtents(path: string): Promise<FileExtent[]> {
  const file = resolve(path);
  const tar = spawn("tar", [...TAR_ARGUMENTS, `--directory=${dirname(file)}`, "--", basename(file)], {
    stdio: ["ignore", "pipe", "pipe"],
    env: { LC_ALL: "C", PATH: "/usr/sbin:/usr/bin:/sbin:/bin" },
  });
  const ended = new Promise<void>((done, fail) => {
    tar.once("error", fail);
    tar.once("close", () => done());
  });
  let complaint = "";
  tar.stderr.on("data", (bytes: Buffer) => (complaint = (complaint + bytes.toString()).slice(0, MAX_COMPLAINT_BYTES)));
  let extents: FileExtent[] | undefined;
  const reader = new TarReader({ entry: (entry) => (extents = [...entry.extents]), data: () => {}, entryEnd: () => {} }, `tar of ${path}`);
  try {
    for await (const chunk of tar.stdout as AsyncIterable<Buffer>) {
      reader.write(chunk);
      if (extents !== undefined) break;
    }
    tar.kill();
    await ended;
  } catch (error) {
    tar.kill();
    if (error instanceof Error && "code" in error && error.code === "ENOENT") throw noTar(path, error);
    throw error;
  }
  if (extents === undefined) throw noTar(path, new Error(complaint.trim() || "tar printed nothing"));
  return extents;
}

function noTar(path: string, cause: Error): LazyError {
  return new LazyError("UNSUPPORTED", `${path}: a sparse layer's data is found with GNU tar, which does not do it: ${cause.message}`, {
    cause,
  });
}
