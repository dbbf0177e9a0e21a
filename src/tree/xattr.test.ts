import assert from "node:assert/strict";
import { test } from "node:test";
import type { EntryType } from "./entry.ts";
import { keptXattrs } from "./xattr.ts";

const VALUE = new Uint8Array([1]);
const ALL = ["security.capability", "system.posix_acl_access", "system.posix_acl_default", "trusted.a", "user.a"];

function kept(type: EntryType, names: string[]): string[] {
  return [...keptXattrs(type, new Map(names.map((name) => [name, VALUE]))).keys()];
}

test("each type keeps the xattrs that Linux stores for it", () => {
  assert.deepEqual(kept("directory", ALL), ALL);
  assert.deepEqual(
    kept("file", ALL),
    ALL.filter((name) => name !== "system.posix_acl_default"),
  );
  assert.deepEqual(kept("symlink", ALL), ["security.capability", "trusted.a"]);
  for (const type of ["fifo", "character", "block"] as const) {
    assert.deepEqual(kept(type, ALL), ["security.capability", "system.posix_acl_access", "trusted.a"], type);
  }
});

test("namespaces that Linux does not have are refused by name", () => {
  for (const name of ["com.apple.quarantine", "user", "user.", "system.x", "security.", "User.a", ""]) {
    assert.throws(() => kept("file", [name]), { code: "UNSUPPORTED", message: /extended attribute ".*cannot be stored/ }, name);
    assert.throws(() => kept("symlink", [name]), { code: "UNSUPPORTED" }, name);
  }
  assert.deepEqual(kept("file", [`user.${"n".repeat(250)}`]).length, 1);
  assert.throws(() => kept("file", [`user.${"n".repeat(251)}`]), { code: "UNSUPPORTED", message: /256 bytes/ });
});
