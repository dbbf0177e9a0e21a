import type { ConvertTarget } from "../convert/convert-options.ts";
import { LazyError, messageOf } from "../errors.ts";
import type { RegistryReference } from "../oci/reference.ts";
import { openDatabase } from "./database-options.ts";
import type { Environment } from "./environment.ts";
import { typedHost } from "./reference-name.ts";

/**
 * The conversion database and what it calls the destination; undefined if there is none. One that cannot be opened is a warning:
 * then everything is converted. A wrong call is an error.
 */
export async function openKnownConversions(
  options: unknown,
  destination: RegistryReference,
  environment: Environment,
  warn: (message: string) => void,
): Promise<ConvertTarget["known"]> {
  try {
    const store = await openDatabase(options, environment);
    return store && { store, repository: { host: typedHost(destination), repository: destination.repository } };
  } catch (error) {
    if (!(error instanceof LazyError) || error.code === "USAGE") throw error;
    warn(`${messageOf(error)}; going on without the conversion database, so everything is converted`);
    return undefined;
  }
}
