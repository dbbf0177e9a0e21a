import type { Device } from "../device/device.ts";
import { openDevice } from "../device/open-device.ts";
import { openFilesystem } from "../device/open-filesystem.ts";
import { LazyError } from "../errors.ts";
import { selectImage } from "../oci/image-selection.ts";
import { parsePlatform } from "../oci/platform.ts";
import type { ByteString } from "../tree/entry.ts";
import { lookupPath, type FilesystemInode, type FilesystemReader, type FileType, type NamedInode } from "../tree/filesystem-reader.ts";
import { quoted } from "../tree/path.ts";
import type { Environment } from "./environment.ts";
import { openReadPlaces } from "./store-options.ts";

const READ_BYTES = 1 << 20;
const TYPE_LETTERS: Readonly<Record<FileType, string>> = {
  file: "-",
  directory: "d",
  symlink: "l",
  character: "c",
  block: "b",
  fifo: "p",
  socket: "s",
  unknown: "?",
};

/** Opens a converted image's filesystem by range reads and gives it to `use`. */
export async function withFilesystem<T>(
  image: string,
  options: unknown,
  environment: Environment,
  use: (reader: FilesystemReader, device: Device) => Promise<T>,
): Promise<T> {
  const { store, target, dataPlace, close } = await openReadPlaces(image, options, environment);
  try {
    const { manifest } = await selectImage(store, target, parsePlatform(platformOf(options) ?? "local", environment.host));
    const device = await openDevice(store, manifest, { dataPlace });
    try {
      return await use(await openFilesystem(device), device);
    } finally {
      await device.close();
    }
  } finally {
    await close();
  }
}

function platformOf(options: unknown): string | undefined {
  const platform = typeof options === "object" && options !== null && "platform" in options ? options.platform : undefined;
  return typeof platform === "string" ? platform : undefined;
}

/** Command-line arguments are UTF-8 text; names in the image are bytes. */
function byteString(text: string): ByteString {
  return Buffer.from(text, "utf8").toString("latin1");
}

/** Prints a directory's names, or the one file's, a line each. */
export async function listPath(image: string, path: string, options: { readonly long?: boolean }, environment: Environment): Promise<void> {
  await withFilesystem(image, options, environment, async (reader) => {
    const number = await lookupPath(reader, byteString(path));
    const { type } = await reader.inode(number);
    const entries = type === "directory" ? await reader.list(number) : [{ name: byteString(path), inode: number }];
    for (const entry of entries.toSorted((a, b) => (a.name < b.name ? -1 : 1))) {
      const line = options.long === true ? await longLine(reader, entry) : entry.name;
      environment.stdout.write(Buffer.from(`${line}\n`, "latin1"));
    }
  });
}

async function longLine(reader: FilesystemReader, entry: NamedInode): Promise<ByteString> {
  const inode = await reader.inode(entry.inode);
  const mode = TYPE_LETTERS[inode.type] + inode.mode.toString(8).padStart(4, "0");
  const time = `${new Date(inode.mtime.seconds * 1000).toISOString().slice(0, 19)}Z`;
  const target = inode.type === "symlink" ? ` -> ${await reader.linkTarget(entry.inode)}` : "";
  return `${mode} ${String(inode.links).padStart(3)} ${inode.uid}:${inode.gid} ${sizeText(inode).padStart(12)} ${time} ${entry.name}${target}`;
}

function sizeText({ type, size, major, minor }: FilesystemInode): string {
  return type === "character" || type === "block" ? `${major},${minor}` : String(size);
}

/** Prints a file's content. */
export async function catPath(image: string, path: string, options: unknown, environment: Environment): Promise<void> {
  await withFilesystem(image, options, environment, async (reader) => {
    const number = await lookupPath(reader, byteString(path));
    const { type } = await reader.inode(number);
    if (type !== "file") throw new LazyError("USAGE", `${image}: ${quoted(byteString(path))} is not a regular file`);
    const file = await reader.file(number);
    for (let at = 0; at < file.size; at += READ_BYTES) {
      environment.signal.throwIfAborted();
      await written(environment, await file.read(at, Math.min(READ_BYTES, file.size - at)));
    }
  });
}

/** Waits until the reader of standard output has taken the bytes. */
async function written(environment: Environment, bytes: Uint8Array): Promise<void> {
  await new Promise<void>((resolve, reject) =>
    environment.stdout.write(bytes, (error?: Error | null) => (error ? reject(error) : resolve())),
  );
}
