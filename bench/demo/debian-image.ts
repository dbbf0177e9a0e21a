import { createHash } from "node:crypto";
import { mkdir, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { run as runCommand } from "../../test/support/command.ts";

/** `small`: Python and Redis on a minimal Debian, about 220 MB as tar. `big`: the scientific Python packages too, about 1.3 GB. */
export type ImageSize = "small" | "big";

export const IMAGE_TAG = "src";

export interface MakeOptions {
  /** Is told what is being done. */
  readonly say: (message: string) => void;
  readonly signal: AbortSignal;
}

type Run = typeof runCommand;

const PACKAGES: Readonly<Record<ImageSize, readonly string[]>> = {
  small: ["python3", "redis-server"],
  big: ["python3", "redis-server", "python3-matplotlib", "python3-pandas", "python3-scipy", "python3-sklearn"],
};

/** What the tools stamp on what they make; packages keep the times they came with. */
const EPOCH_SECONDS = 1_700_000_000;
const CREATED = new Date(EPOCH_SECONDS * 1000).toISOString();
const CHANGES_SCRIPT = join(import.meta.dirname, "changes.sh");

/**
 * Makes an OCI layout of three layers in `directory`, tagged `src`, out of the Debian packages that this machine is set up to fetch:
 * a minimal system (tar by mmdebstrap), packages installed onto it (tar by umoci), deletions and oddities (tar by GNU tar).
 * Does nothing when the layout is there and was made by the same recipe. Needs uid 0, of the machine or of a user namespace.
 */
export async function makeDebianImage(size: ImageSize, directory: string, options: MakeOptions): Promise<void> {
  const recipe = await recipeOf(size);
  const stamp = `${directory}.recipe`;
  if ((await readFile(stamp, "utf8").catch(() => "")) === recipe) return;
  await rm(stamp, { force: true });
  await rm(directory, { recursive: true, force: true });
  const work = `${directory}.partial-${process.pid}`;
  await mkdir(work, { recursive: true });
  try {
    await buildLayers(size, work, options);
    await rename(join(work, "layout"), directory);
    await writeFile(stamp, recipe);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

async function recipeOf(size: ImageSize): Promise<string> {
  const hash = createHash("sha256");
  for (const file of [import.meta.filename, CHANGES_SCRIPT]) hash.update(await readFile(file));
  return `${size} ${hash.digest("hex")}\n`;
}

async function buildLayers(size: ImageSize, work: string, { say, signal }: MakeOptions): Promise<void> {
  const run: Run = async (program, args, options) => await runCommand(program, args, { ...options, signal });
  const layout = join(work, "layout");
  const image = `${layout}:${IMAGE_TAG}`;
  const bundle = join(work, "bundle");
  const root = join(bundle, "rootfs");
  const historyOptions = (text: string): string[] => ["--history.created", CREATED, "--history.created_by", text];
  await run("umoci", ["init", "--layout", layout]);
  await run("umoci", ["new", "--image", image]);

  say("layer 1: a minimal Debian");
  const base = join(work, "base.tar");
  await bootstrap(run, base);
  await run("umoci", ["raw", "add-layer", "--image", image, ...historyOptions("mmdebstrap --variant=minbase"), base]);
  await rm(base);
  await run("umoci", ["unpack", "--image", image, bundle]);

  say(`layer 2: ${PACKAGES[size].join(", ")}`);
  await installPackages(run, root, PACKAGES[size], join(work, "packages"));
  await run("umoci", ["repack", "--image", image, ...historyOptions("apt-get install"), bundle]);

  say("layer 3: deletions, replacements and oddities");
  const changes = join(work, "changes");
  await run("sh", [CHANGES_SCRIPT, root, changes]);
  const changesTar = join(work, "changes.tar");
  await run("tar", [...TAR_OPTIONS, "--file", changesTar, "--directory", changes, "."]);
  await run("umoci", ["raw", "add-layer", "--image", image, ...historyOptions("changes.sh"), changesTar]);

  const config = ["--config.cmd", "redis-server", "--config.env", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "--config.workingdir", "/"];
  await run("umoci", ["config", "--image", image, "--created", CREATED, ...historyOptions("configuration"), ...config]);
  await run("umoci", ["gc", "--layout", layout]);
}

const TAR_OPTIONS = [
  "--create",
  "--format=posix",
  "--pax-option=delete=atime,delete=ctime,exthdr.name=%d/PaxHeaders/%f",
  "--sort=name",
  "--numeric-owner",
  "--sparse",
  "--xattrs",
  "--xattrs-include=*",
];

async function bootstrap(run: Run, tar: string): Promise<void> {
  // Which mirrors, and how they are reached, is the machine's configuration; only Debian's own suites are wanted from it.
  const line = "deb $(REPO_URI) $(RELEASE) $(COMPONENT)";
  const sources = await run("apt-get", ["indextargets", "--format", line, "Created-By: Packages", "Origin: Debian"]);
  const suite = /^VERSION_CODENAME=(\S+)$/m.exec(await readFile("/etc/os-release", "utf8"))?.[1];
  if (suite === undefined || sources === "") {
    throw new Error("apt-get on this machine knows no Debian packages: run apt-get update, on Debian");
  }
  const options = ["--variant=minbase", "--mode=root", "--quiet"];
  if (await isUserNamespace()) options.push("--skip=output/dev");
  await run("mmdebstrap", [...options, suite, tar, "-"], { input: sources, env: { SOURCE_DATE_EPOCH: String(EPOCH_SECONDS) } });
}

/** Fetches with the machine's own apt, installs with the one inside, which needs no network then. */
async function installPackages(run: Run, root: string, packages: readonly string[], cache: string): Promise<void> {
  await mkdir(join(cache, "partial"), { recursive: true });
  const apt = ["-qq", "-y", "--no-install-recommends", "--download-only"];
  const places = [
    `Dir::State::status=${root}/var/lib/dpkg/status`,
    `Dir::Cache::archives=${cache}`,
    "Debug::NoLocking=1",
    "APT::Sandbox::User=root",
  ];
  await run("apt-get", [...apt, ...places.flatMap((place) => ["-o", place]), "install", ...packages]);
  const inside = join(root, "tmp/packages");
  await rm(join(cache, "partial"), { recursive: true });
  await rename(cache, inside);
  if ((await readdir(inside)).length === 0) throw new Error("apt-get fetched no packages");
  const env = { PATH: "/usr/sbin:/usr/bin:/sbin:/bin", LC_ALL: "C.UTF-8", TMPDIR: "/tmp" };
  const command = (await isUserNamespace()) ? ["unshare", "--mount", "sh", "-euc", WITH_DEVICES, "sh", root] : ["chroot", root];
  const [program, ...args] = [...command, "/bin/sh", "-euc", INSTALL];
  await run(program, args, { env });
}

/** Device nodes cannot be made in a user namespace: the machine's own are shown inside for as long as the command runs. */
const WITH_DEVICES = 'mkdir -p "$1/dev"; mount --rbind /dev "$1/dev"; exec chroot "$@"';

const INSTALL = `
export DEBIAN_FRONTEND=noninteractive
printf '#!/bin/sh\\nexit 101\\n' >/usr/sbin/policy-rc.d
chmod +x /usr/sbin/policy-rc.d
apt-get -qq -y -o APT::Sandbox::User=root --no-install-recommends install /tmp/packages/*.deb
rm -rf /tmp/packages /usr/sbin/policy-rc.d /var/cache/apt/*.bin /var/log/apt /var/log/dpkg.log /var/log/alternatives.log
`;

/** True when this process may act as root: it is, or it was started in a user namespace. */
export function isRoot(): boolean {
  return process.geteuid?.() === 0;
}

async function isUserNamespace(): Promise<boolean> {
  return !/^\s*0\s+0\s+4294967295$/m.test(await readFile("/proc/self/uid_map", "utf8"));
}

/** The command that runs `command` as root of a user namespace with all the ids that this user may use. */
export function inUserNamespace(command: readonly string[]): readonly [program: string, ...args: string[]] {
  return ["unshare", "--user", "--map-root-user", "--map-auto", "--mount", "--fork", ...command];
}
