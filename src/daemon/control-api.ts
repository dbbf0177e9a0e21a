import { LazyError } from "../errors.ts";
import type { DeviceStats } from "./device-stats.ts";
import type { JsonReply, Route } from "./json-server.ts";

/** What a device process does when it is told to. */
export interface ControlledDevice {
  stats(): DeviceStats;
  stop(mode: "plain" | "lazy"): Promise<void>;
  snapshot(configPath: string): Promise<void>;
}

/** The API of a device process, for the daemon alone. Parameters are in the query: schemas would take more memory than all the rest. */
export function controlRoutes(device: ControlledDevice): Route[] {
  const done: JsonReply = { status: 200, body: { success: true } };
  return [
    { method: "GET", path: "/stats", handle: () => ({ status: 200, body: device.stats() }) },
    {
      method: "POST",
      path: "/stop",
      handle: async ({ query }) => {
        await device.stop(query.get("force") === "true" ? "lazy" : "plain");
        return done;
      },
    },
    {
      method: "POST",
      path: "/snapshot",
      handle: async ({ query }) => {
        const config = query.get("config");
        if (config === null) throw new LazyError("USAGE", "snapshot: expected the query to name the new config");
        await device.snapshot(config);
        return done;
      },
    },
  ];
}
