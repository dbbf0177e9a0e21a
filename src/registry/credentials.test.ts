import assert from "node:assert/strict";
import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { after, before, describe, it } from "node:test";
import { CredentialFiles } from "./credential-files.ts";
import { askHelper } from "./credential-helper.ts";
import { parseUserPassword, type Credential } from "./credentials.ts";

const HUB = "registry-1.docker.io";
const basic = (username: string, password: string): Credential => ({ kind: "basic", username, password });
const base64 = (text: string): string => Buffer.from(text).toString("base64");

let directory: string;
let files = 0;
const environment = (): Record<string, string> => ({ PATH: `relative:${join(directory, "bin")}`, LOG: join(directory, "log") });

before(async () => {
  directory = await mkdtemp(join(tmpdir(), "lazylayer-credentials-"));
  await mkdir(join(directory, "bin"));
  await helper("good", `read server; echo "$1 $server" >> "$LOG"; printf '{"ServerURL":"x","Username":"u@%s","Secret":"s"}' "$server"`);
  await helper("token", `printf '{"Username":"<token>","Secret":"refresh"}'`);
  await helper("nothing", `echo "credentials not found in native keychain"; exit 1`);
  await helper("broken", `echo "secret-output"; exit 3`);
  await helper("endless", `while :; do printf '%04096d' 0 2>/dev/null || exit; done`);
  await helper("slow", "exec sleep 30", "/bin/sh");
  await helper("nonsense", "echo secret-output");
});
after(async () => rm(directory, { recursive: true, force: true }));

async function helper(name: string, script: string, shell = "/bin/sh"): Promise<void> {
  const path = join(directory, "bin", `docker-credential-${name}`);
  await writeFile(path, `#!${shell}\nPATH=/usr/bin:/bin\n${script}\n`);
  await chmod(path, 0o755);
}

async function ask(content: object | string, host: string, repository = "a/b"): Promise<Credential | undefined> {
  const path = join(directory, `config-${files++}.json`);
  await writeFile(path, typeof content === "string" ? content : JSON.stringify(content));
  return await new CredentialFiles([join(directory, "missing.json"), path], { environment: environment() }).credentialFor(host, repository);
}

describe("credentials on the command line", () => {
  it("are split at the first colon", async () => {
    assert.deepEqual(await parseUserPassword("me:a:b").credentialFor(), basic("me", "a:b"));
    assert.deepEqual(await parseUserPassword("me:").credentialFor(), basic("me", ""));
  });

  for (const text of ["", "secret", ":secret"]) {
    it(`are refused, and not repeated, as ${JSON.stringify(text)}`, () => {
      assert.throws(
        () => parseUserPassword(text),
        (error: Error) => "code" in error && error.code === "USAGE" && !error.message.includes("secret"),
      );
    });
  }
});

