import assert from "node:assert/strict";
import { chmod, mkdir, writeFile } from "node:fs/promises";
import { after, afterEach, before, describe, it } from "node:test";
import { startDockerRegistry, type DockerRegistry } from "../support/docker-registry.ts";
import { startHostileRegistry, type HostileRegistry } from "../support/hostile-registry.ts";
import { convertor, lazylayer } from "../support/programs.ts";
import { TemporaryDirectory } from "../support/temporary-directory.ts";

const PASSWORD = "hunter2-very-secret";
const SIGNATURE = "c2lnbmVkLXVybA-secret";
/** A secret as it is, and as it travels. */
const SECRETS = [PASSWORD, SIGNATURE, Buffer.from(`tester:${PASSWORD}`).toString("base64")];

let locked: DockerRegistry;
let front: HostileRegistry;
let storage: HostileRegistry;
let scratch: TemporaryDirectory;

before(async () => {
  scratch = await TemporaryDirectory.create();
  locked = await startDockerRegistry({ basicAuth: true });
  [front, storage] = [await startHostileRegistry(), await startHostileRegistry()];
});
afterEach(() => {
  for (const server of [front, storage]) server.reset();
});
after(async () => {
  for (const server of [front, storage, locked]) await server.stop();
  await scratch[Symbol.asyncDispose]();
});

type Program = readonly [name: string, run: typeof lazylayer, args: (host: string) => string[]];

const PROGRAMS: readonly Program[] = [
  ["convertor", convertor, (host) => ["-r", `${host}/app`, "-i", "v1", "-o", "v1-obd", "--verbose", "-d", scratch.join("tmp")]],
  ["lazylayer ls", lazylayer, (host) => ["ls", `${host}/app:v1`]],
  ["lazylayer convert", lazylayer, (host) => ["convert", `${host}/app:v1`, `${host}/app:v2`]],
];

/** Runs the program, which must fail, and gives what it said, after looking for secrets in it. */
async function saidBy([, run, args]: Program, host: string, more: readonly string[], env: Record<string, string> = {}): Promise<string> {
  const { status, stdout, stderr } = await run([...args(host), ...more], { env: { HOME: scratch.path, ...env } });
  const said = `${stdout.toString()}${stderr}`;
  assert.notEqual(status, 0, said);
  for (const secret of SECRETS) assert.ok(!said.includes(secret), said);
  return said;
}

describe("no secret is shown", () => {
  for (const program of PROGRAMS) {
    it(`by ${program[0]} when a password is wrong`, async () => {
      assert.match(await saidBy(program, locked.host, ["-u", `tester:${PASSWORD}`]), /401.*log in/);
    });

    it(`by ${program[0]} when a stored password or a helper's is wrong`, async () => {
      await mkdir(scratch.join("bin"), { recursive: true });
      const helper = scratch.join("bin", "docker-credential-leaky");
      await writeFile(helper, `#!/bin/sh\necho '${PASSWORD}' >&2\necho '{"Username":"tester","Secret":"${PASSWORD}"}'\n`);
      await chmod(helper, 0o755);
      const auth = Buffer.from(`tester:${PASSWORD}`).toString("base64");
      for (const config of [{ auths: { [locked.host]: { auth } } }, { credsStore: "leaky" }]) {
        const file = scratch.join("auth.json");
        await writeFile(file, JSON.stringify(config));
        const env = { REGISTRY_AUTH_FILE: file, PATH: `${scratch.join("bin")}:${process.env["PATH"]}` };
        assert.match(await saidBy(program, locked.host, [], env), /401.*log in/);
      }
    });

    it(`by ${program[0]} when a redirect holds a token and its target refuses, repeating it, or is not there`, async () => {
      const location = `http://${storage.host}/doc?X-Amz-Signature=${SIGNATURE}&X-Amz-Date=1`;
      front.inject(() => ({ kind: "answer", status: 307, headers: { location } }), Infinity);
      const message = `bad ${location} and Bearer ${SIGNATURE} and Basic ${SIGNATURE}`;
      storage.inject(() => ({ kind: "answer", status: 403, body: JSON.stringify({ errors: [{ code: "DENIED", message }] }) }), Infinity);
      assert.match(await saidBy(program, front.host, ["-u", `tester:${PASSWORD}`]), /403 DENIED: bad .*\?… and Bearer … and Basic …/);
      front.inject(() => ({ kind: "answer", status: 307, headers: { location: `ftp://x/?t=${SIGNATURE}` } }), Infinity);
      await saidBy(program, front.host, []);
      front.inject(() => ({ kind: "answer", status: 307, headers: { location: `http://u:${SIGNATURE}@${storage.host}/` } }), Infinity);
      await saidBy(program, front.host, []);
    });

    it(`by ${program[0]} when the call is wrong`, async () => {
      for (const wrong of [["--no-such-option"], ["extra", "arguments", "here"]]) {
        await saidBy(program, "127.0.0.1:9", ["-u", `tester:${PASSWORD}`, ...wrong]);
      }
      await saidBy(program, "127.0.0.1:9", ["-u", `:${PASSWORD}`]);
    });
  }

  it("by any program when a proxy's address holds a password", async () => {
    for (const [program, address] of [
      [PROGRAMS[0], `http://p:${PASSWORD}@127.0.0.1:9`],
      [PROGRAMS[1], `nonsense://p:${PASSWORD}@x`],
    ] as const) {
      const env = { HTTP_PROXY: address, HTTPS_PROXY: address, http_proxy: address, https_proxy: address, no_proxy: "", NO_PROXY: "" };
      await saidBy(program, "registry.invalid", [], env);
    }
  });

  it("by any help, which names the way that keeps a password off the command line", async () => {
    const env = { LAZYLAYER_DB_STR: `u:${PASSWORD}@/d`, HTTP_PROXY: `http://p:${PASSWORD}@x` };
    for (const command of ["convert", "ls", "mount"]) {
      const { stdout } = await lazylayer([command, "--help"], { env });
      assert.match(stdout.toString(), /--password-stdin/, command);
      assert.ok(!stdout.toString().includes(PASSWORD));
    }
  });
});
