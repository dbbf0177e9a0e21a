import assert from "node:assert/strict";
import { test } from "node:test";
import { plainFlags } from "./go-flags.ts";

const BOOLEANS = ["oci", "mkfs", "no-upload"];

test("booleans with a value become plain flags, or go away", () => {
  for (const yes of ["1", "t", "T", "true", "TRUE", "True"]) assert.deepEqual(plainFlags([`--oci=${yes}`], BOOLEANS), ["--oci"]);
  for (const no of ["0", "f", "F", "false", "FALSE", "False"]) assert.deepEqual(plainFlags([`--oci=${no}`], BOOLEANS), []);
  assert.deepEqual(plainFlags(["--mkfs=false", "--mkfs=true", "--no-upload=false", "--no-upload=1"], BOOLEANS), [
    "--no-mkfs",
    "--mkfs",
    "--no-upload",
  ]);
  for (const bad of ["", "yes", "tRUE"])
    assert.throws(() => plainFlags([`--oci=${bad}`], BOOLEANS), { code: "USAGE", message: /expected true or false/ });
});

test("a short flag may have its value behind an equals sign", () => {
  assert.deepEqual(plainFlags(["-i=v1", "-u=user:a=b", "-d="], BOOLEANS), ["-i", "v1", "-u", "user:a=b", "-d", ""]);
});

test("everything else stays as it is", () => {
  const args = ["--vsize=16", "-i", "v1", "--oci", "--repository=host/a=b", "x=y", "-iv1", "--", "-"];
  assert.deepEqual(plainFlags(args, BOOLEANS), args);
});