describe("credential files", () => {
  for (const [what, auth, expected] of [
    ["user and password", { username: "u", password: "p" }, basic("u", "p")],
    ["base64", { auth: base64("u:p:q") }, basic("u", "p:q")],
    ["base64 with padding inside", { auth: base64("u:p\0\0") }, basic("u", "p")],
    ["an identity token", { auth: base64("u:"), identitytoken: "t" }, { kind: "identity-token", token: "t" }],
    ["nothing", {}, undefined],
    ["base64 of something else", { auth: base64("no colon") }, undefined],
  ] as const) {
    it(`hold ${what}`, async () => assert.deepEqual(await ask({ auths: { "r.x:5000": auth } }, "r.x:5000"), expected));
  }

  for (const [key, host, repository, matches] of [
    ["r.x", "r.x", "a/b", true],
    ["https://r.x", "r.x", "a/b", true],
    ["https://r.x/v2/", "r.x", "a/b", true],
    ["r.x/a", "r.x", "a/b", true],
    ["r.x/a/b", "r.x", "a/b", true],
    ["r.x/a/bc", "r.x", "a/b", false],
    ["r.x/a", "r.x", "ab/c", false],
    ["r.x", "r.x:5000", "a/b", false],
    ["r.x", "evil.r.x", "a/b", false],
    ["r.x", "r.x.evil", "a/b", false],
    ["https://index.docker.io/v1/", HUB, "library/redis", true],
    ["docker.io", HUB, "library/redis", true],
    ["https://index.docker.io/v1/", "r.x", "library/redis", false],
    ["", "r.x", "a", false],
  ] as const) {
    it(`${matches ? "match" : "do not match"} ${JSON.stringify(key)} with ${host}/${repository}`, async () => {
      const found = await ask({ auths: { [key]: { username: "u", password: "p" } } }, host, repository);
      assert.deepEqual(found, matches ? basic("u", "p") : undefined);
    });
  }

  it("give the longest match", async () => {
    const auth = (username: string): object => ({ username, password: "p" });
    const auths = { "r.x/a/b": auth("long"), "r.x": auth("short"), "r.x/a": auth("middle") };
    assert.deepEqual(await ask({ auths }, "r.x", "a/b"), basic("long", "p"));
    assert.deepEqual(await ask({ auths }, "r.x", "a/c"), basic("middle", "p"));
    assert.deepEqual(await ask({ auths }, "r.x", "z"), basic("short", "p"));
  });

  it("are asked for every time", async () => {
    const path = join(directory, "changing.json");
    const source = new CredentialFiles([path], { environment: environment() });
    assert.equal(await source.credentialFor("r.x", "a"), undefined);
    await writeFile(path, JSON.stringify({ auths: { "r.x": { auth: base64("u:p") } } }));
    assert.deepEqual(await source.credentialFor("r.x", "a"), basic("u", "p"));
  });

  for (const content of [
    '{"auths":{"r.x":{"auth":"c2VjcmV0',
    "[]",
    '{"auths":{"r.x":"secret"}}',
    '{"auths":{"r.x":{"auth":5}}}',
    '{"credsStore":5}',
  ]) {
    it(`that are malformed are refused without showing them: ${content.slice(0, 30)}`, async () => {
      await assert.rejects(ask(content, "r.x"), (error: Error) => "code" in error && !/secret|c2VjcmV0/.test(error.message));
    });
  }
});

describe("credential helpers", () => {
  it("come before what is in the file, the one for the host before the one for all", async () => {
    const auths = { "r.x": { username: "file", password: "p" }, "s.x": { username: "file", password: "p" } };
    assert.deepEqual(await ask({ auths, credHelpers: { "r.x": "good" }, credsStore: "token" }, "r.x"), basic("u@r.x", "s"));
    assert.deepEqual(await ask({ auths, credsStore: "token" }, "s.x"), { kind: "identity-token", token: "refresh" });
    assert.deepEqual(await ask({ auths, credsStore: "nothing" }, "s.x"), basic("file", "p"));
  });

  it("are asked with get and the server's name, Docker Hub's being an old URL", async () => {
    assert.deepEqual(await ask({ credsStore: "good" }, HUB), basic("u@https://index.docker.io/v1/", "s"));
    assert.equal((await readFile(join(directory, "log"), "utf8")).split("\n").at(-2), "get https://index.docker.io/v1/");
  });

  it("are looked for in absolute directories alone, so that no image's or checkout's directory can bring one", async () => {
    const bin = join(directory, "bin");
    for (const path of [relative(process.cwd(), bin), `:${relative(process.cwd(), bin)}/.`]) {
      const asking = askHelper("good", "r.x", { environment: { ...environment(), PATH: path } });
      await assert.rejects(asking, { code: "DENIED", message: /no docker-credential-good is in PATH/ });
    }
    assert.deepEqual(await askHelper("good", "r.x", { environment: { ...environment(), PATH: bin } }), basic("u@r.x", "s"));
  });

  it("get the server's name on standard input, where nothing of it is run", async () => {
    const server = "r.x; touch /tmp/never $(id) `id`";
    assert.deepEqual(await askHelper("good", server, { environment: environment() }), basic(`u@${server}`, "s"));
    assert.equal((await readFile(join(directory, "log"), "utf8")).split("\n").at(-2), `get ${server}`);
  });

  for (const [name, message] of [
    ["broken", /status 3/],
    ["endless", /status null/],
    ["slow", /status null/],
    ["nonsense", /not valid UTF-8 JSON/],
    ["absent", /no docker-credential-absent is in PATH/],
    ["../bin/docker-credential-good", /has a name/],
    ["good;id", /has a name/],
    ["", /has a name/],
  ] as const) {
    it(`that fail are reported without their output: ${JSON.stringify(name)}`, async () => {
      const asking = askHelper(name, "r.x", { environment: environment(), timeoutMs: name === "slow" ? 50 : 5000 });
      await assert.rejects(asking, (error: Error) => {
        assert.match(error.message, message);
        return !error.message.includes("secret-output");
      });
    });
  }
});
