import { z } from "zod";
import { accessSchema, exposureSchema } from "./exposure-schema.ts";

/** What is told of a device. */
export const deviceReportSchema = z.object({
  id: z.string(),
  state: z
    .enum(["starting", "running", "restarting"])
    .describe("starting: not usable yet. restarting: its process ended without having been told to, and another one is to come."),
  pid: z.int().optional().describe("The process that serves it."),
  config: z.string().describe("The image's configuration; a snapshot replaces the file."),
  expose: exposureSchema,
  access: accessSchema.optional().describe("Where the device is, while it is running."),
  sizeBytes: z.int().nonnegative().optional(),
  readOnly: z.boolean().optional(),
  layers: z.int().nonnegative().optional(),
  restarts: z.int().nonnegative().describe("How often its process was started again since the daemon knows it."),
  error: z.string().optional().describe("Why it is not running."),
});

export type DeviceReport = z.infer<typeof deviceReportSchema>;
