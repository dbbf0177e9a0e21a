import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { createServer } from "node:http";
import { gunzipSync } from "node:zlib";
import { openLayoutStore } from "../../src/image-layout/layout-store.ts";
import { parseDigest } from "../../src/oci/digest.ts";
import type { ImageStore } from "../../src/oci/image-store.ts";
import { parseIndex } from "../../src/oci/index.ts";
import { parseManifest } from "../../src/oci/manifest.ts";
import { documentKind } from "../../src/oci/media-types.ts";
import { FixedCredentials } from "../../src/registry/credentials.ts";
import { openRegistryStore } from "../../src/registry/registry-store.ts";
import { REGISTRY_USER, startDockerRegistry, type DockerRegistry } from "../support/docker-registry.ts";
import { startHostileRegistry, type Fault, type HostileRegistry, type SeenRequest } from "../support/hostile-registry.ts";
import { run } from "../support/command.ts";
import { copyImage } from "../support/image-builder.ts";
import { copyImages, type ImagesLayout } from "../support/images.ts";
import { Mariadb } from "../support/mariadb.ts";
import { CLEAN_ENVIRONMENT, CONVERTOR, lazylayer } from "../support/programs.ts";
import { startReferrersRegistry, createRegistry, type ReferrersRegistry } from "../support/referrers-registry.ts";
import { unusedPort } from "../support/server-process.ts";
import { TemporaryDirectory } from "../support/temporary-directory.ts";
import { startTlsRegistry, tlsFile, type TlsRegistry } from "../support/tls-registry.ts";
import { shapeOfRequest, type Documents } from "./convertor-replay-shape.ts";
import { addSources, sourceOf } from "./convertor-replay-sources.ts";

const BASE_LAYER = new URL("../../testdata/lsmt/ext4_64.tar.gz", import.meta.url);
/** The base layer as both tools store it in an image. */
export const WRAPPED_BASE = "sha256:a8b5fca80efae55088290f3da8110d7742de55c2a378d5ab53226a483f390e21";
const EXACT_ARGUMENTS: Readonly<Record<string, string>> = {
  "{user}": `${REGISTRY_USER.username}:${REGISTRY_USER.password}`,
  "{user:wrong-password}": `${REGISTRY_USER.username}:nope`,
  "{ca}": tlsFile("ca"),
  "{client}:{client-key}": `${tlsFile("client")}:${tlsFile("client-key")}`,
};

/** One run to be played. */
export interface Play {
  /** The name of the repositories' first part, and of the database: plays of one sequence see each other. */
  readonly sequence: string;
  readonly args: readonly string[];
  /** Who stands behind the proxy that sees the requests. */
  readonly behind?: "docker" | "auth" | "zot" | undefined;
  readonly fault?: FaultOf | undefined;
  readonly faultTimes?: number | undefined;
  /** Sent when the first layer is asked for, which then is not answered. */
  readonly signal?: "SIGINT" | "SIGTERM" | undefined;
  readonly umask?: string | undefined;
  /** The size of the filesystem that `tmp_conv` is on. */
  readonly disk?: string | undefined;
  readonly environment?: Readonly<Record<string, string>> | undefined;
  /** Where to run, instead of in a new directory. */
  readonly directory?: string | undefined;
}

export type FaultOf = (request: SeenRequest, proxy: HostileRegistry) => Fault | undefined;

/** What came of it. */
export interface Played {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
  /** The directory it ran in, and the files that are in there, sorted. */
  readonly directory: string;
  readonly files: readonly string[];
  /** Of the repository, before and after; undefined where there is none. */
  readonly tagsBefore: readonly string[] | undefined;
  readonly tags: readonly string[] | undefined;
  /** As `shapeOfRequest` gives them, without the sequence in front of the repository. Empty where no proxy was. */
  readonly requests: readonly string[];
  readonly store: ImageStore | undefined;
  readonly host: string;
}

