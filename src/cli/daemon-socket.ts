import { join } from "node:path";
import { Option } from "commander";
import type { Environment } from "./environment.ts";

/** `--socket`, of the daemon and of its clients. */
export function socketOption({ stateDirectory }: Pick<Environment, "stateDirectory">, description: string): Option {
  return new Option("--socket <path>", description).default(join(stateDirectory, "daemon.sock"), "/run/lazylayer/daemon.sock");
}
