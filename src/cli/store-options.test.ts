import assert from "node:assert/strict";
import { mkdir, writeFile } from "node:fs/promises";
import { resolve } from "node:path";
import { after, before, describe, it } from "node:test";
import { Command } from "commander";
import { execute, type CommandResult } from "../../test/support/command.ts";
import { LAZYLAYER } from "../../test/support/programs.ts";
import { writeImage } from "../../test/support/image-builder.ts";
import { TemporaryDirectory } from "../../test/support/temporary-directory.ts";
import { startTlsRegistry, tlsFile, type TlsRegistry } from "../../test/support/tls-registry.ts";
import { addTlsOptions } from "./store-options.ts";

const parse = (...args: string[]): Record<string, unknown> => {
  const command = new Command().exitOverride();
  addTlsOptions(command);
  return command.parse(args, { from: "user" }).opts();
};

describe("the options for TLS", () => {
  it("are repeatable, and hold whole paths, for a process that runs elsewhere", () => {
    assert.deepEqual(parse("--cert-dir", "a", "--cert-dir", "/b", "--root-ca", "c", "--client-cert", "x.cert:y.key"), {
      certDir: [resolve("a"), "/b"],
      rootCa: [resolve("c")],
      clientCert: [{ certificate: resolve("x.cert"), key: resolve("y.key") }],
    });
  });

  for (const text of ["foo", "a:", ":b", "a:b:c", ""]) {
    it(`want exactly one colon in --client-cert: ${JSON.stringify(text)}`, () => {
      assert.throws(() => parse("--client-cert", text), { code: "USAGE", message: /expected CERT:KEY/ });
    });
  }
});

describe("a command with an image in a registry over TLS", () => {
  let registry: TlsRegistry;
  let directory: TemporaryDirectory;
  // The image is none of overlaybd: to say so, it must have been read.
  const list = async (options: readonly string[], env: Record<string, string> = {}): Promise<CommandResult> =>
    await execute(LAZYLAYER, ["ls", `${registry.host}/tls:v1`, "--platform", "linux/amd64", ...options], { env });

  before(async () => {
    [registry, directory] = [await startTlsRegistry({ wantsClientCertificate: true }), await TemporaryDirectory.create()];
    await writeImage(directory.join("image"), "v1", { layers: [] });
  });
  after(async () => {
    for (const thing of [registry, directory]) await thing[Symbol.asyncDispose]();
  });

  it("shows and trusts what the options name, over TLS also on this machine", async () => {
    const client = ["--client-cert", `${tlsFile("client")}:${tlsFile("client-key")}`];
    for (const [options, env] of [
      [[...client, "--root-ca", tlsFile("ca")], {}],
      [[...client, "--insecure"], {}],
      [client, { SSL_CERT_FILE: tlsFile("ca") }],
    ] as const) {
      const { status, stderr } = await list(options, env);
      assert.match(stderr, /404 MANIFEST_UNKNOWN/);
      assert.equal(status, 1);
    }
    const stranger = await list(client);
    assert.match(stranger.stderr, /certificate not accepted/);
  });

  for (const [what, options, status, message] of [
    ["directory", ["--cert-dir", "/nope"], 1, /\/nope: does not exist/],
    ["file of authorities", ["--root-ca", "/nope.crt"], 1, /\/nope\.crt: does not exist/],
    ["certificate", ["--client-cert", "/nope.cert:/nope.key"], 1, /\/nope\.cert: does not exist/],
    ["colon", ["--client-cert", "foo"], 2, /expected CERT:KEY/],
  ] as const) {
    it(`says that a ${what} is missing, before anything is sent`, async () => {
      const before = registry.seen.length;
      const result = await list(options);
      assert.match(result.stderr, message);
      assert.deepEqual([result.status, registry.seen.length], [status, before]);
    });
  }

  it("uses what --hosts-dir says of the registry", async () => {
    const name = directory.join("certs.d", registry.host);
    await mkdir(name, { recursive: true });
    await writeFile(
      `${name}/hosts.toml`,
      `server = "https://${registry.host}"\nca = ${JSON.stringify(tlsFile("ca"))}\nclient = [[${JSON.stringify(tlsFile("client"))}, ${JSON.stringify(tlsFile("client-key"))}]]\n`,
    );
    assert.match((await list(["--hosts-dir", directory.join("certs.d")])).stderr, /404 MANIFEST_UNKNOWN/);
  });

  it("shows no password, wherever it fails", async () => {
    for (const options of [["--root-ca", "/nope"], ["--insecure"], ["--client-cert", "foo"], ["--platform", "nonsense"]]) {
      const { stdout, stderr } = await list(["-u", "me:hunter2", ...options]);
      assert.ok(stderr !== "" && !`${stdout.toString()}${stderr}`.includes("hunter2"));
    }
    const { stdout } = await execute(LAZYLAYER, ["ls", "--help"]);
    assert.match(stdout.toString(), /--password-stdin/);
  });
});
