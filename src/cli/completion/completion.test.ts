import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { after, before, describe, it } from "node:test";
import { execute, run } from "../../../test/support/command.ts";
import { lazylayerInProcess } from "../../../test/support/in-process.ts";
import { TemporaryDirectory } from "../../../test/support/temporary-directory.ts";

const SHELLS = ["bash", "zsh", "fish"] as const;

let directory: TemporaryDirectory;
before(async () => {
  directory = await TemporaryDirectory.create();
  for (const shell of SHELLS) await writeFile(directory.join(shell), (await lazylayerInProcess(["completion", shell])).stdout);
});
after(async () => await directory[Symbol.asyncDispose]());

/** What bash offers for the last of the words. */
async function offered(...words: string[]): Promise<string[]> {
  const script = `source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); "_$1_completion"; printf '%s\\n' "\${COMPREPLY[@]}"`;
  const output = await run("bash", ["--norc", "-c", script, "bash", directory.join("bash"), ...words]);
  return output.trim() === "" ? [] : output.trimEnd().split("\n");
}

describe("lazylayer completion", () => {
  for (const shell of SHELLS) {
    it(`prints a script without mistakes for ${shell}`, async () => {
      const { status, stderr } = await execute(shell, ["-n", directory.join(shell)]);
      assert.deepEqual([status, stderr], [0, ""]);
    });
  }

  it("offers commands, and those below them", async () => {
    assert.deepEqual(await offered("lazylayer", "con"), ["convert", "config"]);
    assert.deepEqual(await offered("lazylayer", "db", ""), ["init", "ls", "gc"]);
    assert.deepEqual(await offered("lazylayer", "completion", ""), [...SHELLS]);
    assert.deepEqual(await offered("lazylayer", "serve-"), [], "what is hidden stays hidden");
  });

  it("offers the options of the command that is being typed, and no others", async () => {
    assert.deepEqual(await offered("lazylayer", "convert", "a:b", "--dr"), ["--drop-attestations", "--dry-run"]);
    assert.deepEqual(await offered("lazylayer", "db", "gc", "--dr"), ["--dry-run"]);
    assert.deepEqual(await offered("lazylayer", "umount", "--"), ["--lazy", "--help"]);
    assert.deepEqual(await offered("convertor", "--du"), ["--dump-manifest"]);
  });

  it("offers the values that an option takes", async () => {
    assert.deepEqual(await offered("lazylayer", "convert", "--progress", "p"), ["plain"]);
    assert.deepEqual(await offered("lazylayer", "convert", "--progress", "=", "j"), ["json"]);
    assert.deepEqual(await offered("lazylayer", "convert", "--progress", "="), ["auto", "plain", "json", "none"]);
    assert.deepEqual(await offered("convertor", "-i", "v1", "--db-type", ""), ["none", "sqlite", "mysql", "postgres"]);
    assert.deepEqual(await offered("lazylayer", "convert", "--vsize", ""), []);
    assert.deepEqual(await offered("lazylayer", "convert", "--vsize", "64", "--fs", ""), ["ext4", "erofs"]);
  });
});
