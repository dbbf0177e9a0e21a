import { Command } from "commander";
import packageJson from "../../package.json" with { type: "json" };
import type { Environment } from "./environment.ts";
import type { MountEnvironment } from "./mount-request.ts";

const HELP = `
lazylayer COMMAND --help explains a command, with examples. Images are host[:port]/repository:tag, …@sha256:… or oci:DIRECTORY[:tag].

Examples:
  lazylayer convert registry.example/app:1 registry.example/app:1-obd
  lazylayer verify registry.example/app:1 registry.example/app:1-obd
  lazylayer mount registry.example/app:1-obd /mnt/app`;

interface Parts {
  readonly program: Command;
  readonly environment: Environment;
  /** Gets the exit status of what does not fail. */
  readonly setStatus: (status: number) => void;
}

/** Adds one command, or two. Each loads what it needs, and nobody else does: that is most of the time and memory that a start takes. */
const COMMANDS: Readonly<Record<string, (parts: Parts) => Promise<void>>> = {
  convert: async ({ program, environment }) => (await import("./convert.ts")).addConvertCommand(program, environment),
  verify: async ({ program, environment, setStatus }) => (await import("./verify.ts")).addVerifyCommand(program, environment, setStatus),
  db: async ({ program, environment, setStatus }) => (await import("./db.ts")).addDbCommand(program, environment, setStatus),
  mount: async ({ program, environment }) => (await import("./mount.ts")).addMountCommand(program, await mounts(environment)),
  umount: async ({ program, environment }) => (await import("./umount.ts")).addUmountCommand(program, environment),
  "serve-mount": async ({ program, environment }) =>
    (await import("./serve-mount.ts")).addServeMountCommand(program, await mounts(environment)),
  serve: async ({ program, environment }) => (await import("./serve.ts")).addServeCommand(program, await mounts(environment)),
  daemon: async ({ program, environment }) => (await import("./daemon.ts")).addDaemonCommand(program, environment),
  device: async ({ program, environment }) => (await import("./device.ts")).addDeviceCommand(program, environment),
  top: async ({ program, environment }) => (await import("./top/top.ts")).addTopCommand(program, environment),
  doctor: async ({ program, environment, setStatus }) => (await import("./doctor.ts")).addDoctorCommand(program, environment, setStatus),
  trace: async ({ program, environment, setStatus }) =>
    (await import("./trace.ts")).addTraceCommand(program, environment, await mounts(environment), setStatus),
  "ls cat": async ({ program, environment }) => (await import("./file-commands.ts")).addFileCommands(program, environment),
  config: async ({ program, environment, setStatus }) => (await import("./config.ts")).addConfigCommand(program, environment, setStatus),
  completion: async ({ program, environment }) => (await import("./completion/completion.ts")).addCompletionCommand(program, environment),
};

/** Speaks of all commands although it is one. */
const OVERVIEW = "completion";
/** What needs no command. */
const ALONE: readonly (string | undefined)[] = ["-V", "--version"];

/**
 * The program, as one that has not run yet: with the command `wanted` alone, if there is one of that name, else with all of them.
 * `setStatus` gets the exit status of what does not fail.
 */
export async function createLazylayer(
  environment: Environment,
  setStatus: (status: number) => void = () => {},
  wanted?: string,
): Promise<Command> {
  const program = new Command("lazylayer")
    .description("Container images that start before they are downloaded.")
    .version(packageJson.version)
    .exitOverride()
    .configureOutput({ writeOut: (text) => environment.stdout.write(text), writeErr: (text) => environment.stderr.write(text) })
    .showHelpAfterError("(lazylayer COMMAND --help explains a command)")
    .addHelpText("after", HELP);
  if (ALONE.includes(wanted)) return program;
  const found = Object.keys(COMMANDS).find((names) => names.split(" ").includes(wanted ?? ""));
  const names = found === undefined || wanted === OVERVIEW ? Object.keys(COMMANDS) : [found];
  for (const name of names) await COMMANDS[name]({ program, environment, setStatus });
  return program;
}

async function mounts(environment: Environment): Promise<MountEnvironment> {
  const { mountEnvironment } = await import("./mount-environment.ts");
  return mountEnvironment(environment);
}
