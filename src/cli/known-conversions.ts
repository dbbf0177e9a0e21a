import type { ConvertTarget } from "../convert/convert-options.ts";
import type { ConversionStore } from "../dedup/conversion-store.ts";
import { LazyError, messageOf } from "../errors.ts";
import type { ImageReference } from "../oci/reference.ts";
import { openDatabase } from "./database-options.ts";
import type { Environment } from "./environment.ts";
import { typedHost } from "./reference-name.ts";

/**
 * The conversion database; undefined if there is none. One that cannot be opened is a warning: then everything is converted. A wrong
 * call is an error.
 */
export async function openKnownConversions(
  options: unknown,
  environment: Environment,
  warn: (message: string) => void,
): Promise<ConversionStore | undefined> {
  try {
    return await openDatabase(options, environment);
  } catch (error) {
    if (!(error instanceof LazyError) || error.code === "USAGE") throw error;
    warn(`${messageOf(error)}; going on without the conversion database, so everything is converted`);
    return undefined;
  }
}

/** The database and what it calls a destination; only registries have a name in there. */
export function knownIn(store: ConversionStore | undefined, destination: ImageReference): ConvertTarget["known"] {
  if (store === undefined || destination.kind !== "registry") return undefined;
  return { store, repository: { host: typedHost(destination), repository: destination.repository } };
}
