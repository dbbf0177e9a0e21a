import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { CLI_PAGE, cliPage } from "../../test/support/cli-page.ts";

test("docs/cli.md says what the option tables say", async () => {
  assert.equal(await readFile(CLI_PAGE, "utf8"), await cliPage(), "docs/cli.md is not fresh: run npm run docs");
});
