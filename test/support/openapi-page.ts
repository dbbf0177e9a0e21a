import { writeFile } from "node:fs/promises";
import { z } from "zod";
import { daemonRoutes, type DescribedRoute } from "../../src/daemon/daemon-api.ts";
import { deviceReportSchema } from "../../src/daemon/device-report.ts";
import { deviceStatsSchema } from "../../src/daemon/device-stats.ts";
import { Devices } from "../../src/daemon/devices.ts";
import { TemporaryDirectory } from "./temporary-directory.ts";

export const OPENAPI_PAGE = new URL("../../docs/openapi.json", import.meta.url);

const EVERY_REFUSAL = {
  400: "The request is wrong.",
  403: "A file or a registry refuses access.",
  413: "The body is too large.",
  500: "A defect of the daemon.",
  503: "Something that is needed failed, or does not answer; the same request may succeed later.",
};

const failureSchema = z.strictObject({
  success: z.literal(false),
  code: z.string().describe("USAGE, NOT_FOUND, DENIED, UNSUPPORTED, CORRUPT, UNAVAILABLE or INTERNAL."),
  message: z.string().describe("What went wrong, where, what was expected, and what to do."),
});

/** What is described once, and referred to. */
const COMPONENTS = new Map<z.ZodType, string>([
  [failureSchema, "Failure"],
  [deviceReportSchema, "Device"],
  [deviceStatsSchema, "Stats"],
]);

/** The API of the daemon as an OpenAPI document, made from its routes and their schemas. */
export async function openapiPage(): Promise<string> {
  await using directory = await TemporaryDirectory.create();
  const devices = Devices.open({ parent: directory.path, launcher: ["false"], serviceConfigPath: undefined, log: () => {} });
  const paths: Record<string, Record<string, object>> = {};
  for (const route of daemonRoutes(devices)) {
    (paths[route.path] ??= {})[route.method.toLowerCase()] = operation(route);
  }
  await devices.close();
  const document = {
    openapi: "3.1.0",
    info: {
      title: "lazylayer daemon",
      version: "1",
      description: "Block devices of images, over HTTP on a unix socket (by default /run/lazylayer/daemon.sock). See daemon.md.",
    },
    servers: [{ url: "http://localhost", description: "The host does not matter on a unix socket." }],
    paths,
    components: { schemas: Object.fromEntries([...COMPONENTS].map(([schema, name]) => [name, documentOf(schema, "output")])) },
  };
  return `${JSON.stringify(document, undefined, 2)}\n`;
}

function operation({ operation: operationId, summary, path, method, schema, success, refusals }: DescribedRoute): object {
  const parameters = [
    ...[...path.matchAll(/\{(\w+)\}/g)].map(([, name]) => ({ name, in: "path", required: true, schema: { type: "string" } })),
    ...(method === "DELETE" ? [{ name: "force", in: "query", required: false, schema: { type: "boolean", default: false } }] : []),
  ];
  const responses: Record<string, object> = { [success.status]: { description: "Done.", content: jsonOf(success.schema) } };
  for (const [status, description] of Object.entries({ ...EVERY_REFUSAL, ...refusals })) {
    responses[status] = { description, content: jsonOf(failureSchema) };
  }
  return {
    operationId,
    summary,
    ...(parameters.length > 0 && { parameters }),
    ...(schema !== undefined && { requestBody: { required: true, content: jsonOf(schema, "input") } }),
    responses,
  };
}

function jsonOf(schema: z.ZodType, io: "input" | "output" = "output"): object {
  const name = COMPONENTS.get(schema);
  return { "application/json": { schema: name === undefined ? documentOf(schema, io) : { $ref: `#/components/schemas/${name}` } } };
}

function documentOf(schema: z.ZodType, io: "input" | "output"): object {
  const { $schema: _, ...document } = z.toJSONSchema(schema, { io, unrepresentable: "any" });
  return document;
}

if (import.meta.main) await writeFile(OPENAPI_PAGE, await openapiPage());
