import assert from "node:assert/strict";
import { chmod, cp, mkdir, symlink, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { execute } from "../support/command.ts";
import { TemporaryDirectory } from "../support/temporary-directory.ts";

const LAUNCHERS = join(import.meta.dirname, "../../bin");
const PROGRAM = "console.log(JSON.stringify([import.meta.filename, ...process.argv.slice(2)]));\n";
/** A PATH with the usual tools and the `node` that a test puts first; not the one that runs this test. */
const SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/** A checkout with the real launchers and programs that print their own file and arguments. */
async function makeCheckout(directory: string, options: { node?: string; withPackages?: boolean } = {}): Promise<string> {
  const checkout = join(directory, "check out");
  await cp(LAUNCHERS, join(checkout, "bin"), { recursive: true });
  await mkdir(join(checkout, "src/cli"), { recursive: true });
  for (const name of ["main", "convertor"]) await writeFile(join(checkout, `src/cli/${name}.ts`), PROGRAM);
  if (options.withPackages ?? true) await mkdir(join(checkout, "node_modules/.bin"), { recursive: true });
  if (options.node !== undefined) await symlink(options.node, join(checkout, "node_modules/.bin/node"));
  return checkout;
}

/** A program that says it is Node of some version, and nothing else. */
async function fakeNode(directory: string, version: string): Promise<string> {
  const path = join(directory, `v${version}`, "node");
  await mkdir(dirname(path));
  await writeFile(path, `#!/bin/sh\necho v${version}\n`);
  await chmod(path, 0o755);
  return path;
}

async function launch(program: string, args: string[], env: Record<string, string> = {}, cwd = "/"): Promise<string[]> {
  const { status, stdout, stderr } = await execute(program, args, { cwd, env: { LAZYLAYER_NODE: "", ...env } });
  assert.equal(status, 0, stderr);
  assert.equal(stderr, "");
  return JSON.parse(stdout.toString()) as string[];
}

async function refusal(program: string, env: Record<string, string>): Promise<string> {
  const { status, stdout, stderr } = await execute(program, [], { env: { LAZYLAYER_NODE: "", ...env } });
  assert.equal(status, 127);
  assert.equal(stdout.toString(), "");
  return stderr;
}

test("each launcher runs its program with its arguments as they are", async () => {
  await using scratch = await TemporaryDirectory.create();
  const checkout = await makeCheckout(scratch.path, { node: process.execPath });
  const args = ["-r", "two words", "", "$HOME", "*"];
  assert.deepEqual(await launch(join(checkout, "bin/lazylayer"), args), [join(checkout, "src/cli/main.ts"), ...args]);
  assert.deepEqual(await launch(join(checkout, "bin/convertor"), args), [join(checkout, "src/cli/convertor.ts"), ...args]);
});

test("a launcher works through links, from PATH and by a relative name", async () => {
  await using scratch = await TemporaryDirectory.create();
  const checkout = await makeCheckout(scratch.path, { node: process.execPath });
  const expected = [join(checkout, "src/cli/convertor.ts")];
  await mkdir(scratch.join("links"));
  await symlink("../check out/bin/convertor", scratch.join("links/inner"));
  await symlink("inner", scratch.join("links/any-name"));
  await symlink(checkout, scratch.join("checkout-link"));
  assert.deepEqual(await launch(scratch.join("links/any-name"), []), expected);
  assert.deepEqual(await launch(scratch.join("checkout-link/bin/convertor"), []), expected);
  assert.deepEqual(await launch("any-name", [], { PATH: `${scratch.join("links")}:${SYSTEM_PATH}` }), expected);
  assert.deepEqual(await launch("sh", ["convertor"], {}, join(checkout, "bin")), expected);
});

test("without a Node in the checkout, one on PATH serves if it is new enough", async () => {
  await using scratch = await TemporaryDirectory.create();
  const checkout = await makeCheckout(scratch.path);
  const program = join(checkout, "bin/lazylayer");
  assert.deepEqual(await launch(program, [], { PATH: `${dirname(process.execPath)}:${SYSTEM_PATH}` }), [join(checkout, "src/cli/main.ts")]);
  const old = dirname(await fakeNode(scratch.path, "22.9.0"));
  const message = await refusal(program, { PATH: `${old}:${SYSTEM_PATH}` });
  assert.match(message, /^lazylayer: needs Node\.js 24 or later \(on PATH: v22\.9\.0\).*run npm install in .*check out\n$/);
});

test("LAZYLAYER_NODE goes before every other Node, and must be new enough", async () => {
  await using scratch = await TemporaryDirectory.create();
  const broken = await makeCheckout(scratch.path, { node: "/bin/false" });
  const program = join(broken, "bin/lazylayer");
  assert.deepEqual(await launch(program, [], { LAZYLAYER_NODE: process.execPath }), [join(broken, "src/cli/main.ts")]);
  for (const node of [await fakeNode(scratch.path, "23.11.1"), "/bin/true", scratch.join("nothing-there")]) {
    assert.match(await refusal(program, { LAZYLAYER_NODE: node }), /^lazylayer: LAZYLAYER_NODE is .* not Node\.js 24 or later/);
  }
});

test("a checkout without npm packages says what to run, and where", async () => {
  await using scratch = await TemporaryDirectory.create();
  const checkout = await makeCheckout(scratch.path, { withPackages: false });
  await symlink(join(checkout, "bin/convertor"), scratch.join("link"));
  assert.equal(await refusal(scratch.join("link"), {}), `convertor: its npm packages are not installed: run npm install in ${checkout}\n`);
});
