import type { Command } from "commander";
import { z } from "zod";
import type { ErrorCode } from "../errors.ts";
import type { ImageStore } from "../oci/image-store.ts";
import type { Manifest } from "../oci/manifest.ts";

/** What the commands `mount`, `umount` and `serve-mount` need of the program they are part of. */
export interface MountEnvironment {
  /** Opens the places of an image and reads its manifest for this machine. Whoever calls closes them. */
  readonly openImage: (image: string, storeOptions: StoreOptions) => Promise<OpenedImage>;
  /** An image as it was typed, in words that mean the same from any directory; else it stays as it is. */
  readonly absoluteReference?: (image: string) => string;
  /** Adds the options that `openImage` understands; their values reach it in the serving process as they were parsed. */
  readonly addStoreOptions?: (command: Command) => void;
  /** Turns options as commander parsed them into what is sent, e.g. reads a password where it was promised; else they stay as they are. */
  readonly readStoreOptions?: (options: StoreOptions) => Promise<StoreOptions>;
  readonly stdout: { write(text: string): unknown };
  readonly stderr: { write(text: string): unknown };
  /** Holds a directory for each mount, e.g. /run/lazylayer. */
  readonly stateDirectory: string;
  /** Where fetched blocks are kept unless a command says otherwise. */
  readonly cacheDirectory: string;
  /** The command line that starts this program, to which `serve-mount DIRECTORY` is added. */
  readonly launcher: readonly [command: string, ...args: string[]];
  /** Aborted by SIGINT and SIGTERM. */
  readonly signal: AbortSignal;
}

export interface OpenedImage {
  readonly store: ImageStore;
  /** Where the data of turboOCI layers is, if that is another place. */
  readonly dataPlace: ImageStore | undefined;
  readonly manifest: Manifest;
  readonly close: () => Promise<void>;
}

/** Values of the options that `addStoreOptions` added, by name. They are sent as JSON. */
export type StoreOptions = Readonly<Record<string, unknown>>;

export const SERVE_COMMAND = "serve-mount";

const errorCodes = ["USAGE", "NOT_FOUND", "DENIED", "UNSUPPORTED", "CORRUPT", "UNAVAILABLE"] as const satisfies readonly ErrorCode[];

const mountRequest = z.strictObject({
  image: z.string(),
  /** The user's directory, as a real path. */
  directory: z.string(),
  /** Where what is written to the mount goes, as an absolute path; without it the mount is read-only. */
  overlay: z.string().optional(),
  storeOptions: z.record(z.string(), z.unknown()),
  cacheDirectory: z.string(),
  cacheBytes: z.int().positive(),
  /** A trace or list to fetch ahead instead of the image's own, as an absolute path. */
  trace: z.string().optional(),
  /** Where to write what was read, likewise. */
  recordTrace: z.string().optional(),
  /** Where to write when each of the trace's records was read. */
  recordTimes: z.string().optional(),
});

/** What the serving process is told to mount. It goes over a pipe, because it may hold secrets. */
export type MountRequest = z.infer<typeof mountRequest>;

const mountReply = z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("ready"), warnings: z.array(z.string()) }),
  z.strictObject({ kind: z.literal("failed"), code: z.enum(errorCodes), message: z.string() }),
]);

/** The one thing that the serving process says, if it lives long enough. */
export type MountReply = z.infer<typeof mountReply>;

export function parseMountRequest(value: unknown): MountRequest {
  return mountRequest.parse(value);
}

export function parseMountReply(value: unknown): MountReply {
  return mountReply.parse(value);
}
