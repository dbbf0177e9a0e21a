import { accessSync, closeSync, constants, existsSync, openSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { messageOf } from "../errors.ts";
import { parseJsonObject } from "../oci/json.ts";

/** Where a machine tells what it has. Tests give directories of their own. */
export interface MachineFiles {
  /** `/`, where `dev`, `proc`, `sys`, `lib/modules` and the programs are. */
  readonly root: string;
  /** The kernel's release, as in `/lib/modules/RELEASE`. */
  readonly release: string;
  readonly uid: number;
  readonly credentialFiles: readonly string[];
}

export interface Check {
  readonly name: string;
  /** `unused`: a way that lazylayer does not go yet, whether the machine has it or not. */
  readonly state: "works" | "missing" | "unused";
  readonly found: string;
  /** How to get what is missing. */
  readonly advice?: string | undefined;
}

const PROGRAM_DIRECTORIES = ["usr/sbin", "usr/bin", "sbin", "bin"];
/** What mounting runs, and the Debian packages that have it. */
const MOUNT_PROGRAMS = { mount: "mount", umount: "mount", losetup: "mount" } as const;

/** What mounting is made of; each has to work. */
export function checkMountParts(machine: MachineFiles): Check[] {
  return [checkRoot(machine), checkFuse(machine), checkLoop(machine), checkPrograms(machine)];
}

/** The file systems of images; one of them suffices for images of its kind. */
export function checkFilesystems(machine: MachineFiles): Check[] {
  return [
    checkFilesystem(machine, "ext4", "images as lazylayer convert makes them"),
    checkFilesystem(machine, "erofs", "images that were converted with --fs erofs"),
  ];
}

/** Everything that mounting does without. */
export function checkOtherWays(machine: MachineFiles): Check[] {
  return [
    checkFilesystem(machine, "overlay", "what is written over a mounted image (--overlay)"),
    { name: "nbd-server", state: "works", found: "lazylayer serve needs nothing of the kernel" },
    checkNbdClient(machine),
    checkUnused(machine, "tcmu", "target_core_user"),
    checkUnused(machine, "ublk", "ublk_drv"),
    ...checkCredentials(machine),
  ];
}

function checkRoot({ uid }: MachineFiles): Check {
  if (uid === 0) return { name: "root", state: "works", found: "this is root" };
  const found = `this is user ${uid}; only root may mount`;
  return { name: "root", state: "missing", found, advice: "use sudo, or lazylayer serve, ls and cat, which need no root" };
}

function checkFuse(machine: MachineFiles): Check {
  return checkDevice(machine, "fuse", "dev/fuse", "a container needs --device /dev/fuse --cap-add SYS_ADMIN");
}

function checkLoop(machine: MachineFiles): Check {
  return checkDevice(machine, "loop", "dev/loop-control", "a container needs --privileged");
}

/** A device that cannot be opened is of no use, whatever the reason. */
function checkDevice(machine: MachineFiles, name: string, path: string, containerAdvice: string): Check {
  try {
    closeSync(openSync(join(machine.root, path), constants.O_RDWR | constants.O_NONBLOCK));
    return { name, state: "works", found: `/${path} can be opened` };
  } catch (error) {
    if (isMissing(error)) {
      return { name, state: "missing", found: `/${path} is missing`, advice: `${moduleAdvice(machine, name)}; ${containerAdvice}` };
    }
    const advice = machine.uid === 0 ? containerAdvice : "root may";
    return { name, state: "missing", found: `/${path} cannot be opened: ${codeOf(error)}`, advice };
  }
}

function checkPrograms(machine: MachineFiles): Check {
  const missing = Object.entries(MOUNT_PROGRAMS).filter(([program]) => !hasProgram(machine, program));
  const name = "programs";
  if (missing.length === 0) return { name, state: "works", found: `${Object.keys(MOUNT_PROGRAMS).join(", ")} are installed` };
  const packages = new Set(missing.map(([, debianPackage]) => debianPackage));
  const found = `${missing.map(([program]) => program).join(", ")}: not installed`;
  return { name, state: "missing", found, advice: `install util-linux (Debian: apt-get install ${[...packages].join(" ")})` };
}

function checkFilesystem(machine: MachineFiles, name: string, purpose: string): Check {
  const known = (read(machine, "proc/filesystems") ?? "").split(/\s+/).includes(name);
  if (known) return { name, state: "works", found: `the kernel has ${name}, for ${purpose}` };
  if (moduleOf(machine, name) === "loadable") {
    return { name, state: "works", found: `the kernel loads its module ${name} when something is mounted, for ${purpose}` };
  }
  return { name, state: "missing", found: `the kernel has no ${name}, for ${purpose}`, advice: moduleAdvice(machine, name) };
}

function checkNbdClient(machine: MachineFiles): Check {
  const name = "nbd-client";
  const lacks = [
    ...(existsSync(join(machine.root, "dev/nbd0"))
      ? []
      : [["the kernel's NBD client is not there", moduleAdvice(machine, "nbd")] as const]),
    ...(hasProgram(machine, "nbd-client") ? [] : [["nbd-client is not installed", "apt-get install nbd-client"] as const]),
  ];
  if (lacks.length === 0)
    return {
      name,
      state: "works",
      found: "nbd-client can attach to /dev/nbdN what lazylayer serves (lazylayer device create --expose nbd-disk)",
    };
  const [found, advice] = [0, 1].map((part) => lacks.map((lack) => lack[part]).join("; "));
  return { name, state: "missing", found, advice };
}

function checkUnused(machine: MachineFiles, name: string, module: string): Check {
  const has = moduleOf(machine, module) === "absent" ? "the kernel has none" : "the kernel has it";
  return { name, state: "unused", found: `${has}; lazylayer does not use it yet` };
}

function checkCredentials({ credentialFiles }: MachineFiles): Check[] {
  const checks = credentialFiles.flatMap((path): Check[] => {
    const name = "credentials";
    try {
      const hosts = hostsIn(readFileSync(path), path);
      return [{ name, state: "works", found: `${path}: ${hosts.length === 0 ? "none in it" : `for ${hosts.join(", ")}`}` }];
    } catch (error) {
      if (isMissing(error)) return [];
      return [{ name, state: "missing", found: messageOf(error), advice: "correct the file, or log in again" }];
    }
  });
  if (checks.length > 0) return checks;
  const found = `none stored by docker or podman: ${credentialFiles.join(", ")} do not exist; public images need none`;
  return [{ name: "credentials", state: "missing", found, advice: "docker login or podman login, or -u USER:PASSWORD with each command" }];
}

/** Names of registries only; what belongs to them is nobody's business here. */
function hostsIn(bytes: Uint8Array, path: string): string[] {
  const file = parseJsonObject(bytes, path);
  const keysOf = (value: unknown): string[] => (typeof value === "object" && value !== null ? Object.keys(value) : []);
  const all = typeof file["credsStore"] === "string" ? [`whatever docker-credential-${file["credsStore"]} knows`] : [];
  return [...new Set([...keysOf(file["auths"]), ...keysOf(file["credHelpers"]), ...all])];
}

function moduleAdvice(machine: MachineFiles, module: string): string {
  if (moduleOf(machine, module) !== "absent") return `modprobe ${module}`;
  return `this kernel (${machine.release}) has no module ${module}: use one that has it`;
}

function moduleOf(machine: MachineFiles, module: string): "loaded" | "loadable" | "absent" {
  if (existsSync(join(machine.root, "sys/module", module))) return "loaded";
  const directory = `lib/modules/${machine.release}`;
  const [builtin, loadable] = ["modules.builtin", "modules.dep"].map((file) => read(machine, `${directory}/${file}`) ?? "");
  const pattern = new RegExp(`/${module.replaceAll("_", "[-_]")}\\.ko`);
  if (pattern.test(builtin)) return "loaded";
  return pattern.test(loadable) ? "loadable" : "absent";
}

function hasProgram({ root }: MachineFiles, name: string): boolean {
  return PROGRAM_DIRECTORIES.some((directory) => {
    try {
      accessSync(join(root, directory, name), constants.X_OK);
      return true;
    } catch (error) {
      if (codeOf(error) === undefined) throw error;
      return false;
    }
  });
}

function read({ root }: MachineFiles, path: string): string | undefined {
  try {
    return readFileSync(join(root, path), "utf8");
  } catch (error) {
    if (codeOf(error) === undefined) throw error;
    return undefined;
  }
}

function isMissing(error: unknown): boolean {
  return codeOf(error) === "ENOENT" || codeOf(error) === "ENOTDIR";
}

function codeOf(error: unknown): string | undefined {
  return error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : undefined;
}
