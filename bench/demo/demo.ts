import { mkdir, readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { z } from "zod";
import { execute, run } from "../../test/support/command.ts";
import { demoImage } from "../../test/support/demo-image.ts";
import { startDockerRegistry } from "../../test/support/docker-registry.ts";
import { TemporaryDirectory } from "../../test/support/temporary-directory.ts";
import { readImageFigures, type ImageFigures } from "./image-figures.ts";

const ROOT = join(import.meta.dirname, "../..");
const LAZYLAYER = join(ROOT, "bin/lazylayer");

/** What the program run from the mount is: an array of its arguments. */
type Program = readonly string[];

const DEBIAN_PROGRAMS: readonly Program[] = [
  ["redis-server", "--version"],
  ["/usr/bin/python3", "-c", "import json, sys; print(json.dumps({'python': sys.version.split()[0]}))"],
];
const ANY_PROGRAMS: readonly Program[] = [["/bin/sh", "-c", "echo hello"]];

const counts = z.object({ requests: z.int(), bytes: z.int() });
const mountStats = z.object({ layers: z.int(), blobBytes: z.int(), fetched: counts, fetchedToMount: counts });
type MountStats = z.infer<typeof mountStats>;

const abort = new AbortController();
for (const name of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.once(name, () => abort.abort(new Error(`stopped by ${name}`)));

const stopping = { signal: abort.signal };

try {
  await demonstrate(process.argv[2]);
} catch (error) {
  console.error(`demo: ${error instanceof Error ? error.message : String(error)}`);
  process.exitCode = 1;
}

async function demonstrate(image: string | undefined): Promise<void> {
  const table: [string, string][] = [];
  const debian =
    image === undefined ? await step("make an image out of Debian packages", () => demoImage("small", abort.signal)) : undefined;
  await using registry = await startDockerRegistry();
  const converted = `${registry.host}/demo:obd`;
  const source = image ?? `${registry.host}/demo:src`;
  if (debian !== undefined) {
    await step(`push it to a registry at ${registry.host}`, () => skopeoCopy(debian.value, source));
  }
  const before = await readImageFigures(debian?.value ?? source);
  const conversion = await step(`lazylayer convert ${source} ${converted}`, () =>
    lazylayer("convert", source, converted, "--db-type", "none"),
  );
  const after = await readImageFigures(converted);
  table.push(["source image", describeImage(before)], ["converted image", describeImage(after)]);
  table.push(["conversion", `${seconds(conversion.ms)}, ${rate(before, conversion.ms)}`]);

  const verification = await step(`lazylayer verify ${source} ${converted}`, () => lazylayer("verify", source, converted));
  table.push(["verification", `${seconds(verification.ms)}, the trees are equal`]);

  const programs = debian === undefined ? ANY_PROGRAMS : DEBIAN_PROGRAMS;
  if (process.geteuid?.() === 0) table.push(...(await runFromMount(converted, programs)));
  else table.push(...(await readWithoutMount(converted)));

  const width = Math.max(...table.map(([name]) => name.length));
  console.log(`\n${table.map(([name, value]) => `${name.padEnd(width)}  ${value}`).join("\n")}`);
}

async function skopeoCopy(from: string, to: string): Promise<void> {
  await run("skopeo", ["copy", "--insecure-policy", "--quiet", "--dest-tls-verify=false", from, `docker://${to}`], stopping);
}

async function lazylayer(...args: string[]): Promise<string> {
  return await run(LAZYLAYER, args, stopping);
}

async function runFromMount(image: string, programs: readonly Program[]): Promise<[string, string][]> {
  const table: [string, string][] = [];
  await using scratch = await TemporaryDirectory.create();
  const directory = scratch.join("root");
  await mkdir(directory);
  const started = performance.now();
  try {
    const mount = await step(`lazylayer mount ${image} ${directory}`, () =>
      lazylayer("mount", image, directory, "--cache-dir", scratch.join("cache")),
    );
    const atMount = await readStats(directory);
    table.push(["mounted after", `${seconds(mount.ms)}, having fetched ${describeFetched(atMount.fetchedToMount, atMount)}`]);
    for (const [index, program] of programs.entries()) {
      const { value, ms } = await step(`chroot ${program.join(" ")}`, () => run("chroot", [directory, ...program], stopping));
      if (index === 0) table.push(["first output after", `${seconds(performance.now() - started)}, mount and program together`]);
      console.log(`    ${value.trim()}`);
      table.push([program[0].split("/").at(-1) ?? "", seconds(ms)]);
    }
    const atEnd = await readStats(directory);
    table.push(["fetched in all", describeFetched(atEnd.fetched, atEnd)]);
  } finally {
    // Also when the demo is being stopped, and when the mount failed: nothing of it may stay mounted.
    await execute(LAZYLAYER, ["umount", directory]);
  }
  console.log(`  lazylayer umount ${directory}`);
  return table;
}

async function readWithoutMount(image: string): Promise<[string, string][]> {
  console.log("  not root: nothing is mounted, the tree is read by lazylayer's own reader");
  const listing = await step(`lazylayer ls ${image} /usr/bin`, () => lazylayer("ls", image, "/usr/bin"));
  const file = await step(`lazylayer cat ${image} /etc/os-release`, () => lazylayer("cat", image, "/etc/os-release"));
  console.log(file.value.replaceAll(/^/gm, "    ").trimEnd());
  return [
    ["ls /usr/bin", `${listing.value.trim().split("\n").length} names in ${seconds(listing.ms)}`],
    ["cat /etc/os-release", `${file.value.length} bytes in ${seconds(file.ms)}`],
  ];
}

/** The counters of the process that serves a mount: a file beside the one that the loop device shows. */
async function readStats(directory: string): Promise<MountStats> {
  const device = (await run("findmnt", ["--noheadings", "--output", "SOURCE", "--mountpoint", directory])).trim();
  const disk = (await run("losetup", ["--noheadings", "--output", "BACK-FILE", device])).trim();
  return mountStats.parse(JSON.parse(await readFile(join(dirname(disk), "stats"), "utf8")));
}

interface Timed<T> {
  readonly value: T;
  readonly ms: number;
}

async function step<T>(name: string, work: () => Promise<T>): Promise<Timed<T>> {
  console.log(`  ${name}`);
  const start = performance.now();
  abort.signal.throwIfAborted();
  const value = await work();
  return { value, ms: performance.now() - start };
}

function describeImage({ layerCount, blobBytes, tarBytes }: ImageFigures): string {
  return `${megabytes(blobBytes)} in ${layerCount} layers${tarBytes === undefined ? "" : `, ${megabytes(tarBytes)} as tar`}`;
}

function describeFetched({ requests, bytes }: z.infer<typeof counts>, { blobBytes }: MountStats): string {
  return `${megabytes(bytes)} in ${requests} requests, ${((100 * bytes) / blobBytes).toFixed(1)} % of the image`;
}

function rate({ tarBytes, blobBytes }: ImageFigures, ms: number): string {
  const perSecond = (bytes: number): string => `${(bytes / 1000 / ms).toFixed(0)} MB/s`;
  return tarBytes === undefined ? `${perSecond(blobBytes)} of compressed layers` : `${perSecond(tarBytes)} of tar`;
}

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(2)} s`;
}

function megabytes(bytes: number): string {
  return `${(bytes / 1e6).toFixed(1)} MB`;
}
