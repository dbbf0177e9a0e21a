import { once } from "node:events";
import { InvalidArgumentError, Option, type Command } from "commander";
import { BlockCache } from "../cache/block-cache.ts";
import type { Device } from "../device/device.ts";
import { openDevice } from "../device/open-device.ts";
import { messageOf } from "../errors.ts";
import { nbdUri, parseNbdAddress, type NbdAddress } from "../export/nbd/nbd-address.ts";
import { NbdServer } from "../export/nbd/nbd-server.ts";
import type { NbdExport } from "../export/nbd/nbd-export.ts";
import { DEFAULT_CACHE_GB, parseGigabytes } from "./mount.ts";
import type { MountEnvironment } from "./mount-request.ts";
import { openOnTop, readOnlyExport, type UpperFiles } from "./served-device.ts";

const CHUNK_BYTES = 64 * 1024;
const OUTPUT_FORMATS = ["text", "json"] as const;

const EXAMPLES = `
Examples:
  lazylayer serve registry.example/app:1-obd --nbd unix:/run/app.sock
  qemu-system-x86_64 -drive 'file=nbd+unix:///?socket=/run/app.sock,format=raw,if=virtio,readonly=on' …
  lazylayer serve registry.example/app:1-obd --nbd unix:/run/app.sock --upper changes.data:changes.index
  lazylayer serve --output json oci:layout:app --nbd 127.0.0.1:10809
  nbd-client -readonly -unix /run/app.sock /dev/nbd0 && mount -o ro /dev/nbd0 /mnt/app

NBD has no passwords and no encryption: a unix socket is for its owner alone, a port for everybody who reaches it.
lazylayer doctor says which ways of showing an image this machine offers.`;

interface ServeOptions {
  readonly nbd: NbdAddress;
  readonly upper?: UpperFiles | undefined;
  readonly name?: string | undefined;
  readonly cacheDir: string;
  readonly cacheSize: number;
  readonly output: (typeof OUTPUT_FORMATS)[number];
}

export function addServeCommand(program: Command, environment: MountEnvironment): void {
  const command = program
    .command("serve")
    .summary("serve a converted image's block device over NBD")
    .description(
      "Serves the block device of an overlaybd image over NBD, for QEMU, nbd-client, qemu-img and libnbd's tools, until SIGINT or SIGTERM;\n" +
        "the status is 0 then. Blocks are fetched when they are read, and kept in the cache. Needs no root. Prints the address when clients\n" +
        "may come. What is written goes into a writable layer; without one the device is read-only.",
    )
    .argument("<image>", "image reference, or oci:DIRECTORY[:TAG]")
    .addOption(
      new Option("--nbd <address>", "unix:/PATH, HOST:PORT, or HOST:0 for a free port").argParser(parseAddress).makeOptionMandatory(),
    )
    .addOption(
      new Option(
        "--upper <data:index>",
        "the files of an append-only writable layer that takes what is written; made if both are missing",
      ).argParser(parseUpper),
    )
    .option("--name <name>", "what clients call the device; without a name they get it, too")
    .option("--cache-dir <directory>", "where fetched blocks are kept", environment.cacheDirectory)
    .addOption(
      new Option("--cache-size <GB>", "disk space for fetched blocks")
        .argParser(parseGigabytes)
        .default(DEFAULT_CACHE_GB * 1e9, String(DEFAULT_CACHE_GB)),
    )
    .addOption(new Option("--output <format>", "what is printed to standard output").choices(OUTPUT_FORMATS).default("text"));
  environment.addStoreOptions?.(command);
  command.addHelpText("after", EXAMPLES);
  command.action(async (image: string, options: ServeOptions & Readonly<Record<string, unknown>>) => {
    await using cleanup = new AsyncDisposableStack();
    const served = await openExport(image, options, environment, cleanup);
    const server = await serveExport(served, options, environment);
    cleanup.defer(async () => await server.close());
    environment.stdout.write(`${readyText(server, served, options)}\n`);
    if (!environment.signal.aborted) await once(environment.signal, "abort");
  });
}

function parseAddress(text: string): NbdAddress {
  try {
    return parseNbdAddress(text);
  } catch (error) {
    throw new InvalidArgumentError(messageOf(error));
  }
}

function parseUpper(text: string): UpperFiles {
  const [data, index, ...rest] = text.split(":");
  if (!data || !index || rest.length > 0)
    throw new InvalidArgumentError("expected DATA:INDEX, two files with exactly one colon between them");
  return { data, index };
}

async function openExport(
  image: string,
  options: ServeOptions & Readonly<Record<string, unknown>>,
  environment: MountEnvironment,
  cleanup: AsyncDisposableStack,
): Promise<NbdExport> {
  const { name = "", upper } = options;
  const opened = await openImageDevice(image, options, environment, cleanup);
  let close = async (): Promise<void> => await opened.close();
  cleanup.defer(async () => await close());
  if (upper === undefined) return readOnlyExport(opened, name);
  const { content, extentsOf } = await openOnTop(opened, upper, (message) => environment.stderr.write(`${message}\n`));
  close = async () => await content.close();
  return { name, content, extentsOf };
}

async function openImageDevice(
  image: string,
  options: ServeOptions & Readonly<Record<string, unknown>>,
  environment: MountEnvironment,
  cleanup: AsyncDisposableStack,
): Promise<Device> {
  const cache = await BlockCache.open(options.cacheDir, {
    capacityBytes: options.cacheSize,
    chunkBytes: CHUNK_BYTES,
    onDiskFailure: (error) => environment.stderr.write(`cache: ${messageOf(error)}; what is read from now on may not be kept\n`),
  });
  const storeOptions = (await environment.readStoreOptions?.(options)) ?? options;
  const { store, dataPlace, manifest, close } = await environment.openImage(image, storeOptions);
  cleanup.defer(close);
  return await openDevice(store, manifest, { cache, dataPlace });
}

async function serveExport(served: NbdExport, { nbd }: ServeOptions, { stderr }: MountEnvironment): Promise<NbdServer> {
  const say = unlessRepeated((line) => stderr.write(`${line}\n`));
  return await NbdServer.listen({
    served,
    address: nbd,
    onFailure: (error, request) => {
      const range = request.kind === "flush" ? "" : ` of [${request.offset}, ${request.offset + request.length})`;
      say(`${request.kind}${range} failed`, messageOf(error));
    },
    onMisbehaviour: (error) => say("a client was disconnected", messageOf(error)),
  });
}

/** The same failure again and again is said once. */
function unlessRepeated(write: (line: string) => void): (what: string, why: string) => void {
  let last = "";
  return (what, why) => {
    if (why !== last) write(`${what}: ${why}`);
    last = why;
  };
}

function readyText({ address }: NbdServer, { name, content }: NbdExport, { output, upper }: ServeOptions): string {
  const uri = nbdUri(address, name);
  return output === "text" ? uri : JSON.stringify({ uri, address, name, sizeBytes: content.size, readOnly: upper === undefined });
}
