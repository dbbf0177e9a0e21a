import assert from "node:assert/strict";
import { test } from "node:test";
import { Option } from "commander";
import { plainFlags } from "./go-flags.ts";

const OPTIONS = [
  "--oci",
  "--mkfs",
  "--no-mkfs",
  "--no-upload",
  "-i, --input-tag <tag>",
  "-u, --user <name>",
  "-d, --dir <dir>",
  "--vsize <GB>",
].map((flags) => new Option(flags));

test("booleans with a value become plain flags, or go away", () => {
  for (const yes of ["1", "t", "T", "true", "TRUE", "True"]) assert.deepEqual(plainFlags([`--oci=${yes}`], OPTIONS), ["--oci"]);
  for (const no of ["0", "f", "F", "false", "FALSE", "False"]) assert.deepEqual(plainFlags([`--oci=${no}`], OPTIONS), []);
  assert.deepEqual(plainFlags(["--mkfs=false", "--mkfs=true", "--no-upload=false", "--no-upload=1"], OPTIONS), [
    "--no-mkfs",
    "--mkfs",
    "--no-upload",
  ]);
  for (const bad of ["", "yes", "tRUE"])
    assert.throws(() => plainFlags([`--oci=${bad}`], OPTIONS), { code: "USAGE", message: /expected true or false/ });
});

test("a flag may have its value behind an equals sign", () => {
  assert.deepEqual(plainFlags(["-i=v1", "-u=user:a=b", "--vsize=16"], OPTIONS), ["-i", "v1", "-u", "user:a=b", "--vsize", "16"]);
});

test("an empty value is as good as none, except where a number is expected", () => {
  assert.deepEqual(plainFlags(["-u", "", "--user=", "-d=", "--oci", "-i", ""], OPTIONS), ["--oci"]);
  assert.deepEqual(plainFlags(["--vsize", "", "--vsize="], OPTIONS), ["--vsize", "", "--vsize", ""]);
});

test("what follows an option is its value, whatever it looks like", () => {
  assert.deepEqual(plainFlags(["-i", "--oci=true", "--oci=true"], OPTIONS), ["-i", "--oci=true", "--oci"]);
});

test("everything else stays as it is", () => {
  const args = ["--oci", "-i", "v1", "--other=host/a=b", "x=y", "-iv1", "-", "-i"];
  assert.deepEqual(plainFlags(args, OPTIONS), args);
  assert.deepEqual(plainFlags(["--", "--oci=true", "-u", ""], OPTIONS), ["--", "--oci=true", "-u", ""]);
});
