import { test, type TestContext } from "node:test";
import { chanceOf, type Chance } from "../support/recorded-file.ts";
import { BlockWalker, type BlockWalk } from "./soak/block-walker.ts";
import { FootprintWatch } from "./soak/footprint.ts";
import { Havoc } from "./soak/havoc.ts";
import { SoakBench } from "./soak/soak-bench.ts";
import { buildBlockImages, buildFileImage, type BlockImages, type FileImage } from "./soak/soak-images.ts";
import { FileReader, FileWriter } from "./soak/tree-walker.ts";
import { walkTogether, type Walker } from "./soak/walk.ts";

const SECONDS = Number(process.env["SOAK_SECONDS"] ?? 600);
const SEED = Number(process.env["SOAK_SEED"] ?? 20_261_121);
/** Between two checkpoints. */
const STRETCH_SECONDS = 50;
/** For setting up, and for what is still recovering at checkpoints. */
const EXTRA_SECONDS = 600;

const title = `for ${SECONDS} s everything goes wrong that can, and no byte is wrong, nothing that was synced is lost, and nothing leaks`;

test(title, { timeout: (2 * SECONDS + EXTRA_SECONDS) * 1000 }, async (t) => {
  const run = `SOAK_SEED=${SEED} SOAK_SECONDS=${SECONDS}`;
  console.log(run);
  await using bench = await SoakBench.start();
  try {
    await soak(bench, t);
  } catch (error) {
    // Here, because disposal has something to say of what the failure left behind.
    console.error(bench.story(), `\n${run}\n`, error);
    throw error;
  } finally {
    t.diagnostic(bench.journal.summary());
  }
});

async function soak(bench: SoakBench, t: TestContext): Promise<void> {
  const [blocks, files] = [await buildBlockImages(bench), await buildFileImage(bench)];
  let seed = SEED;
  const chance = (): Chance => chanceOf((seed += 7919));
  const havoc = new Havoc(bench, chance(), files.target);
  const walkers = await startWalkers(bench, { blocks, files }, chance);
  const footprints = new FootprintWatch(bench);
  const endMs = performance.now() + SECONDS * 1000;
  for (let leftMs = SECONDS * 1000; leftMs > 0; leftMs = endMs - performance.now()) {
    await walkTogether([...walkers, havoc], Math.min(leftMs, STRETCH_SECONDS * 1000));
    await havoc.end();
    await Promise.all(walkers.map(async (walker) => await walker.checkpoint()));
    await footprints.look(walkers.map(({ id }) => id));
  }
  for (const walker of walkers) await walker.end();
  await bench.daemon.allGone();
  t.diagnostic(footprints.summary());
}

interface Images {
  readonly blocks: BlockImages;
  readonly files: FileImage;
}

async function startWalkers(bench: SoakBench, { blocks, files }: Images, chance: () => Chance): Promise<Walker[]> {
  const [full, roomy] = [bench.uppersDirectory, bench.daemon.join(".")];
  const { remote, local, none } = blocks;
  const walks: Pick<BlockWalk, "id" | "image" | "upper" | "isSteady">[] = [
    { id: "remote", image: remote },
    { id: "remote-steady", image: remote, isSteady: true },
    { id: "append", image: local, upper: { form: "append", directory: full } },
    { id: "append-remote", image: remote, upper: { form: "append", directory: roomy } },
    { id: "append-alone", image: none, upper: { form: "append", directory: full } },
    { id: "sparse", image: local, upper: { form: "sparse", directory: full } },
    { id: "sparse-steady", image: local, upper: { form: "sparse", directory: roomy }, isSteady: true },
  ];
  const walkers: Walker[] = [];
  for (const walk of walks) walkers.push(await BlockWalker.start({ ...walk, bench, chance: chance() }));
  walkers.push(await FileReader.start("files", bench, chance(), files));
  walkers.push(await FileWriter.start("written", bench, chance()));
  return walkers;
}
