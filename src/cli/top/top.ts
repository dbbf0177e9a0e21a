import { resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { Command } from "commander";
import { messageOf } from "../../errors.ts";
import { socketOption } from "../daemon-socket.ts";
import type { Environment } from "../environment.ts";
import { LiveLines, type TerminalStream } from "../progress/live-lines.ts";
import { isTerminal } from "../standard-streams.ts";
import { takeSample, type Sample } from "./device-sample.ts";
import { deviceTable } from "./device-table.ts";

const INTERVAL_MS = 1000;
const DEFAULT_COLUMNS = 80;

const COLUMNS_HELP = `
Columns: reads and megabytes of the device a second, the part of the reads that did not have to wait (HIT%), megabytes a second from
registries (NET), the longest read of the last 10 seconds (MAX), memory of the device's process (RSS), and errors since it began (ERR).`;

export function addTopCommand(program: Command, environment: Environment): void {
  program
    .command("top")
    .summary("show what the daemon's devices are doing")
    .description(
      "Shows what the devices of lazylayer daemon are doing, anew each second, until SIGINT: those that do not run first, then the busiest.\n" +
        "Where standard output is no terminal, prints one table, of one second.",
    )
    .addOption(socketOption(environment, "of the daemon"))
    .option("--once", "print one table, also on a terminal")
    .addHelpText("after", COLUMNS_HELP)
    .action(async ({ socket, once }: { socket: string; once?: true }) => {
      const { stdout, variables, signal } = environment;
      const socketPath = resolve(socket);
      const isLive = once !== true && isTerminal(stdout) && variables["TERM"] !== "dumb";
      if (isLive) await showLive(socketPath, stdout, signal);
      else await printOnce(socketPath, stdout, signal);
    });
}

async function printOnce(socketPath: string, stdout: TerminalStream, signal: AbortSignal): Promise<void> {
  const before = await takeSample(socketPath, signal);
  await sleep(INTERVAL_MS, undefined, { signal });
  const now = await takeSample(socketPath, signal);
  const size = { columns: stdout.columns || DEFAULT_COLUMNS, rows: undefined };
  stdout.write(deviceTable(before, now, size).map((line) => `${line}\n`).join("")); // prettier-ignore
}

/** Being interrupted is its end, and leaves the terminal as it was. A daemon that goes away may come back. */
async function showLive(socketPath: string, stdout: TerminalStream, signal: AbortSignal): Promise<void> {
  let before: Sample | undefined;
  let now = await takeSample(socketPath, signal);
  const lines = new LiveLines(stdout);
  let failure: string | undefined;
  try {
    while (!signal.aborted) {
      const table = deviceTable(before, now, { columns: stdout.columns || DEFAULT_COLUMNS, rows: lines.rows });
      lines.show(failure === undefined ? table : [failure, ...table.slice(1)]);
      await sleep(INTERVAL_MS, undefined, { signal });
      try {
        [before, now] = [now, await takeSample(socketPath, signal)];
        failure = undefined;
      } catch (error) {
        signal.throwIfAborted();
        failure = messageOf(error);
      }
    }
  } catch (error) {
    if (!signal.aborted) throw error;
  } finally {
    lines.clear();
  }
}
