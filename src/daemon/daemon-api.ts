import { z } from "zod";
import { deviceReportSchema } from "./device-report.ts";
import { deviceStatsSchema } from "./device-stats.ts";
import type { Devices } from "./devices.ts";
import { deviceIdSchema, exposureSchema } from "./exposure-schema.ts";
import { HttpError, type JsonRequest, type Route } from "./json-server.ts";
import { DuplicateDeviceError } from "./opening-result.ts";
import { LazyError } from "../errors.ts";

const doneSchema = z.strictObject({ success: z.literal(true) });
const listSchema = z.strictObject({ devices: z.array(deviceReportSchema) });

const NO_DEVICE = { 404: "There is no such device." };

const absolutePath = z.string({ error: "expected a path" }).regex(/^\/[^\0]*$/, { error: "expected an absolute path" });

/** What a device is created from. */
const createSchema = z.strictObject({
  id: deviceIdSchema.optional(),
  config: z.union([absolutePath, z.record(z.string(), z.unknown())], {
    error: "expected the absolute path of an image configuration, or the configuration as an object",
  }),
  expose: exposureSchema.optional(),
});

const snapshotSchema = z.strictObject({ config: absolutePath });

/** A route with what its description needs; docs/openapi.json is held against it. */
export interface DescribedRoute extends Route {
  readonly operation: string;
  readonly summary: string;
  readonly success: { readonly status: number; readonly schema: z.ZodType };
  /** Statuses of refusals, besides those that every route may give. */
  readonly refusals: Readonly<Record<number, string>>;
}

/** The API on the daemon's socket. */
export function daemonRoutes(devices: Devices): DescribedRoute[] {
  return [
    {
      operation: "createDevice",
      summary: "Creates a device, and answers when it can be used.",
      success: { status: 201, schema: deviceReportSchema },
      refusals: { 404: "A file that is named is not there.", 409: "The id is taken.", 422: "The image cannot be read." },
      method: "POST",
      path: "/devices",
      schema: createSchema,
      handle: async ({ body }) => {
        const device = await unlessTaken(devices.create(createSchema.parse(body)));
        return { status: 201, body: device.report() };
      },
    },
    {
      operation: "listDevices",
      summary: "Lists all devices.",
      success: { status: 200, schema: listSchema },
      refusals: {},
      method: "GET",
      path: "/devices",
      handle: () => ({ status: 200, body: { devices: devices.list().map((device) => device.report()) } }),
    },
    {
      operation: "getDevice",
      summary: "Tells of a device.",
      success: { status: 200, schema: deviceReportSchema },
      refusals: NO_DEVICE,
      method: "GET",
      path: "/devices/{id}",
      handle: (request) => ({ status: 200, body: devices.get(idOf(request)).report() }),
    },
    {
      operation: "getDeviceStats",
      summary: "Tells what a device has done since its process began.",
      success: { status: 200, schema: deviceStatsSchema },
      refusals: NO_DEVICE,
      method: "GET",
      path: "/devices/{id}/stats",
      handle: async (request) => ({ status: 200, body: await devices.get(idOf(request)).stats() }),
    },
    {
      operation: "removeDevice",
      summary: "Removes a device. What was written is safe afterwards.",
      success: { status: 200, schema: doneSchema },
      refusals: { ...NO_DEVICE, 409: "The device is in use; `force=true` removes it nevertheless, and whoever uses it gets errors." },
      method: "DELETE",
      path: "/devices/{id}",
      handle: async (request) => {
        await unlessInUse(devices.remove(idOf(request), isForced(request)));
        return { status: 200, body: { success: true } };
      },
    },
    {
      operation: "snapshotDevice",
      summary:
        "Makes the upper layer of a device a lower one while it is used; the upper layer of the configuration takes what is written from then on, and the configuration takes the place of the device's.",
      success: { status: 200, schema: doneSchema },
      refusals: NO_DEVICE,
      method: "POST",
      path: "/devices/{id}/snapshot",
      schema: snapshotSchema,
      handle: async (request) => {
        await devices.get(idOf(request)).snapshot(snapshotSchema.parse(request.body).config);
        return { status: 200, body: { success: true } };
      },
    },
  ];
}

function idOf({ parameters }: JsonRequest): string {
  return parameters["id"];
}

function isForced({ query }: JsonRequest): boolean {
  const force = query.get("force") ?? "false";
  if (force !== "true" && force !== "false") throw new HttpError(400, "USAGE", `force is ${JSON.stringify(force)}, expected true or false`);
  return force === "true";
}

async function unlessTaken<T>(creation: Promise<T>): Promise<T> {
  return await creation.catch((error: unknown) => {
    throw error instanceof DuplicateDeviceError ? new HttpError(409, error.code, error.message) : error;
  });
}

async function unlessInUse(removal: Promise<void>): Promise<void> {
  await removal.catch((error: unknown) => {
    throw error instanceof LazyError && / is in use: /.test(error.message) ? new HttpError(409, error.code, error.message) : error;
  });
}
