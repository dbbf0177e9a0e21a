import { z } from "zod";
import type { DeviceStats } from "./device-stats.ts";
import type { JsonReply, Route } from "./json-server.ts";

/** What a device process does when it is told to. */
export interface ControlledDevice {
  stats(): DeviceStats;
  stop(mode: "plain" | "lazy"): Promise<void>;
  snapshot(configPath: string): Promise<void>;
}

const snapshotSchema = z.strictObject({ config: z.string() });
const stopSchema = z.strictObject({ force: z.boolean() });

/** The API of a device process, for the daemon alone. */
export function controlRoutes(device: ControlledDevice): Route[] {
  const done: JsonReply = { status: 200, body: { success: true } };
  return [
    { method: "GET", path: "/stats", handle: () => ({ status: 200, body: device.stats() }) },
    {
      method: "POST",
      path: "/stop",
      schema: stopSchema,
      handle: async ({ body }) => {
        await device.stop(stopSchema.parse(body).force ? "lazy" : "plain");
        return done;
      },
    },
    {
      method: "POST",
      path: "/snapshot",
      schema: snapshotSchema,
      handle: async ({ body }) => {
        await device.snapshot(snapshotSchema.parse(body).config);
        return done;
      },
    },
  ];
}
