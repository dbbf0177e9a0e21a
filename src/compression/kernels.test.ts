import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { compileKernels } from "../../test/support/compile-kernels.ts";

for (const { path, text } of await compileKernels()) {
  test(`${path} is what its source compiles to`, async () => {
    const committed = await readFile(join(import.meta.dirname, "../..", path), "utf8");
    assert.ok(committed === text, "compile it again: npm run kernels");
  });
}
