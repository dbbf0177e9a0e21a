import { z } from "zod";
import { parseNbdAddress } from "../export/nbd/nbd-address.ts";
import { messageOf } from "../errors.ts";

const readOnly = z.boolean({ error: "expected true or false" }).optional();

const absolutePath = z.string({ error: "expected a path" }).regex(/^\/[^\0]*$/, { error: "expected an absolute path" });

const nbdAddress = z.string({ error: "expected unix:/PATH or HOST:PORT" }).superRefine((text, context) => {
  try {
    parseNbdAddress(text);
  } catch (error) {
    context.addIssue({ code: "custom", message: messageOf(error) });
  }
});

/** How a device is shown; `readOnly` also keeps writes from one that has an upper layer. */
export const exposureSchema = z.discriminatedUnion(
  "kind",
  [
    z.strictObject({ kind: z.literal("fuse"), readOnly }),
    z.strictObject({ kind: z.literal("loop"), readOnly }),
    z.strictObject({ kind: z.literal("nbd"), readOnly, address: nbdAddress.optional() }),
    z.strictObject({ kind: z.literal("nbd-disk"), readOnly }),
    z
      .strictObject({
        kind: z.literal("mount"),
        readOnly,
        directory: absolutePath,
        overlay: absolutePath.optional().describe("A directory that takes what is written over a read-only image, and keeps it."),
      })
      .refine(({ overlay, readOnly: kept }) => overlay === undefined || kept !== true, {
        path: ["overlay"],
        error: "takes what is written, and readOnly keeps writes away; give one of them",
      }),
  ],
  { error: "expected an object whose kind is fuse, loop, nbd, nbd-disk or mount" },
);

export type Exposure = z.infer<typeof exposureSchema>;

/** Where a device that is running can be found. What programs of this project tell each other may have keys of a later version. */
export const accessSchema = z.discriminatedUnion("kind", [
  z.object({ kind: z.literal("fuse"), path: z.string() }),
  z.object({ kind: z.literal("loop"), path: z.string(), device: z.string() }),
  z.object({ kind: z.literal("nbd"), uri: z.string() }),
  z.object({ kind: z.literal("nbd-disk"), uri: z.string(), device: z.string() }),
  z.object({ kind: z.literal("mount"), directory: z.string(), filesystem: z.string(), path: z.string() }),
]);

export type Access = z.infer<typeof accessSchema>;

const MAX_ID_LENGTH = 64;

export const deviceIdSchema = z
  .string({ error: "expected a text" })
  .regex(new RegExp(`^[A-Za-z0-9][A-Za-z0-9._-]{0,${MAX_ID_LENGTH - 1}}$`), {
    error: `expected 1 to ${MAX_ID_LENGTH} letters, digits, dots, underscores and hyphens, the first a letter or a digit`,
  });

/** What a device process is started with, as it lies in the device's directory. */
export const deviceSpecSchema = z.object({
  id: deviceIdSchema,
  /** The image's configuration; a live snapshot replaces the file. */
  configPath: absolutePath,
  /** The service's configuration; without it the defaults count. */
  serviceConfigPath: absolutePath.optional(),
  expose: exposureSchema,
});

export type DeviceSpec = z.infer<typeof deviceSpecSchema>;

/** What a device process has made known of itself. */
export const deviceStateSchema = z.object({
  pid: z.int().positive(),
  access: accessSchema,
  sizeBytes: z.int().nonnegative(),
  readOnly: z.boolean(),
  layers: z.int().nonnegative(),
});

export type DeviceState = z.infer<typeof deviceStateSchema>;
