import { LazyError, messageOf } from "../errors.ts";
import { installedVersion, PROGRAM_VERSION } from "../native/program-version.ts";

/**
 * Loads a part of the program that a running device needs only now. Throws `UNAVAILABLE` when it cannot be loaded, or is another version's:
 * the program on the disk may have been replaced since the device's process was started. `what` is what cannot be done then.
 */
export async function loadLater<T>(what: string, load: () => Promise<T>): Promise<T> {
  try {
    const installed = installedVersion();
    if (installed !== PROGRAM_VERSION) throw new Error(`it is version ${installed} now, and ${PROGRAM_VERSION} runs`);
    return await load();
  } catch (cause) {
    const why = "the program was replaced or removed while the device ran";
    throw new LazyError("UNAVAILABLE", `${what}: ${why} (${messageOf(cause)}); remove the device and create it again`, { cause });
  }
}
