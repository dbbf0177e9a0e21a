import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";

const profile = z.object({
  nodes: z.array(
    z.object({
      id: z.int(),
      callFrame: z.object({ functionName: z.string(), url: z.string() }),
      children: z.array(z.int()).optional(),
    }),
  ),
  samples: z.array(z.int()),
  timeDeltas: z.array(z.int()),
});
type Profile = z.infer<typeof profile>;

/** Time that the threads spent on one kind of work in one conversion, in seconds; waiting for a processor is in it. */
export interface Stage {
  readonly name: string;
  readonly mainThread: number;
  readonly otherThreads: number;
}

/** What runs in a file, by the end of its path or its module's name; the first that fits counts. */
const STAGES: readonly (readonly [RegExp, string])[] = [
  [/^node:internal\/crypto\/hash/, "hashes"],
  [/^node:(internal\/)?zlib/, "inflate, zstd"],
  [/\/src\/compression\/.*(lz4|block)/, "LZ4, CRC"],
  [/\/src\/.*crc/, "LZ4, CRC"],
  [/\/src\/compression\//, "inflate, zstd"],
  [/\/src\/tar\//, "tar"],
  [/\/src\/(formats\/ext4|tree)\//, "metadata"],
  [/\/src\/formats\/(zfile|lsmt)\//, "blob formats"],
  [/\/src\/registry\/|^node:(_?http|net|internal\/(stream_base|net))/, "download, upload"],
  [/\/src\/workers\/|^node:internal\/(worker|structured_clone|per_context)/, "messages"],
  [/^node:(fs|internal\/fs)/, "spool"],
  [/^node:(stream|events|internal\/(streams|webstreams|readline))/, "Node's streams"],
  [/\/src\/(oci|convert|bytes|dedup|cache|cli|device)\/|^node:/, "putting together"],
];
const START = /^node:internal\/(modules|main|bootstrap)|compileForInternalLoader/;
const IDLE = new Set(["(idle)"]);

/**
 * Sums up the profiles that Node's `--cpu-prof` left in a directory, one a thread. Time in WebAssembly and in native functions counts
 * for the file that called them. What the kernel, the engine's own threads and Node's thread pool do is in none of them.
 */
export async function readStages(directory: string): Promise<Stage[]> {
  const stages = new Map<string, { mainThread: number; otherThreads: number }>();
  for (const file of await readdir(directory)) {
    const seconds = secondsByStage(profile.parse(JSON.parse(await readFile(join(directory, file), "utf8"))));
    // CPU.DATE.TIME.PID.THREAD.NUMBER.cpuprofile
    const thread = file.split(".")[4] === "0" ? "mainThread" : "otherThreads";
    for (const [name, spent] of seconds) {
      const stage = stages.get(name) ?? { mainThread: 0, otherThreads: 0 };
      stage[thread] += spent;
      stages.set(name, stage);
    }
  }
  const total = (stage: { mainThread: number; otherThreads: number }): number => stage.mainThread + stage.otherThreads;
  return [...stages].toSorted(([, one], [, other]) => total(other) - total(one)).map(([name, spent]) => ({ name, ...spent }));
}

function secondsByStage({ nodes, samples, timeDeltas }: Profile): Map<string, number> {
  const stageOf = stagesByNode(nodes);
  const seconds = new Map<string, number>();
  for (const [at, id] of samples.entries()) {
    const stage = stageOf.get(id);
    // A sample's time is that until the next one.
    if (stage !== undefined) seconds.set(stage, (seconds.get(stage) ?? 0) + (timeDeltas[at + 1] ?? 0) / 1e6);
  }
  return seconds;
}

/** Which stage time at a node of the call tree belongs to: the node's own, or the nearest caller's that has one. */
function stagesByNode(nodes: Profile["nodes"]): Map<number, string> {
  const byId = new Map(nodes.map((node) => [node.id, node]));
  const stages = new Map<number, string>();
  const visit = (id: number, inherited: string): void => {
    const { callFrame, children = [] } = byId.get(id)!;
    if (IDLE.has(callFrame.functionName)) return;
    const stage = stageOfFrame(callFrame) ?? inherited;
    stages.set(id, stage);
    for (const child of children) visit(child, stage);
  };
  visit(nodes[0].id, "the rest");
  return stages;
}

function stageOfFrame({ functionName, url }: { readonly functionName: string; readonly url: string }): string | undefined {
  if (functionName === "(garbage collector)") return "garbage collection";
  if (functionName === "(program)") return "native code outside of calls";
  if (START.test(url)) return "start";
  return STAGES.find(([pattern]) => pattern.test(url))?.[1];
}
