import { Command } from "commander";
import packageJson from "../../package.json" with { type: "json" };
import { selectImage } from "../oci/image-selection.ts";
import { parsePlatform } from "../oci/platform.ts";
import { addConvertCommand } from "./convert.ts";
import { addDbCommand } from "./db.ts";
import { readEnvironment, type Environment } from "./environment.ts";
import { interruptSignal, runToExit } from "./exit-status.ts";
import { catPath, listPath } from "./image-files.ts";
import type { MountEnvironment } from "./mount-request.ts";
import { addMountCommand } from "./mount.ts";
import { addServeMountCommand } from "./serve-mount.ts";
import { addStoreOptions, openReference, readStoreOptions } from "./store-options.ts";
import { addUmountCommand } from "./umount.ts";
import { addVerifyCommand } from "./verify.ts";

const signal = interruptSignal();
const environment = readEnvironment(signal);

await runToExit("lazylayer", signal, async () => {
  let status = 0;
  const program = new Command("lazylayer")
    .description("Container images that start before they are downloaded.")
    .version(packageJson.version)
    .exitOverride()
    .showHelpAfterError("(lazylayer COMMAND --help explains a command)");
  addConvertCommand(program, environment);
  addVerifyCommand(program, environment, (found) => (status = found));
  addDbCommand(program, environment, (found) => (status = found));
  const mounts = mountEnvironment(environment);
  addMountCommand(program, mounts);
  addUmountCommand(program, mounts);
  addServeMountCommand(program, mounts);
  addFileCommands(program, environment);
  await program.parseAsync();
  return status;
});

function addFileCommands(program: Command, environment: Environment): void {
  const ls = program
    .command("ls")
    .summary("list a directory of a converted image")
    .description("Lists a directory of an overlaybd image, reading only what that takes. Needs no root.")
    .argument("<image>", "image reference, or oci:DIRECTORY[:tag]")
    .argument("[path]", "path in the image", "/")
    .option("-l, --long", "with type, mode, links, owner, size and time");
  const cat = program
    .command("cat")
    .summary("print a file of a converted image")
    .description("Prints a file of an overlaybd image, reading only what that takes. Needs no root.")
    .argument("<image>", "image reference, or oci:DIRECTORY[:tag]")
    .argument("<path>", "path in the image");
  for (const command of [ls, cat]) {
    command.option("--platform <os/arch[/variant]>", "of a multi-platform image (default: this machine's)");
    addStoreOptions(command);
  }
  ls.action(async (image: string, path: string, options: { long?: boolean }) => await listPath(image, path, options, environment));
  cat.action(async (image: string, path: string, options: unknown) => await catPath(image, path, options, environment));
}

function mountEnvironment(environment: Environment): MountEnvironment {
  return {
    ...environment,
    addStoreOptions: (command) => {
      command.option("--platform <os/arch[/variant]>", "of a multi-platform image (default: this machine's)");
      addStoreOptions(command);
    },
    readStoreOptions: async (options) => {
      const platform = options["platform"];
      return { ...(await readStoreOptions(options, environment)), ...(platform !== undefined && { platform }) };
    },
    openImage: async (image, options) => {
      const { store, target } = await openReference(image, await readStoreOptions(options, environment), environment);
      try {
        const platform = typeof options["platform"] === "string" ? options["platform"] : "local";
        const { manifest } = await selectImage(store, target, parsePlatform(platform, environment.host));
        return { store, manifest };
      } catch (error) {
        await store.close();
        throw error;
      }
    },
  };
}
