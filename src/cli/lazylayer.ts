import { Command } from "commander";
import packageJson from "../../package.json" with { type: "json" };
import { selectImage } from "../oci/image-selection.ts";
import { parsePlatform } from "../oci/platform.ts";
import { addCompletionCommand } from "./completion/completion.ts";
import { addConfigCommand } from "./config.ts";
import { addConvertCommand } from "./convert.ts";
import { addDaemonCommand } from "./daemon.ts";
import { addDbCommand } from "./db.ts";
import { addDeviceCommand } from "./device.ts";
import { addDoctorCommand } from "./doctor.ts";
import type { Environment } from "./environment.ts";
import { addFileCommands } from "./file-commands.ts";
import type { MountEnvironment } from "./mount-request.ts";
import { addMountCommand } from "./mount.ts";
import { absoluteReference } from "./reference-name.ts";
import { addServeMountCommand } from "./serve-mount.ts";
import { addServeCommand } from "./serve.ts";
import { addReadOptions, openReadPlaces, readStoreOptions } from "./store-options.ts";
import { addTopCommand } from "./top/top.ts";
import { addTraceCommand } from "./trace.ts";
import { addUmountCommand } from "./umount.ts";
import { addVerifyCommand } from "./verify.ts";

const HELP = `
lazylayer COMMAND --help explains a command, with examples. Images are host[:port]/repository:tag, …@sha256:… or oci:DIRECTORY[:tag].

Examples:
  lazylayer convert registry.example/app:1 registry.example/app:1-obd
  lazylayer verify registry.example/app:1 registry.example/app:1-obd
  lazylayer mount registry.example/app:1-obd /mnt/app`;

/** The program with all its commands, as one that has not run yet. `setStatus` gets the exit status of what does not fail. */
export function createLazylayer(environment: Environment, setStatus: (status: number) => void = () => {}): Command {
  const program = new Command("lazylayer")
    .description("Container images that start before they are downloaded.")
    .version(packageJson.version)
    .exitOverride()
    .configureOutput({ writeOut: (text) => environment.stdout.write(text), writeErr: (text) => environment.stderr.write(text) })
    .showHelpAfterError("(lazylayer COMMAND --help explains a command)")
    .addHelpText("after", HELP);
  addConvertCommand(program, environment);
  addVerifyCommand(program, environment, setStatus);
  addDbCommand(program, environment, setStatus);
  const mounts = mountEnvironment(environment);
  addMountCommand(program, mounts);
  addUmountCommand(program, mounts);
  addServeMountCommand(program, mounts);
  addServeCommand(program, mounts);
  addDaemonCommand(program, environment);
  addDeviceCommand(program, environment);
  addTopCommand(program, environment);
  addDoctorCommand(program, environment, setStatus);
  addTraceCommand(program, environment, mounts, setStatus);
  addFileCommands(program, environment);
  addConfigCommand(program, environment, setStatus);
  addCompletionCommand(program, environment);
  return program;
}

function mountEnvironment(environment: Environment): MountEnvironment {
  return {
    ...environment,
    absoluteReference,
    addStoreOptions: (command) => {
      command.option("--platform <os/arch[/variant]>", "of a multi-platform image (default: this machine's)");
      addReadOptions(command);
    },
    readStoreOptions: async (options) => {
      const platform = options["platform"];
      return { ...(await readStoreOptions(options, environment)), ...(platform !== undefined && { platform }) };
    },
    openImage: async (image, options) => {
      const places = await openReadPlaces(image, options, environment);
      try {
        const platform = typeof options["platform"] === "string" ? options["platform"] : "local";
        const { manifest } = await selectImage(places.store, places.target, parsePlatform(platform, environment.host));
        return { ...places, manifest };
      } catch (error) {
        await places.close();
        throw error;
      }
    },
  };
}
