import { openDevice } from "../device/device.ts";
import { LazyError } from "../errors.ts";
import { Ext4Reader } from "../formats/ext4/ext4-reader.ts";
import { decodeDevice, type Inode } from "../formats/ext4/inode.ts";
import { FILE_KIND } from "../formats/ext4/layout.ts";
import { lookupPath } from "../formats/ext4/path-lookup.ts";
import { selectImage } from "../oci/image-selection.ts";
import { parsePlatform } from "../oci/platform.ts";
import type { ByteString } from "../tree/entry.ts";
import { quoted } from "../tree/path.ts";
import type { Environment } from "./environment.ts";
import { openReadPlaces } from "./store-options.ts";

const READ_BYTES = 1 << 20;
const TYPE_LETTERS: ReadonlyMap<number, string> = new Map([
  [FILE_KIND.file, "-"],
  [FILE_KIND.directory, "d"],
  [FILE_KIND.symlink, "l"],
  [FILE_KIND.character, "c"],
  [FILE_KIND.block, "b"],
  [FILE_KIND.fifo, "p"],
  [FILE_KIND.socket, "s"],
]);

/** Opens a converted image's filesystem by range reads and gives it to `use`. */
async function withFilesystem<T>(
  image: string,
  options: unknown,
  environment: Environment,
  use: (reader: Ext4Reader) => Promise<T>,
): Promise<T> {
  const { store, target, dataPlace, close } = await openReadPlaces(image, options, environment);
  try {
    const { manifest } = await selectImage(store, target, parsePlatform(platformOf(options) ?? "local", environment.host));
    const device = await openDevice(store, manifest, { dataPlace });
    try {
      return await use(await Ext4Reader.open(device));
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
    const inode = await reader.inode(number);
    const isDirectory = (inode.mode & FILE_KIND.mask) === FILE_KIND.directory;
    const entries = isDirectory ? await reader.list(number) : [{ name: byteString(path), inode: number }];
    for (const entry of entries.toSorted((a, b) => (a.name < b.name ? -1 : 1))) {
      const line = options.long === true ? await longLine(reader, entry) : entry.name;
      environment.stdout.write(Buffer.from(`${line}\n`, "latin1"));
    }
  });
}

async function longLine(reader: Ext4Reader, entry: { name: ByteString; inode: number }): Promise<ByteString> {
  const inode = await reader.inode(entry.inode);
  const kind = inode.mode & FILE_KIND.mask;
  const mode = (TYPE_LETTERS.get(kind) ?? "?") + (inode.mode & 0o7777).toString(8).padStart(4, "0");
  const time = `${new Date(inode.mtime.seconds * 1000).toISOString().slice(0, 19)}Z`;
  const target = kind === FILE_KIND.symlink ? ` -> ${await reader.linkTarget(entry.inode)}` : "";
  return `${mode} ${String(inode.links).padStart(3)} ${inode.uid}:${inode.gid} ${sizeText(inode, kind).padStart(12)} ${time} ${entry.name}${target}`;
}

function sizeText(inode: Inode, kind: number): string {
  if (kind !== FILE_KIND.character && kind !== FILE_KIND.block) return String(inode.size);
  const { major, minor } = decodeDevice(inode.block);
  return `${major},${minor}`;
}

/** Prints a file's content. */
export async function catPath(image: string, path: string, options: unknown, environment: Environment): Promise<void> {
  await withFilesystem(image, options, environment, async (reader) => {
    const number = await lookupPath(reader, byteString(path));
    const { mode } = await reader.inode(number);
    if ((mode & FILE_KIND.mask) !== FILE_KIND.file)
      throw new LazyError("USAGE", `${image}: ${quoted(byteString(path))} is not a regular file`);
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
