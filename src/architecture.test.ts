import assert from "node:assert/strict";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { findViolations, ROOMS } from "../test/support/architecture.ts";

const SOURCE_DIRECTORY = import.meta.dirname;

test("the sources keep to the rooms, doors and names of ARCHITECTURE.md", async () => {
  const names = (await readdir(SOURCE_DIRECTORY, { recursive: true })).filter((name) => name.endsWith(".ts"));
  const sources = new Map(
    await Promise.all(names.map(async (name) => [name, await readFile(join(SOURCE_DIRECTORY, name), "utf8")] as const)),
  );
  const page = await readFile(join(SOURCE_DIRECTORY, "../ARCHITECTURE.md"), "utf8").catch(() => undefined);
  assert.deepEqual(findViolations(sources, page), []);
});

const BREACHES: readonly (readonly [what: string, sources: Record<string, string>, message: RegExp])[] = [
  ["a room that imports upwards", { "bytes/a.ts": 'import { x } from "../tar/b.ts";' }, /bytes may import nothing/],
  ["an upward import of types", { "oci/a.ts": 'import type { X } from "../registry/b.ts";' }, /oci may import bytes/],
  ["an import over several lines", { "tree/a.ts": 'import {\n  x,\n} from "../tar/b.ts";' }, /tree may import bytes/],
  ["a re-export", { "tree/a.ts": 'export { x } from "../tar/b.ts";' }, /tree may import bytes/],
  ["a dynamic import", { "tree/a.ts": 'const b = await import("../tar/b.ts");' }, /tree may import bytes/],
  ["a worker of another room", { "tar/a.ts": 'new Worker(new URL("../workers/w.ts", import.meta.url));' }, /tar may import/],
  ["a format that imports a format", { "formats/zfile/a.ts": 'import { x } from "../lsmt/b.ts";' }, /formats\/zfile may import/],
  ["a use of cli", { "convert/a.ts": 'import { x } from "../cli/b.ts";' }, /nothing imports cli/],
  ["a use of cli by a test elsewhere", { "convert/a.test.ts": 'import { x } from "../cli/b.ts";' }, /nothing imports cli/],
  ["a use of index.ts", { "tar/a.ts": 'import { x } from "../index.ts";' }, /only errors\.ts is for everybody/],
  ["a room that is not in the table", { "attic/a.ts": 'import { x } from "../bytes/b.ts";' }, /does not know/],
  ["an import from outside of src", { "tar/a.ts": 'import { x } from "../../test/support/b.ts";' }, /outside of src/],
  ["files in a format", { "formats/ext4/a.ts": 'import { open } from "node:fs/promises";' }, /imports node:fs\/promises/],
  ["HTTP outside of registry", { "device/a.ts": 'import { request } from "node:http";' }, /imports node:http/],
  ["threads outside of their rooms", { "convert/a.ts": 'import { Worker } from "node:worker_threads";' }, /imports node:worker_threads/],
  ["processes outside of their rooms", { "device/a.ts": 'import { spawn } from "node:child_process";' }, /imports node:child_process/],
  ["the environment outside of cli", { "registry/a.ts": "const home = process.env.HOME;" }, /reads process\.env/],
  ["the clock in a format", { "formats/ext4/a.ts": "const now = Date.now();" }, /uses Date\.now/],
  ["chance in a format", { "formats/ext4/a.ts": "const id = Math.random();" }, /uses Math\.random/],
  [
    "a cycle",
    { "tar/a.ts": 'import "./b.ts";', "tar/b.ts": 'import "./c.ts";', "tar/c.ts": 'import "./a.ts";' },
    /a\.ts → .*b\.ts → .*c\.ts → /,
  ],
  ["a file that imports itself", { "tar/a.ts": 'import "./a.ts";' }, /import cycle/],
  ["a long file", { "tar/a.ts": "\n".repeat(501) }, /501 lines/],
  ["a file name in another case", { "tar/tarReader.ts": "" }, /not kebab-case/],
  ["a barrel", { "tar/a.ts": 'export * from "./b.ts";' }, /export \*/],
  ["a drawer", { "tar/string-utils.ts": "" }, /says nothing/],
  ["a class with an empty name", { "tar/a.ts": "export class TarManager {}" }, /TarManager says nothing/],
  ["a base class", { "tar/a.ts": "export class BaseReader {}" }, /BaseReader says nothing/],
  ["a bag of everything", { "tar/a.ts": "interface ReadContext {}" }, /ReadContext says nothing/],
];

for (const [what, sources, message] of BREACHES) {
  test(`${what} is found`, () => {
    const found = findViolations(new Map(Object.entries(sources)));
    assert.equal(found.length, 1, found.join("\n"));
    assert.match(found[0], message);
  });
}

test("what is allowed is not reported", () => {
  const sources = {
    "errors.ts": "export class LazyError extends Error {}",
    "index.ts": 'export { x } from "./formats/ext4/a.ts";',
    "bytes/file.ts": 'import { open } from "node:fs/promises";\nimport { corrupt } from "../errors.ts";',
    "formats/ext4/a.ts":
      'import { x } from "../../bytes/file.ts";\n// import { y } from "../../registry/b.ts"; Date.now()\n/* process.env */',
    "formats/ext4/base-layer.ts": "export function parseBase256(): void {} interface BaseLayer {}",
    "formats/ext4/a.test.ts":
      'import { readFile } from "node:fs/promises";\nimport { x } from "../../tar/b.ts";\nimport { y } from "../../../test/support/c.ts";',
    "workers/pool.ts": 'import { Worker } from "node:worker_threads";\nnew Worker(new URL("./kernel-worker.ts", import.meta.url));',
    "workers/kernel-worker.ts": 'import type { Job } from "./pool.ts";',
    "registry/credential-helper.ts": 'import { spawn } from "node:child_process";\nfunction askHelper(): void {}',
    "oci/image-store.contract.ts": 'import { test } from "node:test";',
    "cli/main.ts":
      'import { x } from "../convert/a.ts";\nimport manifest from "../../package.json" with { type: "json" };\nconsole.log(process.argv);',
  };
  assert.deepEqual(findViolations(new Map(Object.entries(sources))), []);
});

test("a room that ARCHITECTURE.md does not mention is found", () => {
  const sources = new Map([
    ["tar/a.ts", ""],
    ["formats/ext4/b.ts", ""],
  ]);
  assert.deepEqual(findViolations(sources, "rooms: tar/ formats/ ext4/"), []);
  assert.deepEqual(findViolations(sources, "rooms: tar/ formats/"), ["ARCHITECTURE.md does not mention ext4/"]);
});

test("the table of rooms has no cycle", () => {
  for (const room of Object.keys(ROOMS)) assert.ok(!reachable(room).has(room), `${room} reaches itself`);
});

function reachable(room: string, seen = new Set<string>()): Set<string> {
  for (const next of ROOMS[room] ?? []) {
    if (seen.has(next)) continue;
    seen.add(next);
    reachable(next, seen);
  }
  return seen;
}
