import { selectImage } from "../oci/image-selection.ts";
import { parsePlatform } from "../oci/platform.ts";
import { BLOCK_READ_PATIENCE } from "../registry/timeouts.ts";
import type { Environment } from "./environment.ts";
import type { MountEnvironment } from "./mount-request.ts";
import { absoluteReference } from "./reference-name.ts";
import { addReadOptions, openReadPlaces, readStoreOptions } from "./store-options.ts";

/** What commands that show an image to the kernel, or to NBD clients, need to know of where images are. */
export function mountEnvironment(environment: Environment): MountEnvironment {
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
      const places = await openReadPlaces(image, options, environment, { patience: BLOCK_READ_PATIENCE });
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
