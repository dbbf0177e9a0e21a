import { corrupt, LazyError } from "../../errors.ts";
import type { ByteString } from "../../tree/entry.ts";
import { quoted } from "../../tree/path.ts";
import type { Ext4Reader } from "./ext4-reader.ts";
import { isKind } from "./inode.ts";
import { FILE_KIND, ROOT_INODE } from "./layout.ts";

const MAX_SYMLINKS = 40; // as the kernel

/**
 * The inode at a path, following symlinks, also the last one; absolute targets and `..` stay inside of the filesystem.
 * Throws `NOT_FOUND` naming the part that does not exist.
 */
export async function lookupPath(reader: Ext4Reader, path: ByteString): Promise<number> {
  const pending = path.split("/").toReversed();
  const above: number[] = [ROOT_INODE];
  let symlinks = 0;
  for (let name = pending.pop(); name !== undefined; name = pending.pop()) {
    if (name === "" || name === ".") continue;
    if (name === "..") {
      if (above.length > 1) above.pop();
      continue;
    }
    const directory = above.at(-1)!;
    const inode = await reader.inode(directory);
    const entry = isKind(inode, FILE_KIND.directory) ? (await reader.list(directory)).find((child) => child.name === name) : undefined;
    if (!entry) throw new LazyError("NOT_FOUND", `${reader.name}: ${quoted(path)}: there is no ${quoted(name)}`);
    if (!isKind(await reader.inode(entry.inode), FILE_KIND.symlink)) {
      above.push(entry.inode);
      continue;
    }
    if (++symlinks > MAX_SYMLINKS) throw corrupt(`${reader.name}: ${quoted(path)}: more than ${MAX_SYMLINKS} symlinks to follow`);
    const target = await reader.linkTarget(entry.inode);
    if (target.startsWith("/")) above.length = 1;
    pending.push(...target.split("/").toReversed());
  }
  return above.at(-1)!;
}
