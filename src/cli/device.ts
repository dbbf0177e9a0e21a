import { resolve } from "node:path";
import { InvalidArgumentError, Option, type Command } from "commander";
import { z } from "zod";
import { deviceReportSchema, type DeviceReport } from "../daemon/device-report.ts";
import { deviceStatsSchema, type DeviceStats } from "../daemon/device-stats.ts";
import type { Access, Exposure } from "../daemon/exposure-schema.ts";
import { callJson } from "../daemon/json-client.ts";
import { LazyError, messageOf } from "../errors.ts";
import { parseNbdAddress } from "../export/nbd/nbd-address.ts";
import { socketOption } from "./daemon-socket.ts";
import type { Environment } from "./environment.ts";

const OUTPUT_FORMATS = ["text", "json"] as const;
/** The daemon answers when the device can be used, or is gone. */
const CALL_TIMEOUT_MS = 300_000;

const EXAMPLES = `
Examples:
  lazylayer device create --id app --expose loop /var/lib/app/config.v1.json
  lazylayer device create --expose mount=/mnt/app --read-only config.v1.json
  lazylayer device create --expose mount=/mnt/app --overlay /var/lib/app/changes config.v1.json
  lazylayer device create --expose nbd=unix:/run/app.sock config.v1.json
  modprobe nbd && lazylayer device create --expose nbd-disk config.v1.json
  lazylayer device snapshot app /var/lib/app/config.v2.json
  lazylayer device remove app`;

interface ClientOptions {
  readonly socket: string;
  readonly output: (typeof OUTPUT_FORMATS)[number];
}

/** Adds `device create`, `list`, `remove`, `stats` and `snapshot`: clients of the daemon. */
export function addDeviceCommand(program: Command, environment: Environment): void {
  const device = program
    .command("device")
    .summary("create and remove block devices of images")
    .description("Creates, lists and removes the block devices that lazylayer daemon serves.")
    .addHelpText("after", EXAMPLES);
  const add = (name: string, summary: string): Command =>
    device
      .command(name)
      .description(summary)
      .addOption(socketOption(environment, "of the daemon"))
      .addOption(new Option("--output <format>", "what is printed to standard output").choices(OUTPUT_FORMATS).default("text"));
  addCreate(
    add("create", "Creates a device from an image configuration, and prints where it is: a file, a block device, a URI or a directory."),
    environment,
  );
  add("list", "Lists the devices: id, state, and where each is.").action(async (options: ClientOptions) => {
    const answer = await ask(environment, options, "GET", "/devices");
    const { devices } = z.object({ devices: z.array(deviceReportSchema) }).parse(answer);
    print(environment, options, answer, devices.map((report) => `${report.id}\t${report.state}\t${placeText(report)}\n`).join(""));
  });
  add("stats", "Prints what a device has done.")
    .argument("<id>", "the device")
    .action(async (id: string, options: ClientOptions) => {
      const answer = await ask(environment, options, "GET", `${pathOf(id)}/stats`);
      print(environment, options, answer, statsText(deviceStatsSchema.parse(answer)));
    });
  add(
    "snapshot",
    "Makes the upper layer of a device a lower one while it is used, and has the configuration's upper layer written to from now on.",
  )
    .argument("<id>", "the device")
    .argument("<config>", "the image configuration that is to take the place of the device's; the file goes away")
    .action(async (id: string, config: string, options: ClientOptions) => {
      print(environment, options, await ask(environment, options, "POST", `${pathOf(id)}/snapshot`, { config: resolve(config) }), "");
    });
  add("remove", "Removes a device; what was written is safe then.")
    .argument("<id>", "the device")
    .option("--force", "also while it is in use; whoever uses it gets errors from now on")
    .action(async (id: string, options: ClientOptions & { force?: true }) => {
      print(environment, options, await ask(environment, options, "DELETE", `${pathOf(id)}?force=${options.force === true}`), "");
    });
}

interface CreateOptions extends ClientOptions {
  readonly id?: string;
  readonly expose: Exposure;
  readonly readOnly?: true;
  readonly overlay?: string;
}

function addCreate(command: Command, environment: Environment): void {
  command
    .argument("<config>", "an image configuration, version 1")
    .option("--id <id>", "what it is called from now on (default: one is made up)")
    .addOption(
      new Option(
        "--expose <how>",
        "fuse (a file), loop (a block device), nbd[=ADDRESS], nbd-disk (a block device, by nbd-client) or mount=DIRECTORY",
      )
        .argParser(parseExposure)
        .default({ kind: "fuse" }, "fuse"),
    )
    .option("--read-only", "also if the image has an upper layer")
    .addOption(
      new Option("--overlay <directory>", "with mount: what is written goes there, and stays when the device is removed").conflicts(
        "readOnly",
      ),
    )
    .action(async (config: string, options: CreateOptions) => {
      const { id, readOnly } = options;
      const expose = { ...withOverlay(options), ...(readOnly && { readOnly }) };
      const body = { ...(id !== undefined && { id }), config: resolve(config), expose };
      const answer = await ask(environment, options, "POST", "/devices", body);
      print(environment, options, answer, `${placeText(deviceReportSchema.parse(answer))}\n`);
    });
}

