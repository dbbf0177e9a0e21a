import { readFileSync } from "node:fs";

const PACKAGE = new URL("../../package.json", import.meta.url);

/**
 * Of the program that is on the disk now: another than the one that runs when it was replaced since. Throws when it was removed.
 * Read, not imported: what was imported stays as it was.
 */
export function installedVersion(): string {
  const found: unknown = JSON.parse(readFileSync(PACKAGE, "utf8"));
  const hasVersion = typeof found === "object" && found !== null && "version" in found && typeof found.version === "string";
  if (!hasVersion) throw new TypeError(`${PACKAGE.pathname}: has no version`);
  return String(found.version);
}

/** Of the program as this thread has loaded it. */
export const PROGRAM_VERSION = installedVersion();
