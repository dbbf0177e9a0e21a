import assert from "node:assert/strict";
import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { resolve } from "node:path";
import { Readable, Writable } from "node:stream";
import { after, before, describe, it } from "node:test";
import { Command } from "commander";
import { execute, type CommandResult } from "../../test/support/command.ts";
import { LAZYLAYER } from "../../test/support/programs.ts";
import { copyImage, layerOf, writeImage } from "../../test/support/image-builder.ts";
import { TemporaryDirectory } from "../../test/support/temporary-directory.ts";
import { startTlsRegistry, tlsFile, type TlsRegistry } from "../../test/support/tls-registry.ts";
import { openLayoutStore } from "../image-layout/layout-store.ts";
import { readEnvironment, type Environment } from "./environment.ts";
import { addTlsOptions, openReference, readStoreOptions, type OpenedReference } from "./store-options.ts";

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

describe("references to archives and streams", () => {
  let directory: TemporaryDirectory;
  let archive: Buffer;

  const world = readEnvironment(new AbortController().signal);
  const environmentWith = (more: Partial<Environment>): Environment => ({
    ...world,
    temporaryDirectory: directory.join("tmp"),
    ...more,
  });
  const openWith = async (text: string, more: Partial<Environment>, create = false): Promise<OpenedReference> =>
    await openReference(text, {}, environmentWith(more), { create });
  const fill = async ({ store, target }: OpenedReference): Promise<void> => {
    const layout = await openLayoutStore(directory.join("image"));
    await copyImage(layout, { tag: "v1" }, store, target.tag!);
    await store.close();
  };

  before(async () => {
    directory = await TemporaryDirectory.create();
    await mkdir(directory.join("tmp"));
    const noise = Buffer.from(Array.from({ length: 400_000 }, (_, at) => (at * at) % 251));
    await writeImage(directory.join("image"), "v1", { layers: [layerOf([{ name: "f", data: noise }])] });
    await fill(await openWith(`oci-archive:${directory.join("a.tar")}`, {}, true));
    archive = await readFile(directory.join("a.tar"));
  });
  after(async () => directory[Symbol.asyncDispose]());

  it("are written under the tag latest unless another is given, and read with or without it", async () => {
    for (const [written, tag, ...read] of [
      ["oci-archive:FILE", "latest", "oci-archive:FILE", "oci-archive:FILE:latest"],
      ["oci-archive:FILE:v2", "v2", "oci-archive:FILE", "oci-archive:FILE:v2"],
      ["docker-archive:FILE", "latest", "docker-archive:FILE", "oci-archive:FILE"],
      ["docker-archive:FILE:app", "latest", "docker-archive:FILE", "docker-archive:FILE:app", "docker-archive:FILE:docker.io/library/app"],
      ["docker-archive:FILE:x.y/app:v2", "v2", "docker-archive:FILE:x.y/app:v2"],
    ]) {
      const file = directory.join("b.tar");
      const opened = await openWith(written.replace("FILE", file), {}, true);
      assert.deepEqual([opened.target.tag, opened.usesStdout], [tag, false]);
      await fill(opened);
      for (const text of read) {
        const { store, target } = await openWith(text.replace("FILE", file), {});
        await store.resolve(target);
        await store.close();
      }
    }
    assert.deepEqual((await readdir(directory.path)).toSorted(), ["a.tar", "b.tar", "image", "tmp"]);
    await assert.rejects(openWith(`docker-archive:${directory.join("a.tar")}`, {}), { code: "USAGE", message: /name it oci-archive:/ });
  });

  it("read an archive from standard input, once, and not from a terminal", async () => {
    const stdin = Readable.from([archive.subarray(0, 700), archive.subarray(700)]);
    const { store, target, usesStdout } = await openWith("-", { stdin });
    const { descriptor } = await store.resolve(target);
    assert.equal(usesStdout, false);
    assert.deepEqual(descriptor, (await (await openLayoutStore(directory.join("image"))).resolve({ tag: "v1" })).descriptor);
    await store.close();
    await assert.rejects(openWith("-", { stdin }), { code: "USAGE", message: /has been read already/ });
    const terminal = Object.assign(Readable.from([]), { isTTY: true });
    await assert.rejects(openWith("-", { stdin: terminal }), { code: "USAGE", message: /standard input is a terminal; pipe or redirect/ });
    await assert.rejects(openWith("-", { stdin: Readable.from([]) }), { code: "CORRUPT", message: /standard input: is empty/ });
  });

  it("write an archive to standard output as fast as it is taken, and not to a terminal", async () => {
    const taken: Buffer[] = [];
    let most = 0;
    const stdout = new Writable({
      write(chunk: Buffer, _encoding, done) {
        most = Math.max(most, stdout.writableLength);
        taken.push(Buffer.from(chunk));
        setImmediate(done);
      },
    });
    const opened = await openWith("-", { stdout }, true);
    assert.deepEqual([opened.usesStdout, opened.target.tag], [true, "latest"]);
    await fill(opened);
    assert.deepEqual(Buffer.concat(taken), archive);
    assert.equal(most, Math.max(...taken.map((chunk) => chunk.length)), "one chunk at a time");
    const terminal = Object.assign(new Writable(), { isTTY: true });
    await assert.rejects(openWith("-", { stdout: terminal }, true), {
      code: "USAGE",
      message: "standard output is a terminal; redirect it",
    });
    assert.deepEqual(await readdir(directory.join("tmp")), []);
  });

  it("do not share standard input with a password", async () => {
    const environment = environmentWith({ stdin: Readable.from([Buffer.from("secret\n")]) });
    const values = { username: "me", passwordStdin: true };
    const refused = { code: "USAGE", message: /standard input cannot be an image and the password/ };
    await assert.rejects(readStoreOptions(values, environment, ["-", "h.x/a:v1"]), refused);
    const options = await readStoreOptions(values, environment, ["h.x/a:v1", "-x"]);
    assert.equal(options.password, "secret");
    await assert.rejects(openReference("-", options, environment), refused);
  });
});