function parseExposure(text: string): Exposure {
  const at = text.indexOf("=");
  const [kind, value] = at < 0 ? [text, ""] : [text.slice(0, at), text.slice(at + 1)];
  if ((kind === "fuse" || kind === "loop" || kind === "nbd-disk") && at < 0) return { kind };
  if (kind === "nbd") return at < 0 ? { kind } : { kind, address: checkedAddress(value) };
  if (kind === "mount" && value !== "") return { kind, directory: resolve(value) };
  throw new InvalidArgumentError("expected fuse, loop, nbd, nbd=unix:/PATH, nbd=HOST:PORT, nbd-disk or mount=DIRECTORY");
}

function withOverlay({ expose, overlay }: CreateOptions): Exposure {
  if (overlay === undefined) return expose;
  if (expose.kind !== "mount")
    throw new LazyError("USAGE", `--overlay is of use only with --expose mount=DIRECTORY, not with ${expose.kind}`);
  return { ...expose, overlay: resolve(overlay) };
}

function checkedAddress(text: string): string {
  try {
    parseNbdAddress(text);
    return text;
  } catch (error) {
    throw new InvalidArgumentError(messageOf(error));
  }
}

async function ask(
  { signal }: Environment,
  { socket }: ClientOptions,
  method: "GET" | "POST" | "DELETE",
  path: string,
  body?: object,
): Promise<unknown> {
  return await callJson({ socketPath: resolve(socket), method, path, body, timeoutMs: CALL_TIMEOUT_MS, signal });
}

function print({ stdout }: Environment, { output }: ClientOptions, answer: unknown, text: string): void {
  stdout.write(output === "json" ? `${JSON.stringify(answer)}\n` : text);
}

function pathOf(id: string): string {
  return `/devices/${encodeURIComponent(id)}`;
}

function placeText({ access, error }: DeviceReport): string {
  return access === undefined ? (error ?? "-").split("\n", 1)[0] : accessText(access);
}

function accessText(access: Access): string {
  switch (access.kind) {
    case "fuse":
      return access.path;
    case "loop":
    case "nbd-disk":
      return access.device;
    case "nbd":
      return access.uri;
    case "mount":
      return access.directory;
  }
}

function traceText(trace: DeviceStats["trace"]): string {
  if (trace === undefined) return "none";
  const { mode, path, active, bytes } = trace;
  const what =
    mode === "record" ? `${trace.records} reads of ${bytes} bytes recorded` : `${bytes} bytes fetched ahead, ${trace.failed} failed`;
  return `${path}, ${what}${active ? ", going on" : ""}`;
}

function statsText({ reads, writes, fetches, downloads, layerDownloads, evictions, errors, trace, ...stats }: DeviceStats): string {
  const failed = Object.entries(errors).map(([code, count]) => `${count} ${code}`);
  const rows: [string, string][] = [
    ["device", `${stats.id}, ${stats.sizeBytes} bytes, ${stats.layers} layers, ${stats.readOnly ? "read-only" : "writable"}`],
    ["process", `${stats.pid}, up ${stats.upSeconds} s, ${Math.round(stats.rssBytes / 1e6)} MB of memory`],
    ["reads", `${reads.cached + reads.waited}, ${reads.cachedBytes + reads.waitedBytes} bytes, ${reads.waited} waited`],
    ["writes", `${writes.requests}, ${writes.bytes} bytes, ${writes.discards} discards, ${writes.flushes} flushes`],
    ["fetches", `${fetches.requests}, ${fetches.bytes} bytes`],
    ["downloads", `${downloads.requests}, ${downloads.bytes} bytes`],
    [
      "layers",
      `${layerDownloads.done} of ${layerDownloads.total} downloaded, ${layerDownloads.bytes} bytes, ${layerDownloads.failed} failed`,
    ],
    ["evictions", `${evictions.files}, ${evictions.bytes} bytes`],
    ["trace", traceText(trace)],
    ["errors", failed.length === 0 ? "none" : failed.join(", ")],
  ];
  return rows.map(([name, value]) => `${name.padEnd(10)}${value}\n`).join("");
}
