import type { ByteSource } from "../bytes/source.ts";
import { ErofsReader } from "../formats/erofs/erofs-reader.ts";
import { Ext4Reader } from "../formats/ext4/ext4-reader.ts";
import { Ext4Tree } from "../formats/ext4/ext4-tree.ts";
import type { FilesystemReader } from "../tree/filesystem-reader.ts";
import { probeFilesystem } from "./filesystem.ts";

/** Opens the file system on a device, whichever of the two it is. The device stays open. */
export async function openFilesystem(device: ByteSource): Promise<FilesystemReader> {
  const { type } = await probeFilesystem(device);
  return type === "erofs" ? await ErofsReader.open(device) : new Ext4Tree(await Ext4Reader.open(device));
}
