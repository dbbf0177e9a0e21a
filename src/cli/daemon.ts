import { existsSync } from "node:fs";
import { resolve } from "node:path";
import type { Command } from "commander";
import { runDaemon } from "../daemon/run-daemon.ts";
import { socketOption } from "./daemon-socket.ts";
import type { Environment } from "./environment.ts";
import { requireRoot } from "./mount.ts";

const DEFAULT_CONFIG = "/etc/overlaybd/overlaybd.json";

export function addDaemonCommand(program: Command, environment: Environment): void {
  program
    .command("daemon")
    .summary("serve block devices of images, by image configurations")
    .description(
      "Serves block devices from image configurations, each by a process of its own, until SIGINT or SIGTERM (needs root). Devices go on when\n" +
        "the daemon ends; the next daemon on the same socket finds them. Prints its socket when clients may come.",
    )
    .option("--config <file>", `the service's configuration (default: ${DEFAULT_CONFIG}, if it is there)`)
    .addOption(socketOption(environment, "where the API is served, for its owner alone; devices are kept in a directory beside it"))
    .addHelpText(
      "after",
      `
Examples:
  lazylayer daemon
  lazylayer daemon --config overlaybd.json --socket /run/lazylayer/daemon.sock

lazylayer device creates devices; docs/daemon.md explains the API, and lazylayer config check the configuration.`,
    )
    .action(async ({ config, socket }: { config?: string; socket: string }) => {
      requireRoot("daemon");
      const socketPath = resolve(socket);
      await runDaemon({
        socketPath,
        configPath: config === undefined ? existing(DEFAULT_CONFIG) : resolve(config),
        launcher: environment.launcher,
        standardError: (line) => void environment.stderr.write(line),
        signal: environment.signal,
        onReady: () => environment.stdout.write(`${socketPath}\n`),
      });
    });
}

function existing(path: string): string | undefined {
  return existsSync(path) ? path : undefined;
}
