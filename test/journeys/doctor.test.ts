import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { test } from "node:test";
import { execute } from "../support/command.ts";
import { AS_NOBODY } from "../support/nobody.ts";
import { CLEAN_ENVIRONMENT, LAZYLAYER, lazylayer } from "../support/programs.ts";
import { TemporaryDirectory } from "../support/temporary-directory.ts";

interface Report {
  readonly mounting: boolean;
  readonly checks: readonly { readonly name: string; readonly state: string; readonly found: string; readonly advice?: string }[];
}

const ENVIRONMENT = { ...CLEAN_ENVIRONMENT, REGISTRY_AUTH_FILE: "/nonexistent/auth.json" };

test("as root on a machine that mounts, doctor tries it, leaves nothing behind, and has status 0", async () => {
  await using scratch = await TemporaryDirectory.create();
  const { status, stdout, stderr } = await lazylayer(["doctor", "--output", "json"], { env: { ...ENVIRONMENT, TMPDIR: scratch.path } });
  assert.deepEqual([status, stderr], [0, ""]);
  const { mounting, checks } = JSON.parse(stdout.toString()) as Report;
  const states = new Map(checks.map(({ name, state }) => [name, state]));
  assert.equal(mounting, true);
  for (const name of ["root", "fuse", "loop", "programs", "ext4", "mount", "nbd-server"]) assert.equal(states.get(name), "works", name);
  for (const name of ["tcmu", "ublk"]) assert.equal(states.get(name), "unused", name);
  for (const name of ["overlay", "erofs", "nbd-client", "user-namespaces"]) assert.ok(states.has(name), name);
  assert.match(checks.find(({ name }) => name === "credentials")?.found ?? "", /\/nonexistent\/auth\.json do not exist/);
  assert.deepEqual(readdirSync(scratch.path), []);
});

test("without root it says what that forbids, tries nothing, and has status 1", async () => {
  const { status, stdout, stderr } = await execute("setpriv", [...AS_NOBODY, LAZYLAYER, "doctor"], { env: ENVIRONMENT });
  assert.deepEqual([status, stderr], [1, ""]);
  const lines = stdout.toString().trimEnd().split("\n");
  assert.ok(lines.some((line) => /^missing +root +this is user 65534; only root may mount; use sudo, or lazylayer serve/.test(line)));
  assert.ok(lines.some((line) => /^works +nbd-server /.test(line)));
  assert.ok(!lines.some((line) => /^(?:works|missing) +mount /.test(line)));
  assert.equal(lines.at(-1), "lazylayer mount does not work here; lazylayer serve, ls and cat do");
});

test("where a sandbox forbids to mount, that is found although every part is there", async () => {
  await using scratch = await TemporaryDirectory.create();
  const sandbox = ["--bounding-set=-sys_admin", "--inh-caps=-sys_admin", LAZYLAYER, "doctor", "--output", "json"];
  const { status, stdout } = await execute("setpriv", sandbox, { env: { ...ENVIRONMENT, TMPDIR: scratch.path } });
  assert.equal(status, 1);
  const { mounting, checks } = JSON.parse(stdout.toString()) as Report;
  const trial = checks.find(({ name }) => name === "mount");
  assert.deepEqual([mounting, trial?.state], [false, "missing"]);
  assert.match(trial?.advice ?? "", /--privileged/);
  assert.deepEqual(readdirSync(scratch.path), []);
});
