import assert from "node:assert/strict";
import { PassThrough } from "node:stream";
import { test } from "node:test";
import { Command } from "commander";
import { addConvertCommand } from "./convert.ts";
import { readEnvironment, type Environment } from "./environment.ts";
import { exitStatus } from "./exit-status.ts";
import { addVerifyCommand } from "./verify.ts";

const SOURCE = "localhost/source:a"; // opened, but not asked
const TARGET = "oci:/nonexistent-target:b";

/** The commands in this process, silent, with `input` on standard input. */
async function failureOf(args: readonly string[], input = ""): Promise<{ status: number; message: string }> {
  const environment: Environment = { ...readEnvironment(new AbortController().signal), stdin: PassThrough.from([Buffer.from(input)]) };
  const program = new Command("lazylayer").exitOverride().configureOutput({ writeErr: () => {} });
  addConvertCommand(program, environment);
  addVerifyCommand(program, environment, () => {});
  try {
    await program.parseAsync(args, { from: "user" });
  } catch (error) {
    assert.ok(error instanceof Error);
    return { status: exitStatus(error), message: error.message };
  }
  throw new Error("it was accepted");
}

test("a command line that contradicts itself or makes no sense has status 2 and says why", async () => {
  const rows: [args: string[], expected: RegExp, input?: string][] = [
    [["convert"], /missing required argument 'source'/],
    [["convert", SOURCE, TARGET, "more"], /too many arguments/],
    [["convert", SOURCE, TARGET, "--nope"], /unknown option '--nope'/],
    [["convert", SOURCE, "http://host/repo:tag"], /no scheme/],
    [["convert", SOURCE, "oci:"], /no directory after oci:/],
    [["convert", SOURCE, TARGET, "--vsize", "1e3"], /from 1 to 16383/],
    [["convert", SOURCE, TARGET, "--vsize", "-1"], /from 1 to 16383/],
    [["convert", SOURCE, TARGET, "--vsize", "16384"], /from 1 to 16383/],
    [["convert", SOURCE, TARGET, "--fs", "xfs"], /Allowed choices are ext4/],
    [["convert", SOURCE, TARGET, "--platform", "a/b/c/d"], /platform/],
    [["convert", SOURCE, TARGET, "--password-stdin"], /--password-stdin needs --username/],
    [["convert", SOURCE, TARGET, "-u", "name:secret", "--password-stdin"], /with a name alone/],
    [["convert", SOURCE, TARGET, "-u", "name", "--password-stdin"], /standard input is empty/, "\n"],
    [["convert", SOURCE, TARGET, "-u", "name", "--password-stdin"], /longer than 65536 bytes/, "x".repeat(70_000)],
    [["convert", "localhost/a:b", "localhost/c:d", "-u", "name-alone"], /expected USER:PASSWORD/],
    [["verify", SOURCE], /missing required argument 'converted'/],
  ];
  for (const [args, expected, input] of rows) {
    const { status, message } = await failureOf(args, input);
    assert.match(message, expected);
    assert.equal(status, 2, args.join(" "));
    assert.doesNotMatch(message, /secret|name-alone/);
  }
});

test("a source that is not there has status 1", async () => {
  const { status, message } = await failureOf(["convert", "oci:/nonexistent-source:a", TARGET]);
  assert.match(message, /nonexistent-source: does not exist/);
  assert.equal(status, 1);
});
