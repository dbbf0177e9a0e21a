import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { closeSync, existsSync, openSync, readFileSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { parseImageConfig, type ImageConfig } from "../device/image-config-schema.ts";
import { ERROR_CODES, LazyError } from "../errors.ts";
import { readConfigText, readServiceConfig } from "./config/config-file.ts";
import type { ServiceConfig } from "./config/service-config.ts";
import { clearDevice, devicePlaces, SERVE_DEVICE_COMMAND, writeProcess } from "./device-places.ts";
import type { DeviceSpec } from "./exposure-schema.ts";
import type { Log } from "./log/log.ts";
import { beforeOpening } from "./opening-result.ts";
import { identityOf, type ProcessIdentity } from "./process-identity.ts";

const replySchema = z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("ready") }),
  z.strictObject({ kind: z.literal("failed"), code: z.enum(ERROR_CODES), message: z.string() }),
]);

/** The one thing that a device process says to whoever started it, if both live long enough. */
export type DeviceReply = z.infer<typeof replySchema>;

/** The one thing that a device process is told by whoever starts it: all that it serves, read and checked. */
export interface DeviceOrder {
  readonly directory: string;
  readonly spec: DeviceSpec;
  readonly service: ServiceConfig;
  readonly image: ImageConfig;
  /** What the writer of the image's should know; the daemon has told the service's. */
  readonly notices: readonly string[];
}

/** Node's, for device processes: a second thread that compiles and collects garbage would have nothing to do, and a heap of its own. */
const NODE_OPTIONS = ["--v8-pool-size=1"] as const;

export type Launcher = readonly [command: string, ...args: string[]];

export interface ProcessesOptions {
  /** The directory of the devices' directories. */
  readonly parent: string;
  readonly launcher: Launcher;
  readonly log: Log;
}

/** Where a process that waits for a device says what goes wrong; the device's log becomes of it. */
const SPARE_LOG = ".spare.log";
/** What such a process may use, and removes. */
const SPARE_DIRECTORY = ".spare";

/**
 * Starts the processes that serve devices. One more than there are devices waits, with all loaded that most devices need, so that a new
 * device need not wait for that.
 */
export class DeviceProcesses {
  readonly #parent: string;
  readonly #launcher: Launcher;
  readonly #log: Log;
  #spare: ChildProcess | undefined;
  #starting = 0;
  #isClosed = false;

  constructor({ parent, launcher, log }: ProcessesOptions) {
    this.#parent = parent;
    this.#launcher = launcher;
    this.#log = log;
  }

