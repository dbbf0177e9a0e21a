import { createReadStream } from "node:fs";
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { Writable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { z } from "zod";
import { execute } from "../../test/support/command.ts";
import { CLEAN_ENVIRONMENT, LAZYLAYER } from "../../test/support/programs.ts";
import type { MadeImage } from "../images/bench-images.ts";
import { IMAGE_TAG, isRoot } from "../images/debian-builder.ts";
import { LoopbackRegistry, type RequestCounts } from "../registry/loopback-registry.ts";
import { publishLayout } from "../registry/published-layout.ts";
import { measure, measureFloor, type FloorUsage, type Usage } from "./measured.ts";
import { readStages, type Stage } from "./stages.ts";

const SOURCE = "bench/source";
const CONVERTED = "bench/converted";
const TAG = "obd";
/** The filesystem that the converted image shows by default. */
const FILESYSTEM_BYTES = 64 * 2 ** 30;

const manifest = z.object({ layers: z.array(z.object({ size: z.int() })) });

export interface Conversion extends Usage {
  /** Processor time of the registry meanwhile. */
  readonly registryCpu: number;
  readonly requests: RequestCounts;
  /** Bytes of each layer's blob, bottom first. */
  readonly layerBytes: number[];
}

/** What people do anyway with an image. The last one works on what the one before it made. */
export const PEERS = ["skopeo", "umoci", "mkfs"] as const;
export type Peer = (typeof PEERS)[number];

export interface Round {
  readonly floor: FloorUsage;
  readonly conversion: Conversion;
  /** Seconds of each peer; none when it is not this round's turn. */
  readonly peers: Readonly<Partial<Record<Peer, number>>>;
}

export interface RoundOptions {
  readonly withPeers: boolean;
  readonly missing: ReadonlySet<Peer>;
  readonly signal: AbortSignal;
  readonly say: (message: string) => void;
}

/** One thing after the other, once each: the floor, the conversion, the peers. `work` is empty before and after. */
export async function measureRound(image: MadeImage, work: string, options: RoundOptions): Promise<Round> {
  await rm(work, { recursive: true, force: true });
  await mkdir(work, { recursive: true });
  try {
    options.say("floor");
    const floor = await measureFloor(
      image.layers.map((layer) => layer.path),
      { signal: options.signal },
    );
    options.say("convert");
    const conversion = await measureConversion(image, work, options.signal);
    const peers = options.withPeers ? await measurePeers(image, work, options) : {};
    return { floor, conversion, peers };
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

/** Where the time of one more conversion goes. It takes longer than others, because it is looked at. */
export async function measureStages(image: MadeImage, work: string, signal: AbortSignal): Promise<Stage[]> {
  await rm(work, { recursive: true, force: true });
  const profiles = join(work, "profiles");
  await mkdir(profiles, { recursive: true });
  try {
    await measureConversion(image, work, signal, { NODE_OPTIONS: `--cpu-prof --cpu-prof-dir=${profiles}` });
    return await readStages(profiles);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

async function measureConversion(
  image: MadeImage,
  work: string,
  signal: AbortSignal,
  variables: Readonly<Record<string, string>> = {},
): Promise<Conversion> {
  const directory = join(work, "registry");
  const scratch = join(work, "scratch");
  await mkdir(scratch);
  await publishLayout(image.layout, image, directory, SOURCE);
  try {
    await using registry = await LoopbackRegistry.start(directory);
    const [source, destination] = [`${registry.host}/${SOURCE}:${IMAGE_TAG}`, `${registry.host}/${CONVERTED}:${TAG}`];
    const command = [LAZYLAYER, "convert", source, destination, "--db-type", "none", "--progress", "none"];
    const before = await registry.cpuSeconds();
    const usage = await measure(command, scratch, {
      env: { ...CLEAN_ENVIRONMENT, ...variables, TMPDIR: scratch, XDG_CACHE_HOME: scratch },
      signal,
    });
    const registryCpu = (await registry.cpuSeconds()) - before;
    const requests = await registry.requests();
    return { ...usage, registryCpu, requests, layerBytes: await layerBytesOf(registry.host) };
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

async function layerBytesOf(host: string): Promise<number[]> {
  const accept = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json";
  const answer = await fetch(`http://${host}/v2/${CONVERTED}/manifests/${TAG}`, { headers: { accept } });
  return manifest.parse(await answer.json()).layers.map((layer) => layer.size);
}

async function measurePeers(image: MadeImage, work: string, options: RoundOptions): Promise<Round["peers"]> {
  const [directory, layout, bundle] = [join(work, "registry"), join(work, "layout"), join(work, "bundle")];
  await publishLayout(image.layout, image, directory, SOURCE);
  await using registry = await LoopbackRegistry.start(directory);
  const source = `docker://${registry.host}/${SOURCE}:${IMAGE_TAG}`;
  const disk = ["mkfs.ext4", "-q", "-F", "-d", join(bundle, "rootfs"), join(work, "disk.img"), String(FILESYSTEM_BYTES / 1024)];
  const commands: Readonly<Record<Peer, readonly string[]>> = {
    skopeo: ["skopeo", "copy", "--insecure-policy", "--src-tls-verify=false", source, `oci:${layout}:${IMAGE_TAG}`],
    umoci: ["umoci", "unpack", "--image", `${image.layout}:${IMAGE_TAG}`, bundle],
    mkfs: disk,
  };
  const seconds: Partial<Record<Peer, number>> = {};
  for (const peer of PEERS) {
    if (options.missing.has(peer)) continue;
    options.say(peer);
    seconds[peer] = (await measure(commands[peer], join(work, "nothing"), { signal: options.signal })).wall;
    // What is not needed any more makes place for the next.
    if (peer === "skopeo") await rm(layout, { recursive: true });
  }
  return seconds;
}

/** The peers that cannot run here, and why. */
export async function findMissingPeers(): Promise<ReadonlyMap<Peer, string>> {
  const missing = new Map<Peer, string>();
  const programs: Readonly<Record<Peer, readonly string[]>> = {
    skopeo: ["skopeo", "--version"],
    umoci: ["umoci", "--version"],
    mkfs: ["mkfs.ext4", "-V"],
  };
  for (const peer of PEERS) {
    const [program, ...args] = programs[peer];
    const found = await execute(program, args).catch(() => undefined);
    if (found?.status !== 0) missing.set(peer, `${program} is not installed`);
    else if (peer !== "skopeo" && !isRoot()) missing.set(peer, `${program} needs root to keep owners and device nodes`);
  }
  if (missing.has("umoci") && !missing.has("mkfs")) missing.set("mkfs", "mkfs.ext4 has no tree without umoci");
  return missing;
}

/** Reads the files of an image, so that nobody pays for getting them from the disk. */
export async function readOnce(image: MadeImage): Promise<void> {
  for (const { path } of image.layers) {
    await pipeline(createReadStream(path, { highWaterMark: 1 << 20 }), new Writable({ write: (_piece, _encoding, done) => done() }));
  }
}