interface Place {
  readonly host: string;
  /** The same registry, reachable over plain HTTP and without a proxy. */
  readonly plainHost: string;
  readonly user?: typeof REGISTRY_USER;
}

/** Servers, source images and directories in which recorded runs are played. */
export class Stage implements AsyncDisposable {
  /** Digests of everything in the source images. */
  readonly known = new Set<string>([WRAPPED_BASE]);
  readonly #things = new AsyncDisposableStack();
  readonly #proxies = new Map<string, Promise<HostileRegistry>>();
  readonly #pushed = new Set<string>();
  readonly #databases = new Set<string>();
  readonly #withDatabase: boolean;
  readonly #refused = new Map<string, Promise<Played>>();
  #runs = 0;
  #scratch!: TemporaryDirectory;
  #images!: ImagesLayout;
  #docker!: DockerRegistry;
  #auth!: DockerRegistry;
  #referrers!: ReferrersRegistry;
  #tls!: { readonly registry: TlsRegistry; readonly plainHost: string };
  #mutual!: { readonly registry: TlsRegistry; readonly plainHost: string };
  #mariadb: Mariadb | undefined;

  private constructor(withDatabase: boolean) {
    this.#withDatabase = withDatabase;
  }

  static async open({ withDatabase = false } = {}): Promise<Stage> {
    const stage = new Stage(withDatabase);
    try {
      await stage.#start();
      return stage;
    } catch (error) {
      await stage[Symbol.asyncDispose]();
      throw error;
    }
  }

