import { readFileSync } from "node:fs";
import { LazyError } from "../errors.ts";
import { runTool } from "./tool.ts";

/** One line of /proc/self/mountinfo. */
export interface Mount {
  readonly id: number;
  /** Device number of the file system, `major:minor`. */
  readonly device: string;
  readonly directory: string;
  readonly type: string;
  readonly source: string;
}

/** Parses /proc/self/mountinfo (see proc(5)). Later mounts come later; throws `CORRUPT` for lines that are not of that form. */
export function parseMountInfo(text: string): Mount[] {
  return text
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => {
      const fields = line.split(" ");
      const separator = fields.indexOf("-", 6);
      const [id, , device, , directory] = fields;
      const [type, source] = fields.slice(separator + 1);
      if (
        separator < 0 ||
        id === undefined ||
        device === undefined ||
        directory === undefined ||
        type === undefined ||
        source === undefined
      ) {
        throw new LazyError("CORRUPT", `mountinfo line ${JSON.stringify(line)}: expected ten fields or more with a "-" between them`);
      }
      return { id: Number(id), device, directory: unescapeField(directory), type, source: unescapeField(source) };
    });
}

/** Space, tab, newline and backslash are written as three octal digits. */
function unescapeField(field: string): string {
  if (!field.includes("\\")) return field;
  const latin1 = Buffer.from(field).toString("latin1");
  const bytes = latin1.replace(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 8)));
  return Buffer.from(bytes, "latin1").toString();
}

/** What is mounted on the directory itself; the uppermost where several are. `directory` must be a real path. */
export function mountAt(directory: string): Mount | undefined {
  return parseMountInfo(readFileSync("/proc/self/mountinfo", "utf8")).findLast((mount) => mount.directory === directory);
}

/** `device` is what the mount is known by later; file systems that take none may be given any text. */
export async function mountDevice(device: string, directory: string, type: string, options: readonly string[]): Promise<void> {
  await runTool("mount", ["-i", "-t", type, "-o", options.join(","), device, directory]);
}

/**
 * - `plain` fails while something uses the mount.
 * - `lazy` takes it out of the tree now; it ends when its last user does.
 * - `forced` in addition aborts a FUSE server's connection: requests that wait for it, and later ones, fail.
 */
export type UnmountMode = "plain" | "lazy" | "forced";

const UNMOUNT_FLAGS: Readonly<Record<UnmountMode, readonly string[]>> = {
  plain: [],
  lazy: ["--lazy"],
  forced: ["--force", "--lazy"],
};

export async function unmount(directory: string, mode: UnmountMode): Promise<void> {
  await runTool("umount", ["-i", "--no-canonicalize", ...UNMOUNT_FLAGS[mode], directory]);
}

/** Unmounts unless nothing is mounted there, also when somebody else is about to do the same. */
export async function unmountIfMounted(directory: string, mode: UnmountMode): Promise<void> {
  if (mountAt(directory) === undefined) return;
  try {
    await unmount(directory, mode);
  } catch (error) {
    if (mountAt(directory) !== undefined) throw error;
  }
}
