import { mkdtemp, rmdir } from "node:fs/promises";
import { release } from "node:os";
import { join } from "node:path";
import { Option, type Command } from "commander";
import { MemorySource } from "../bytes/source.ts";
import { messageOf } from "../errors.ts";
import { CONTENT_NAME, FuseServer } from "../export/fuse/fuse-server.ts";
import { attachLoop, detachLoop } from "../native/loop.ts";
import { runTool } from "../native/tool.ts";
import { checkFilesystems, checkMountParts, checkOtherWays, type Check, type MachineFiles } from "./doctor-checks.ts";
import type { Environment } from "./environment.ts";

const OUTPUT_FORMATS = ["text", "json"] as const;
const TRIAL_BYTES = 2 ** 20;
const SECTOR_BYTES = 512;

const EXAMPLES = `
Examples:
  lazylayer doctor
  sudo lazylayer doctor && sudo lazylayer mount registry.example/app:1-obd /mnt/app
  lazylayer doctor --output json`;

interface DoctorOptions {
  readonly output: (typeof OUTPUT_FORMATS)[number];
}

/** `setStatus` gets 1 if mounting does not work. */
export function addDoctorCommand(program: Command, environment: Environment, setStatus: (status: number) => void): void {
  program
    .command("doctor")
    .summary("say what this machine offers for mounting and serving images")
    .description(
      "Says which ways of showing an image this machine offers, what is missing and how to get it. As root it shows an empty device\n" +
        "through FUSE and a loop device, and takes it away again. The status is 1 if mounting does not work.",
    )
    .addOption(new Option("--output <format>", "what is printed to standard output").choices(OUTPUT_FORMATS).default("text"))
    .addHelpText("after", EXAMPLES)
    .action(async ({ output }: DoctorOptions) => {
      const { checks, mounting } = await examine(environment);
      const text = output === "json" ? JSON.stringify({ mounting, checks }) : [...checks.map(line), verdict(mounting)].join("\n");
      environment.stdout.write(`${text}\n`);
      if (!mounting) setStatus(1);
    });
}

async function examine({ credentialFiles, temporaryDirectory }: Environment): Promise<{ checks: Check[]; mounting: boolean }> {
  const machine: MachineFiles = { root: "/", release: release(), uid: process.geteuid?.() ?? -1, credentialFiles };
  const parts = checkMountParts(machine);
  const filesystems = checkFilesystems(machine);
  const isPossible = parts.every(works) && filesystems.some(works);
  const trial = isPossible ? [await tryMounting(temporaryDirectory)] : [];
  const checks = [...parts, ...filesystems, ...trial, ...checkOtherWays(machine), await checkUserNamespaces()];
  return { checks, mounting: isPossible && trial.every(works) };
}

function works({ state }: Check): boolean {
  return state === "works";
}

/** All the parts may be there, and a container's rules still forbid to use them. */
async function tryMounting(temporaryDirectory: string): Promise<Check> {
  const name = "mount";
  try {
    await showDevice(temporaryDirectory);
    return { name, state: "works", found: "a device was shown through FUSE and a loop device, and taken away again" };
  } catch (error) {
    const advice = "a container needs --privileged; lazylayer serve, ls and cat need nothing of this";
    return { name, state: "missing", found: messageOf(error), advice };
  }
}

async function showDevice(temporaryDirectory: string): Promise<void> {
  const directory = await mkdtemp(join(temporaryDirectory, "lazylayer-doctor-"));
  try {
    const content = new MemorySource(new Uint8Array(TRIAL_BYTES));
    const failures: unknown[] = [];
    const server = await FuseServer.mount({
      directory,
      content,
      workers: 1,
      stats: () => "",
      onReadFailure: (error) => failures.push(error),
    });
    try {
      await detachLoop(await attachLoop(join(directory, CONTENT_NAME), SECTOR_BYTES));
    } finally {
      await server.close();
    }
    if (failures.length > 0) throw failures[0];
  } finally {
    await rmdir(directory);
  }
}

async function checkUserNamespaces(): Promise<Check> {
  const name = "user-namespaces";
  try {
    await runTool("unshare", ["--user", "--map-root-user", "true"]);
    return { name, state: "works", found: "users may be root in a namespace of their own" };
  } catch (error) {
    const advice = "sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns";
    return { name, state: "missing", found: messageOf(error), advice };
  }
}

const STATE_WORDS: Readonly<Record<Check["state"], string>> = { works: "works", missing: "missing", unused: "not used" };

function line({ name, state, found, advice }: Check): string {
  return `${STATE_WORDS[state].padEnd(9)} ${name.padEnd(16)} ${found}${advice === undefined ? "" : `; ${advice}`}`;
}

function verdict(mounting: boolean): string {
  return mounting ? "lazylayer mount works here" : "lazylayer mount does not work here; lazylayer serve, ls and cat do";
}
