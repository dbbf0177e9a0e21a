import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { execute, run } from "./command.ts";
import { requireProgram } from "./server-process.ts";

const CHECKOUT = join(import.meta.dirname, "../..");
const GUEST = join(CHECKOUT, ".work/guest");
/** What programs of this project are made of; copied into the guest, with the code that Node has compiled before. */
const PARTS = ["bin", "src", "test", "node_modules/commander", "node_modules/zod", "node_modules/.cache"];
/** Where bin/launch.sh keeps it. */
const COMPILED = join(CHECKOUT, "node_modules/.cache/compile");
const NODE_OPTIONS = ["--disable-warning=ExperimentalWarning"];
const MEMORY_MIB = 1536;

/** Where a guest finds what listens on this machine's loopback. */
export const HOST_ADDRESS = "10.0.2.2";

/** Where a guest has the modules of its kernel. */
export const GUEST_MODULES = "/run/modules";

/** Why a guest cannot be had here, whatever is installed. */
export const NO_GUEST =
  process.arch === "x64" ? false : `the guest is an x64 machine, and would not run this ${process.arch} machine's programs`;

export interface GuestResult {
  readonly status: number;
  readonly output: string;
}

/**
 * Runs a TypeScript program as root of a virtual machine, which has a kernel of its own and otherwise this machine's files, read-only;
 * `directory` can be written by both, and /run and /mnt are the guest's own. The machine is emulated, and so several times slower.
 * `program` does nothing when it is only imported. `later`: a module that is not loaded yet.
 */
export async function runInGuest(program: string, args: readonly string[], directory: string, later: string): Promise<GuestResult> {
  await requireProgram("qemu-system-x86_64", "qemu-system-x86");
  assert.ok(existsSync(join(GUEST, "initrd")), `${GUEST} has no kernel for a virtual machine: npm test makes it`);
  // Compiled here, where that takes less: the guest has the cache, too.
  await run(process.execPath, [...NODE_OPTIONS, "--eval", `import(${JSON.stringify(program)})`], { env: { NODE_COMPILE_CACHE: COMPILED } });
  const parts = PARTS.filter((part) => existsSync(join(CHECKOUT, part)));
  await run("tar", ["-c", "-C", CHECKOUT, "-f", join(directory, "checkout.tar"), "--exclude=*.test.ts", ...parts]);
  await writeFile(join(directory, "parts"), parts.map((part) => `${part}\n`).join(""));
  const command = [process.execPath, ...NODE_OPTIONS, program, ...args].map((word) => `'${word}'`).join(" ");
  await writeFile(join(directory, "program"), `NODE_COMPILE_CACHE='${COMPILED}' exec ${command}\n`);
  const { stdout, stderr } = await execute("qemu-system-x86_64", machine(directory, later));
  const status = join(directory, "status");
  assert.ok(existsSync(status), `the guest came to no end: ${stderr}\n${stdout.toString().slice(-4000)}`);
  return { status: Number(readFileSync(status, "utf8")), output: readFileSync(join(directory, "output"), "utf8") };
}

/** An emulated machine: in its console goes what the kernel says, on its end it is gone. */
function machine(directory: string, later: string): string[] {
  const options = [
    "console=ttyS0",
    "quiet",
    "panic=-1",
    `guest.directory=${directory}`,
    `guest.checkout=${CHECKOUT}`,
    `guest.later=${later}`,
  ];
  const shared = "security_model=none,multidevs=remap";
  return [
    ["-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", `${MEMORY_MIB}`, "-nodefaults", "-display", "none", "-no-reboot"],
    ["-serial", "stdio", "-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile="],
    ["-kernel", join(GUEST, "vmlinuz"), "-initrd", join(GUEST, "initrd"), "-append", options.join(" ")],
    ["-virtfs", `local,path=/,mount_tag=machine,${shared},readonly=on`],
    ["-virtfs", `local,path=${directory},mount_tag=directory,${shared}`],
  ].flat();
}
