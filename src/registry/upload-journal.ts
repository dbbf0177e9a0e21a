import { createHash, randomUUID } from "node:crypto";
import { constants } from "node:fs";
import { mkdir, open, readdir, rename, stat, unlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { LazyError, messageOf } from "../errors.ts";
import { encodeJson, parseJsonObject, requireString } from "../oci/json.ts";

/** Which upload is meant. */
export interface UploadKey {
  /** Scheme, host and port of the registry. */
  readonly origin: string;
  readonly repository: string;
  /** What is sent: its digest, or what whoever makes it calls it. */
  readonly content: string;
}

/** How far an upload has got. */
export interface RememberedUpload {
  /** Where the registry said that the next piece goes. May hold a signed token: it belongs into no message. */
  readonly location: URL;
  /** Bytes that the registry has acknowledged. */
  readonly arrived: number;
}

/**
 * Half-made uploads, remembered from one process to the next. What it gives is a hint: the registry is asked where the session stands.
 * No call fails; what cannot be kept is not found later.
 */
export interface UploadJournal {
  /** Undefined if nothing is known, or if another process is at it. */
  find(key: UploadKey): Promise<RememberedUpload | undefined>;
  remember(key: UploadKey, upload: RememberedUpload): Promise<void>;
  forget(key: UploadKey): Promise<void>;
}

export interface UploadDirectoryOptions {
  /** Milliseconds since 1970. */
  readonly now: () => number;
  /** Told once if uploads cannot be remembered. */
  readonly notice?: ((message: string) => void) | undefined;
}

/** Registries forget sessions, too, most of them after a day or a week. */
const MAX_AGE_MS = 24 * 3600 * 1000;
const MAX_ENTRIES = 256;
const MAX_LOCATION_LENGTH = 8192;
const MAX_FILE_BYTES = 16 << 10;
const NAME = /^[0-9a-f]{64}\.json$/;
const TEMPORARY_NAME = /^\.tmp-/;

interface Entry extends RememberedUpload {
  readonly atMs: number;
  /** Process that writes it. */
  readonly owner: number;
}

/** One small file a session, readable by its owner alone, in a directory that is made when it is needed. */
export class UploadDirectory implements UploadJournal {
  readonly #directory: string;
  readonly #options: UploadDirectoryOptions;
  readonly #written = new Set<string>();
  #isBroken = false;

  constructor(directory: string, options: UploadDirectoryOptions) {
    this.#directory = directory;
    this.#options = options;
  }

  async find(key: UploadKey): Promise<RememberedUpload | undefined> {
    const path = this.#path(key);
    const entry = await readEntry(path, key);
    if (entry === undefined) return undefined;
    if (!this.#isFresh(entry.atMs)) {
      await remove(path);
      return undefined;
    }
    return isAnother(entry.owner) ? undefined : entry;
  }

  async remember(key: UploadKey, { location, arrived }: RememberedUpload): Promise<void> {
    if (this.#isBroken || location.href.length > MAX_LOCATION_LENGTH) return;
    const path = this.#path(key);
    const temporary = join(this.#directory, `.tmp-${randomUUID()}`);
    const entry = { ...key, location: location.href, arrived, at: this.#options.now(), owner: process.pid };
    try {
      await mkdir(this.#directory, { recursive: true, mode: 0o700 });
      if (!this.#written.has(path)) await this.#tidy();
      this.#written.add(path);
      await writeFile(temporary, encodeJson(entry), { flag: "wx", mode: 0o600 });
      await rename(temporary, path);
    } catch (error) {
      await remove(temporary);
      this.#isBroken = true;
      this.#options.notice?.(`${this.#directory}: ${messageOf(error)}; an upload that is interrupted will start over`);
    }
  }

  async forget(key: UploadKey): Promise<void> {
    await remove(this.#path(key));
  }

  #path({ origin, repository, content }: UploadKey): string {
    const name = createHash("sha256").update(`${origin}\n${repository}\n${content}`).digest("hex");
    return join(this.#directory, `${name}.json`);
  }

  #isFresh(atMs: number): boolean {
    const ageMs = this.#options.now() - atMs;
    return ageMs >= 0 && ageMs < MAX_AGE_MS;
  }

  /** Removes what is too old, and the oldest of what is too much. */
  async #tidy(): Promise<void> {
    const files: { path: string; changedMs: number }[] = [];
    for (const name of await readdir(this.#directory)) {
      if (!NAME.test(name) && !TEMPORARY_NAME.test(name)) continue;
      const path = join(this.#directory, name);
      const found = await stat(path).catch(() => undefined);
      if (found?.isFile()) files.push({ path, changedMs: found.mtimeMs });
    }
    files.sort((one, other) => other.changedMs - one.changedMs);
    for (const [at, { path, changedMs }] of files.entries()) {
      if (at >= MAX_ENTRIES - 1 || this.#options.now() - changedMs >= MAX_AGE_MS) await remove(path);
    }
  }
}

/** Undefined for whatever is not a whole entry of this key. */
async function readEntry(path: string, key: UploadKey): Promise<Entry | undefined> {
  try {
    const bytes = await readSmallFile(path);
    return bytes && parseEntry(bytes, key, path);
  } catch (error) {
    if (error instanceof LazyError || (error instanceof Error && "code" in error)) return undefined;
    throw error;
  }
}

async function readSmallFile(path: string): Promise<Uint8Array | undefined> {
  await using file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  const { bytesRead, buffer } = await file.read(Buffer.alloc(MAX_FILE_BYTES + 1), 0, MAX_FILE_BYTES + 1, 0);
  return bytesRead > MAX_FILE_BYTES ? undefined : buffer.subarray(0, bytesRead);
}

function parseEntry(bytes: Uint8Array, key: UploadKey, path: string): Entry | undefined {
  const raw = parseJsonObject(bytes, path);
  const isOwn = raw["origin"] === key.origin && raw["repository"] === key.repository && raw["content"] === key.content;
  const location = URL.parse(requireString(raw, "location", path));
  const { arrived, at, owner } = raw;
  if (!isOwn || location === null || !isCount(arrived) || !isCount(at) || !isCount(owner)) return undefined;
  return { location, arrived, atMs: at, owner };
}

function isCount(value: unknown): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value > 0;
}

/** Two processes in one session would spoil it. */
function isAnother(owner: number): boolean {
  if (owner === process.pid) return false;
  try {
    process.kill(owner, 0);
    return true;
  } catch (error) {
    return error instanceof Error && "code" in error && error.code === "EPERM";
  }
}

async function remove(path: string): Promise<void> {
  // It may be gone already, and one that stays is too old some day.
  await unlink(path).catch(() => undefined);
}