  /**
   * Has a process serve a device, and answers which one when the device can be used. The process is on its own then.
   * Throws what is wrong with the configurations, what the process says went wrong, or `UNAVAILABLE` with the end of its log when it says
   * nothing; it has ended, or will.
   */
  async start(spec: DeviceSpec, directory: string): Promise<ProcessIdentity> {
    const { log } = devicePlaces(directory);
    this.#starting++;
    try {
      const order = await readOrder(spec, directory, this.#log);
      const spare = this.#takeSpare(log);
      const served = spare && (await serving(spare, order, log).catch(whatItSaid));
      if (served !== undefined) return served;
      // It may have been killed while it waited, and nobody had been told.
      if (spare !== undefined) await clearDevice(directory, spec.expose, "lazy");
      return await serving(this.#spawn(log), order, log);
    } finally {
      this.#starting--;
      if (this.#starting === 0) this.prepare();
    }
  }

  /** Has a process wait for the next device, if none does, and if that can be: a full disk, for example, is no reason to fail. */
  prepare(): void {
    if (this.#isClosed || this.#spare !== undefined) return;
    const log = join(this.#parent, SPARE_LOG);
    let spare: ChildProcess;
    try {
      this.#clearSpare();
      spare = this.#spawn(log, join(this.#parent, SPARE_DIRECTORY));
    } catch {
      return;
    }
    this.#spare = spare;
    const forget = (): void => {
      if (this.#spare === spare) this.#spare = undefined;
    };
    spare.once("error", forget);
    spare.once("exit", forget);
    // It waits for us, not we for it.
    spare.unref();
    spare.channel?.unref();
  }

  /** The process that waits has ended when it resolves; devices go on. */
  async close(): Promise<void> {
    this.#isClosed = true;
    const spare = this.#spare;
    this.#spare = undefined;
    if (spare?.connected === true) {
      const ended = once(spare, "exit");
      // This time we wait for it.
      spare.ref();
      // It serves nothing yet. Told to end it would go on for a moment, and might make its directory anew.
      spare.kill("SIGKILL");
      await ended;
    }
    this.#clearSpare();
  }

  #clearSpare(): void {
    rmSync(join(this.#parent, SPARE_LOG), { force: true });
    rmSync(join(this.#parent, SPARE_DIRECTORY), { recursive: true, force: true });
  }

  /** Its log goes to `log`, unless there is one of an earlier process: then it is not taken. */
  #takeSpare(log: string): ChildProcess | undefined {
    const spare = this.#spare;
    if (spare?.connected !== true || existsSync(log)) return undefined;
    try {
      renameSync(join(this.#parent, SPARE_LOG), log);
    } catch {
      return undefined;
    }
    this.#spare = undefined;
    return spare;
  }

  #spawn(log: string, ...spareDirectory: string[]): ChildProcess {
    const [command, ...args] = this.#launcher;
    const descriptor = openSync(log, "a", 0o600);
    try {
      const stdio: ("ignore" | "ipc" | number)[] = ["ignore", descriptor, descriptor, "ipc"];
      return spawn(command, [...NODE_OPTIONS, ...args, SERVE_DEVICE_COMMAND, ...spareDirectory], { cwd: "/", detached: true, stdio });
    } finally {
      closeSync(descriptor);
    }
  }
}

/** Gives the process its order, and waits until it serves. */
async function serving(child: ChildProcess, order: DeviceOrder, log: string): Promise<ProcessIdentity> {
  const answer = replyOf(child);
  const identity = child.pid === undefined ? undefined : identityOf(child.pid);
  // First, so that whoever looks for the device's process finds it, whatever becomes of this one.
  if (identity !== undefined) writeProcess(order.directory, identity);
  child.send(order, () => {}); // one that cannot be told ends, and that is heard of
  const reply = await answer.catch((cause: unknown) => {
    throw crashed(log, cause);
  });
  if (reply.kind === "failed") throw new LazyError(reply.code, reply.message);
  if (child.connected) child.disconnect();
  child.unref();
  if (identity === undefined) throw new LazyError("UNAVAILABLE", `${order.directory}: its process has ended`);
  return identity;
}

/** Read here and not by the process: what it takes to check them would stay in its memory as long as the device lives. */
async function readOrder(spec: DeviceSpec, directory: string, log: Log): Promise<DeviceOrder> {
  const image = parseImageConfig(await readConfigText(spec.configPath), spec.configPath);
  const service = await beforeOpening(image.config, log, async () => await readServiceConfig(spec.serviceConfigPath));
  return { directory, spec, service: service.config, image: image.config, notices: image.notices };
}

async function replyOf(child: ChildProcess): Promise<DeviceReply> {
  const reply = Promise.withResolvers<DeviceReply>();
  child.once("error", reply.reject);
  child.once("exit", (code, by) => reply.reject(new Error(`the device process ended ${by ? `by ${by}` : `with status ${code}`}`)));
  child.once("message", (message) => {
    const parsed = replySchema.safeParse(message);
    if (parsed.success) reply.resolve(parsed.data);
    else reply.reject(parsed.error);
  });
  return await reply.promise;
}

/** The process has ended without a word. */
class ProcessEndedError extends LazyError {}

/** What a process said is final; one that said nothing answers undefined. */
function whatItSaid(error: unknown): undefined {
  if (!(error instanceof ProcessEndedError)) throw error;
}

function crashed(log: string, cause: unknown): ProcessEndedError {
  const said = readFileSync(log, "utf8").trim().slice(-2000);
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new ProcessEndedError("UNAVAILABLE", `${reason}${said === "" ? "" : `; it said:\n${said}`}`, { cause });
}
