import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { OPENAPI_PAGE, openapiPage } from "../../test/support/openapi-page.ts";

test("docs/openapi.json describes the routes and schemas that the daemon has", async () => {
  const fresh = "docs/openapi.json is not fresh: run npm run docs";
  assert.deepEqual(JSON.parse(await readFile(OPENAPI_PAGE, "utf8")), JSON.parse(await openapiPage()), fresh);
});