  async #start(): Promise<void> {
    this.#scratch = this.#things.use(await TemporaryDirectory.create());
    this.#images = this.#things.use(await copyImages());
    await addSources(this.#images.directory);
    for (const hex of readdirSync(`${this.#images.directory}/blobs/sha256`)) this.known.add(`sha256:${hex}`);
    writeFileSync(this.#scratch.join("ext4_64"), onlyMember(gunzipSync(readFileSync(BASE_LAYER))));
    this.#docker = this.#things.use(await startDockerRegistry());
    this.#auth = this.#things.use(await startDockerRegistry({ basicAuth: true }));
    this.#referrers = this.#things.use(await startReferrersRegistry());
    this.#tls = await this.#startTls(false);
    this.#mutual = await this.#startTls(true);
    if (this.#withDatabase) this.#mariadb = this.#things.use(await Mariadb.start());
  }

  /** A registry over TLS, with a plain back door for the test. */
  async #startTls(wantsClientCertificate: boolean): Promise<{ registry: TlsRegistry; plainHost: string }> {
    const { listener } = createRegistry();
    const registry = this.#things.use(await startTlsRegistry({ listener, wantsClientCertificate }));
    const plain = createServer(listener).listen(0, "127.0.0.1");
    await once(plain, "listening");
    this.#things.defer(() => {
      plain.close();
      plain.closeAllConnections();
    });
    const address = plain.address();
    if (address === null || typeof address === "string") throw new Error("no port");
    return { registry, plainHost: `127.0.0.1:${address.port}` };
  }

  /** Plays calls that differ in their values alone once: for calls that are refused for their flags, whatever the image is. */
  async playRefused(play: Play): Promise<Played> {
    const flags = play.args.filter((arg) => arg.startsWith("-")).join(" ");
    const played = this.#refused.get(flags) ?? this.play(play);
    this.#refused.set(flags, played);
    return await played;
  }

  /** Plays it in a new directory, or in the one of an earlier play. */
  async play(play: Play): Promise<Played> {
    const directory = play.directory ?? this.#scratch.join(String(++this.#runs));
    if (!existsSync(directory)) await mkdir(directory, { recursive: true });
    const proxy = play.args.some((arg) => /\{(proxy|default-port)\}/.test(arg)) ? await this.#proxy(play) : undefined;
    const place = await this.#placeOf(play, proxy);
    const repository = place && (await this.#pushSource(play, place));
    const tagsBefore = place && repository ? await listTags(place, repository) : undefined;
    proxy?.reset();
    const { fault } = play;
    if (proxy && fault) proxy.inject((request) => fault(request, proxy), play.faultTimes ?? Infinity);
    const args = await Promise.all(play.args.map(async (arg) => await this.#argument(arg, play, place, directory)));
    const disk = await mountDisk(`${directory}/tmp_conv`, play.disk);
    const result = await runConvertor(args, { ...play, directory, proxy, baseLayer: this.#scratch.join("ext4_64") });
    await disk.disposeAsync();
    return {
      ...result,
      directory,
      files: readdirSync(directory, { recursive: true, withFileTypes: true })
        .filter((entry) => entry.isFile())
        .map((entry) => `${entry.parentPath}/${entry.name}`.slice(directory.length + 1))
        .toSorted(),
      tagsBefore,
      tags: place && repository ? await listTags(place, repository) : undefined,
      requests: (proxy?.seen ?? []).map(({ method, url, headers }) =>
        shapeOfRequest(
          method,
          decodeURIComponent(url).replace("/v2/", "").replace(`${play.sequence}/`, ""),
          headers["range"] !== undefined,
          this.known,
        ),
      ),
      store: place && repository ? this.#open(place, repository) : undefined,
      host: place?.host ?? "",
    };
  }

  /** What a tag points to, and all below it except attestations' content. */
  async documents(store: ImageStore, tag: string): Promise<{ digest: string; documents: Documents }> {
    const documents = new Map<string, string>();
    const visit = async (at: string, mediaType: string, bytes: Uint8Array): Promise<void> => {
      documents.set(at, Buffer.from(bytes).toString());
      if (documentKind(mediaType) === "index") {
        const entries = parseIndex(bytes, mediaType, at).manifests;
        for (const [number, entry] of entries.entries()) await visit(`${at}-${number}`, entry.mediaType, await store.manifest(entry));
      } else {
        const { config } = parseManifest(bytes, mediaType, at);
        documents.set(`${at}.config`, Buffer.from(await store.blob(config)).toString());
      }
    };
    const { descriptor, bytes } = await store.resolve({ tag });
    await visit("top", descriptor.mediaType, bytes);
    return { digest: descriptor.digest, documents };
  }

  /** Where docker-registry is. */
  get host(): string {
    return this.#docker.host;
  }

  /** Runs statements in a sequence's database and gives lines of what they answer, without headings. */
  async sql(sequence: string, statements: string): Promise<string[][]> {
    await this.#dsn(sequence);
    const printed = await this.#server.sql(statements, databaseOf(sequence));
    return printed
      .split("\n")
      .slice(1)
      .filter((line) => line !== "")
      .map((line) => line.split("\t"));
  }

  /** Whether docker-registry has a blob of that size. */
  async hasBlob(repository: string, digest: string, size: number): Promise<boolean> {
    const store = this.#open({ host: "", plainHost: this.#docker.host }, repository);
    return await store.hasBlob(parseDigest(digest, repository), size);
  }

  async hasManifest(repository: string, digest: string, size: number): Promise<boolean> {
    const store = this.#open({ host: "", plainHost: this.#docker.host }, repository);
    const { descriptor } = await store.resolve({ digest: parseDigest(digest, repository) });
    return descriptor.size === size;
  }

  /** The source as it was pushed. */
  async sourceDigest(tag: string): Promise<string> {
    const store = await openLayoutStore(this.#images.directory);
    return (await store.resolve({ tag })).descriptor.digest;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#things.disposeAsync();
  }

  get #server(): Mariadb {
    if (!this.#mariadb) throw new Error("this stage has no database server");
    return this.#mariadb;
  }

  /** The sequence's database, with its tables; it is made when it is first asked for. */
  async #dsn(sequence: string): Promise<string> {
    const name = databaseOf(sequence);
    if (!this.#databases.has(name)) {
      this.#databases.add(name);
      const address = await this.#server.createDatabase(name);
      const { status, stderr } = await lazylayer(["db", "init", "--db-type", "mysql", "--db-str", address]);
      if (status !== 0) throw new Error(stderr);
    }
    return this.#server.dsn(name);
  }

  async #proxy({ sequence, behind = "docker" }: Play): Promise<HostileRegistry> {
    const upstream = { docker: this.#docker, auth: this.#auth, zot: this.#referrers }[behind].host;
    const key = `${sequence} ${behind}`;
    const started = this.#proxies.get(key) ?? startHostileRegistry(upstream);
    if (!this.#proxies.has(key)) this.#things.defer(async () => await (await started).stop());
    this.#proxies.set(key, started);
    return await started;
  }

  async #placeOf(play: Play, proxy: HostileRegistry | undefined): Promise<Place | undefined> {
    const name = /\{([a-z0-9-]+)\}\//.exec(play.args.join("\n"))?.[1];
    const behind = (host: string, plainHost: string = host, user?: typeof REGISTRY_USER): Place => ({
      host,
      plainHost,
      ...(user && { user }),
    });
    switch (name) {
      case "docker":
        return behind(this.#docker.host);
      case "auth":
        return behind(this.#auth.host, this.#auth.host, REGISTRY_USER);
      case "zot":
      case "distribution3":
        return behind(this.#referrers.host);
      case "tls":
        return behind(this.#tls.registry.host, this.#tls.plainHost);
      case "mtls":
        return behind(this.#mutual.registry.host, this.#mutual.plainHost);
      case "proxy":
      case "default-port": {
        const upstream = { docker: this.#docker, auth: this.#auth, zot: this.#referrers }[play.behind ?? "docker"].host;
        return behind(proxy?.host ?? "", upstream, play.behind === "auth" ? REGISTRY_USER : undefined);
      }
      case "nobody":
        return { host: `127.0.0.1:${await unusedPort()}`, plainHost: "" };
      case undefined:
        return undefined;
      default:
        throw new Error(`unknown place ${name}`);
    }
  }

  /** Pushes the image that the arguments name, unless there is none of that name. Gives the repository; undefined if nobody listens. */
  async #pushSource({ sequence, args }: Play, place: Place): Promise<string | undefined> {
    const [, name = ""] = /^\{[a-z0-9-]+\}\/(.*)$/.exec(args[args.indexOf("-r") + 1] ?? "") ?? [];
    if (place.plainHost === "" || name === "" || name.includes(":")) return undefined;
    const repository = `${sequence}/${name}`;
    const tag = args.includes("-i") ? args[args.indexOf("-i") + 1] : "v1";
    const source = sourceOf(name, tag);
    const key = `${place.plainHost} ${repository} ${tag}`;
    if (source === undefined || this.#pushed.has(key)) return repository;
    this.#pushed.add(key);
    const store = this.#open(place, repository);
    await copyImage(await openLayoutStore(this.#images.directory), { tag: source }, store, tag);
    await store.close();
    return repository;
  }

  #open({ plainHost, user }: Place, repository: string): ImageStore {
    const credentials = user && new FixedCredentials(user.username, user.password);
    return openRegistryStore({ kind: "registry", host: plainHost, repository }, { credentials });
  }

  async #argument(arg: string, play: Play, place: Place | undefined, directory: string): Promise<string> {
    if (EXACT_ARGUMENTS[arg] !== undefined) return EXACT_ARGUMENTS[arg];
    if (arg === "{cert-dir}") return await this.#certificateDirectory();
    if (arg === "{database}") return this.#withDatabase ? await this.#dsn(play.sequence) : "conv:pw@tcp(127.0.0.1:1)/conv";
    if (arg === "{database:wrong-password}") return (await this.#dsn(play.sequence)).replace(/^conv:.*@tcp/, "conv:no@tcp");
    if (arg === "{database:down}") return `conv:pw@tcp(127.0.0.1:${await unusedPort()})/conv`;
    return arg.replace("{directory}", directory).replace(/\{[a-z0-9-]+\}\//, `${place?.host}/${play.sequence}/`);
  }

  async #certificateDirectory(): Promise<string> {
    const directory = this.#scratch.join("certificates");
    if (!existsSync(directory)) {
      await mkdir(directory, { recursive: true });
      for (const [from, to] of [
        ["ca", "ca.crt"],
        ["client", "client.cert"],
        ["client-key", "client.key"],
      ])
        writeFileSync(`${directory}/${to}`, readFileSync(tlsFile(from)));
    }
    return directory;
  }
}

function databaseOf(sequence: string): string {
  return `conv_${sequence.replaceAll(/[^a-z0-9]/g, "_")}`;
}

/** The content of a tar with one member. */
function onlyMember(tar: Buffer): Buffer {
  return tar.subarray(512, 512 + Number.parseInt(tar.toString("latin1", 124, 135), 8));
}

async function listTags({ plainHost, user }: Place, repository: string): Promise<string[]> {
  const authorization = user && `Basic ${Buffer.from(`${user.username}:${user.password}`).toString("base64")}`;
  const answer = await fetch(`http://${plainHost}/v2/${repository}/tags/list`, { headers: authorization ? { authorization } : {} });
  const body: unknown = await answer.json();
  const tags = typeof body === "object" && body !== null && "tags" in body && Array.isArray(body.tags) ? body.tags : [];
  return tags.map(String).toSorted();
}

/** A filesystem of this size, for as long as it is in scope. */
async function mountDisk(path: string, size: string | undefined): Promise<AsyncDisposableStack> {
  const mounted = new AsyncDisposableStack();
  if (size === undefined) return mounted;
  await mkdir(path, { recursive: true });
  await run("mount", ["-t", "tmpfs", "-o", `size=${size}`, "lazylayer-test", path]);
  mounted.defer(async () => void (await run("umount", [path])));
  return mounted;
}

interface Run extends Play {
  readonly directory: string;
  readonly proxy: HostileRegistry | undefined;
  readonly baseLayer: string;
}

async function runConvertor(
  args: readonly string[],
  { directory, proxy, baseLayer, umask, signal, environment }: Run,
): Promise<{ status: number | null; stdout: string; stderr: string }> {
  const usesDatabase = args.some((arg) => arg.startsWith("--db-"));
  const env = {
    ...process.env,
    ...CLEAN_ENVIRONMENT,
    ...(!usesDatabase && { LAZYLAYER_DB_TYPE: "none" }),
    LAZYLAYER_BASE_LAYER: baseLayer,
    ...environment,
  };
  const command =
    umask === undefined ? [CONVERTOR, ...args] : ["sh", "-c", 'umask "$1"; shift; exec "$@"', "sh", umask, CONVERTOR, ...args];
  const child = spawn(command[0], command.slice(1), { cwd: directory, env, stdio: ["ignore", "pipe", "pipe"] });
  const [stdout, stderr]: [string[], string[]] = [[], []];
  child.stdout.on("data", (chunk: Buffer) => stdout.push(chunk.toString()));
  child.stderr.on("data", (chunk: Buffer) => stderr.push(chunk.toString()));
  if (signal) {
    let isSent = false;
    proxy?.inject(({ method, url }) => {
      if (method !== "GET" || !url.includes("/blobs/") || proxy.seen.length < 3) return undefined;
      if (!isSent) child.kill(signal);
      isSent = true;
      return { kind: "stall", afterBytes: 100 };
    }, Infinity);
  }
  const [status] = (await once(child, "close")) as [number | null];
  return { status, stdout: stdout.join(""), stderr: stderr.join("") };
}
