import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readdirSync, readFileSync, statSync, symlinkSync, lutimesSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import { TemporaryDirectory } from "../../../test/support/temporary-directory.ts";
import { RotatedFile } from "./rotated-file.ts";

const LINES = 10_000;
const LIMIT_BYTES = 64 * 1024;
const LONGEST_LINE = 80;

/** The files of a log, the oldest first. */
function filesOf(directory: TemporaryDirectory): string[] {
  const numberOf = (name: string): number => Number(name.split(".")[1] ?? 0);
  return readdirSync(directory.path).toSorted((a, b) => numberOf(b) - numberOf(a));
}

test("processes that write to one log lose and tear no line, however often it is put aside", async () => {
  await using directory = await TemporaryDirectory.create();
  const path = directory.join("log");
  const program = new URL("../../../test/support/log-writer.ts", import.meta.url).pathname;
  const names = ["one", "two"];
  const ends = names.map(async (name) => {
    const args = ["--disable-warning=ExperimentalWarning", program, path, name, String(LINES), String(LIMIT_BYTES), "30"];
    return (await once(spawn(process.execPath, args, { stdio: ["ignore", "inherit", "inherit"] }), "exit")) as unknown[];
  });
  for (const [status] of await Promise.all(ends)) assert.equal(status, 0);

  const files = filesOf(directory);
  assert.ok(files.length > 10 && files.length < 30, `${files.join()}: enough were put aside, and none went away`);
  for (const file of files.slice(0, -1)) assert.ok(statSync(directory.join(file)).size > LIMIT_BYTES - LONGEST_LINE, `${file} was full`);
  const lines = files.flatMap((file) => readFileSync(directory.join(file), "utf8").split("\n").slice(0, -1));
  assert.equal(lines.length, names.length * LINES);
  const seen = new Set<string>();
  for (const line of lines) {
    const [name, number, rest] = line.split(" ");
    assert.equal(rest, `${"x".repeat(Number(number) % 60)}.`, line);
    assert.ok(names.includes(name) && !seen.has(`${name} ${number}`), line);
    seen.add(`${name} ${number}`);
  }
  assert.equal(seen.size, names.length * LINES);
});

test("as many files are kept as are wanted, and what another process has put aside is left there", async () => {
  await using directory = await TemporaryDirectory.create();
  const path = directory.join("log");
  const rotation = { limitBytes: 10, files: 3 };
  const [one, other] = [new RotatedFile(path, rotation), new RotatedFile(path, rotation)];
  for (const [index, file] of [one, other, one, other, one].entries()) file.append(`line ${index}\n`);
  const texts = (): string[] => filesOf(directory).map((name) => readFileSync(directory.join(name), "utf8"));
  assert.deepEqual(texts(), ["line 2\n", "line 3\n", "line 4\n"]);
  other.append(".\n"); // it fits
  assert.deepEqual(texts(), ["line 2\n", "line 3\n", "line 4\n.\n"]);
  one.close();
  other.close();
  const single = new RotatedFile(path, { limitBytes: 10, files: 1 });
  single.append("the last line\n");
  assert.equal(readFileSync(path, "utf8"), "the last line\n");
  single.close();
});

test("a log that is being put aside by another process is written to as it is, unless that process is gone", async () => {
  await using directory = await TemporaryDirectory.create();
  const path = directory.join("log");
  writeFileSync(path, "a line that is there\n");
  const log = new RotatedFile(path, { limitBytes: 10, files: 3 });
  symlinkSync(String(process.pid), `${path}.lock`);
  log.append("first\n");
  assert.equal(readFileSync(path, "utf8"), "a line that is there\nfirst\n");
  const longAgo = new Date(Date.now() - 3_600_000);
  lutimesSync(`${path}.lock`, longAgo, longAgo);
  log.append("second\n"); // takes the lock away
  log.append("third\n");
  assert.deepEqual([readFileSync(path, "utf8"), existsSync(`${path}.1`)], ["third\n", true]);
  // No process has this number.
  symlinkSync("4194305", `${path}.lock`);
  log.append("fourth fits not\n");
  log.append("fifth\n");
  assert.equal(readFileSync(path, "utf8"), "fifth\n");
  assert.deepEqual(readdirSync(directory.path).toSorted(), ["log", "log.1", "log.2"]);
  log.close();
});
