import { mkdir, readdir, readFile, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { run as runCommand } from "../../test/support/command.ts";

export interface MakeOptions {
  /** Is told what is being done. */
  readonly say: (message: string) => void;
  readonly signal: AbortSignal;
}

/** What the tools stamp on what they make; packages keep the times they came with. */
const EPOCH_SECONDS = 1_700_000_000;
export const CREATED = new Date(EPOCH_SECONDS * 1000).toISOString();

export const IMAGE_TAG = "src";

/** GNU tar, with everything that an image keeps and in an order that does not depend on the disk. */
export const TAR_OPTIONS = [
  "--create",
  "--format=posix",
  "--pax-option=delete=atime,delete=ctime,exthdr.name=%d/PaxHeaders/%f",
  "--sort=name",
  "--numeric-owner",
  "--sparse",
  "--xattrs",
  "--xattrs-include=*",
];

/**
 * Builds an OCI layout with umoci, of a minimal Debian and what is installed on it, out of the Debian packages that this machine is
 * set up to fetch. Needs uid 0, of the machine or of a user namespace.
 */
export class DebianBuilder {
  readonly layout: string;
  /** The tree of the layers until now. */
  readonly root: string;
  readonly #work: string;
  readonly #options: MakeOptions;
  #layers = 0;

  private constructor(work: string, options: MakeOptions) {
    this.#work = work;
    this.#options = options;
    this.layout = join(work, "layout");
    this.root = join(work, "bundle/rootfs");
  }

  /** An image of one layer, a minimal Debian, made in the directory `work`. */
  static async bootstrap(work: string, options: MakeOptions): Promise<DebianBuilder> {
    const image = new DebianBuilder(work, options);
    await mkdir(work, { recursive: true });
    await image.#run("umoci", ["init", "--layout", image.layout]);
    await image.#run("umoci", ["new", "--image", image.#name]);
    image.#say("a minimal Debian");
    const base = join(work, "base.tar");
    await image.#bootstrap(base);
    await image.#addLayer(base, "mmdebstrap --variant=minbase");
    await image.#run("umoci", ["unpack", "--image", image.#name, image.#bundle]);
    return image;
  }

  /** One more layer: Debian packages, and what they need, as apt-get in the image installs them. */
  async install(packages: readonly string[]): Promise<void> {
    this.#say(packages.join(", "));
    await this.#installPackages(packages, join(this.#work, "packages"));
    await this.#run("umoci", ["repack", "--refresh-bundle", "--image", this.#name, ...historyOptions("apt-get install"), this.#bundle]);
  }

  /** One more layer: what `fill` puts into a directory. The tree stays as it is. */
  async add(name: string, createdBy: string, fill: (directory: string) => Promise<void>): Promise<void> {
    this.#say(name);
    const directory = join(this.#work, "added");
    await mkdir(directory);
    await fill(directory);
    const tar = join(this.#work, "added.tar");
    await this.#run("tar", [...TAR_OPTIONS, "--file", tar, "--directory", directory, "."]);
    await this.#addLayer(tar, createdBy);
    await rm(directory, { recursive: true });
  }

  /** The layout is complete after this. */
  async finish(config: readonly string[]): Promise<void> {
    const options = ["--created", CREATED, ...historyOptions("configuration"), ...config];
    await this.#run("umoci", ["config", "--image", this.#name, ...options]);
    await this.#run("umoci", ["gc", "--layout", this.layout]);
  }

  get #name(): string {
    return `${this.layout}:${IMAGE_TAG}`;
  }

  get #bundle(): string {
    return join(this.#work, "bundle");
  }

  #say(what: string): void {
    this.#options.say(`layer ${++this.#layers}: ${what}`);
  }

  async #run(program: string, args: readonly string[], options: Parameters<typeof runCommand>[2] = {}): Promise<string> {
    return await runCommand(program, args, { ...options, signal: this.#options.signal });
  }

  async #addLayer(tar: string, createdBy: string): Promise<void> {
    await this.#run("umoci", ["raw", "add-layer", "--image", this.#name, ...historyOptions(createdBy), tar]);
    await rm(tar);
  }

  async #bootstrap(tar: string): Promise<void> {
    // Which mirrors, and how they are reached, is the machine's configuration; only Debian's own suites are wanted from it.
    const line = "deb $(REPO_URI) $(RELEASE) $(COMPONENT)";
    const sources = await this.#run("apt-get", ["indextargets", "--format", line, "Created-By: Packages", "Origin: Debian"]);
    const suite = /^VERSION_CODENAME=(\S+)$/m.exec(await readFile("/etc/os-release", "utf8"))?.[1];
    if (suite === undefined || sources === "") {
      throw new Error("apt-get on this machine knows no Debian packages: run apt-get update, on Debian");
    }
    const options = ["--variant=minbase", "--mode=root", "--quiet"];
    if (await isUserNamespace()) options.push("--skip=output/dev");
    await this.#run("mmdebstrap", [...options, suite, tar, "-"], { input: sources, env: { SOURCE_DATE_EPOCH: String(EPOCH_SECONDS) } });
  }

  /** Fetches with the machine's own apt, installs with the one inside, which needs no network then. */
  async #installPackages(packages: readonly string[], cache: string): Promise<void> {
    await mkdir(join(cache, "partial"), { recursive: true });
    const apt = ["-qq", "-y", "--no-install-recommends", "--download-only"];
    const places = [
      `Dir::State::status=${this.root}/var/lib/dpkg/status`,
      `Dir::Cache::archives=${cache}`,
      "Debug::NoLocking=1",
      "APT::Sandbox::User=root",
    ];
    await this.#run("apt-get", [...apt, ...places.flatMap((place) => ["-o", place]), "install", ...packages]);
    const inside = join(this.root, "tmp/packages");
    await rm(join(cache, "partial"), { recursive: true });
    await rename(cache, inside);
    if ((await readdir(inside)).length === 0) throw new Error("apt-get fetched no packages");
    const env = { PATH: "/usr/sbin:/usr/bin:/sbin:/bin", LC_ALL: "C.UTF-8", TMPDIR: "/tmp" };
    const inNamespace = ["unshare", "--mount", "sh", "-euc", WITH_DEVICES, "sh", this.root];
    const command = (await isUserNamespace()) ? inNamespace : ["chroot", this.root];
    const [program, ...args] = [...command, "/bin/sh", "-euc", INSTALL];
    await this.#run(program, args, { env });
  }
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

function historyOptions(text: string): string[] {
  return ["--history.created", CREATED, "--history.created_by", text];
}

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
