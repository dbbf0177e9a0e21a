import assert from "node:assert/strict";
import { chmodSync, mkdirSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { afterEach, beforeEach, describe, it } from "node:test";
import { TemporaryDirectory } from "../../test/support/temporary-directory.ts";
import { checkFilesystems, checkMountParts, checkOtherWays, type Check, type MachineFiles } from "./doctor-checks.ts";

let directory: TemporaryDirectory;
beforeEach(async () => {
  directory = await TemporaryDirectory.create();
});
afterEach(async () => await directory[Symbol.asyncDispose]());

function put(path: string, text = "", mode = 0o755): void {
  const file = directory.join(path);
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, text);
  chmodSync(file, mode);
}

function machine(changes: Partial<MachineFiles> = {}): MachineFiles {
  return { root: directory.path, release: "6.1", uid: 0, credentialFiles: [directory.join("config.json")], ...changes };
}

/** A machine that has everything. */
function putAll(): void {
  for (const path of ["dev/fuse", "dev/loop-control", "dev/nbd0", "usr/bin/mount", "bin/umount", "sbin/losetup", "usr/sbin/nbd-client"])
    put(path);
  for (const module of ["target_core_user", "ublk_drv"]) put(`sys/module/${module}/refcnt`);
  put("proc/filesystems", "nodev\tsysfs\nnodev\toverlay\n\text4\n\terofs\n");
  put(
    "config.json",
    JSON.stringify({ auths: { "registry.example": { auth: "c2VjcmV0OnNlY3JldA==" } }, credHelpers: { "other.example": "pass" } }),
  );
}

function all(files: MachineFiles): Check[] {
  return [...checkMountParts(files), ...checkFilesystems(files), ...checkOtherWays(files)];
}

function states(checks: readonly Check[]): Record<string, Check["state"]> {
  return Object.fromEntries(checks.map(({ name, state }) => [name, state]));
}

function only(checks: readonly Check[], name: string): Check {
  const found = checks.filter((check) => check.name === name);
  assert.equal(found.length, 1, name);
  return found[0];
}

describe("doctor", () => {
  it("finds what is there, and does not use what it does not use", () => {
    putAll();
    const { tcmu, ublk, ...used } = states(all(machine()));
    assert.deepEqual([tcmu, ublk], ["unused", "unused"]);
    assert.equal(Object.keys(used).length, 10);
    for (const [name, state] of Object.entries(used)) assert.equal(state, "works", name);
    assert.match(only(all(machine()), "ublk").found, /^the kernel has it; /);
  });

  it("says of everything that is missing how to get it", () => {
    const checks = all(machine({ uid: 1000 }));
    for (const { name, state, advice } of checks) {
      if (name === "nbd-server") assert.equal(state, "works");
      else if (state === "unused") assert.ok(["tcmu", "ublk"].includes(name));
      else assert.ok(state === "missing" && advice !== undefined && advice.length > 5, name);
    }
    assert.match(only(checks, "programs").found, /^mount, umount, losetup: not installed$/);
    assert.match(only(checks, "root").found, /user 1000/);
  });

  it("tells a module that can be loaded from one that a kernel does not have", () => {
    put(
      "lib/modules/6.1/modules.dep",
      "kernel/fs/erofs/erofs.ko.xz: kernel/lib/crc.ko\nkernel/drivers/block/nbd.ko:\nkernel/drivers/block/loop.ko:\n",
    );
    put("lib/modules/6.1/modules.builtin", "kernel/drivers/target/target-core-user.ko\n");
    const checks = all(machine());
    assert.match(only(checks, "erofs").found, /loads its module erofs when something is mounted/);
    assert.equal(only(checks, "nbd-client").advice, "modprobe nbd; apt-get install nbd-client");
    assert.match(only(checks, "loop").advice ?? "", /^modprobe loop; /);
    assert.match(only(checks, "fuse").advice ?? "", /this kernel \(6\.1\) has no module fuse/);
    assert.match(only(checks, "tcmu").found, /^the kernel has it/);
    assert.match(only(checks, "ublk").found, /^the kernel has none/);
    assert.match(only(all(machine({ release: "6.2" })), "erofs").found, /has no erofs/);
  });

  it("names registries that there are credentials for, and nothing that belongs to them", () => {
    putAll();
    const { found } = only(all(machine()), "credentials");
    assert.match(found, /: for registry\.example, other\.example$/);
    assert.doesNotMatch(JSON.stringify(all(machine())), /secret|c2Vj|pass/);
    put("config.json", JSON.stringify({ credsStore: "desktop" }));
    assert.match(only(all(machine()), "credentials").found, /for whatever docker-credential-desktop knows$/);
    put("config.json", "{}");
    assert.match(only(all(machine()), "credentials").found, /: none in it$/);
  });

  it("says which of the files with credentials cannot be understood", () => {
    put("config.json", "no json");
    const { state, found, advice } = only(all(machine()), "credentials");
    assert.equal(state, "missing");
    assert.match(found, /config\.json/);
    assert.match(advice ?? "", /correct the file/);
  });
});
