import { constants } from "node:fs";
import { open, type FileHandle } from "node:fs/promises";
import type { Access } from "../../../src/daemon/exposure-schema.ts";
import { COMMANDS } from "../../../src/export/nbd/protocol.ts";
import { run } from "../../support/command.ts";
import { NbdClient } from "../../support/nbd-client.ts";
import { timely } from "./timely.ts";

/** Of WebAssembly's interface, which the types of Node leave to the browser's. */
declare const WebAssembly: { readonly Memory: new (descriptor: { initial: number }) => { readonly buffer: ArrayBuffer } };

/** A device as one of its users sees it. What fails, fails with an error and not with silence. */
export interface BlockAccess {
  /** `direct`: past the kernel's cache. Offsets and lengths are multiples of 512. */
  read(offset: number, length: number, direct: boolean): Promise<Uint8Array>;
  write(offset: number, bytes: Uint8Array, direct: boolean): Promise<void>;
  discard(offset: number, length: number): Promise<void>;
  flush(): Promise<void>;
  close(): Promise<void>;
}

/** Opens a device that is shown as a file, a block device or over NBD. */
export async function openAccess(access: Access, readOnly: boolean): Promise<BlockAccess> {
  if (access.kind === "nbd") return await NbdAccess.open(new URL(access.uri));
  return "device" in access
    ? await FileAccess.open(access.device, readOnly, async (offset, length) => {
        await run("blkdiscard", ["--force", "--offset", `${offset}`, "--length", `${length}`, access.device]);
      })
    : await FileAccess.open(access.path, readOnly, async (offset, length) => {
        await run("fallocate", ["--punch-hole", "--offset", `${offset}`, "--length", `${length}`, access.path]);
      });
}

/** Memory at the boundary of a page, as direct I/O needs it. */
export function pages(bytes: number): Buffer {
  return Buffer.from(new WebAssembly.Memory({ initial: Math.max(1, Math.ceil(bytes / 65_536)) }).buffer, 0, bytes);
}

class FileAccess implements BlockAccess {
  readonly #cached: FileHandle;
  readonly #direct: FileHandle;
  readonly #discard: BlockAccess["discard"];

  private constructor(cached: FileHandle, direct: FileHandle, discard: BlockAccess["discard"]) {
    this.#cached = cached;
    this.#direct = direct;
    this.#discard = discard;
  }

  static async open(path: string, readOnly: boolean, discard: BlockAccess["discard"]): Promise<FileAccess> {
    const mode = readOnly ? constants.O_RDONLY : constants.O_RDWR;
    const cached = await timely(`opening ${path}`, open(path, mode));
    try {
      return new FileAccess(cached, await timely(`opening ${path}`, open(path, mode | constants.O_DIRECT)), discard);
    } catch (error) {
      await cached.close();
      throw error;
    }
  }

  async read(offset: number, length: number, direct: boolean): Promise<Uint8Array> {
    const target = pages(length);
    const handle = direct ? this.#direct : this.#cached;
    for (let done = 0; done < length;) {
      const { bytesRead } = await timely("read", handle.read(target, done, length - done, offset + done));
      if (bytesRead === 0) throw new Error(`read of [${offset}, ${offset + length}) ends after ${done} bytes`);
      done += bytesRead;
    }
    return target;
  }

  async write(offset: number, bytes: Uint8Array, direct: boolean): Promise<void> {
    const source = pages(bytes.length);
    source.set(bytes);
    const handle = direct ? this.#direct : this.#cached;
    for (let done = 0; done < source.length;) {
      done += (await timely("write", handle.write(source, done, source.length - done, offset + done))).bytesWritten;
    }
  }

  async discard(offset: number, length: number): Promise<void> {
    await timely("discard", this.#discard(offset, length));
  }

  async flush(): Promise<void> {
    await timely("flush", this.#cached.sync());
  }

  async close(): Promise<void> {
    // What closing has to say was said by the last flush, or is said by reading.
    await Promise.allSettled([timely("close", this.#cached.close()), timely("close", this.#direct.close())]);
  }
}

class NbdAccess implements BlockAccess {
  readonly #client: NbdClient;
  #turn: Promise<unknown> = Promise.resolve();

  private constructor(client: NbdClient) {
    this.#client = client;
  }

  static async open(uri: URL): Promise<NbdAccess> {
    const path = uri.searchParams.get("socket");
    if (path === null) throw new Error(`${uri.href}: expected the path of a socket`);
    const name = decodeURIComponent(uri.pathname.slice(1));
    return new NbdAccess(await timely("connecting", NbdClient.ready({ kind: "unix", path }, { name })));
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    return await this.#inTurn("read", async () => await this.#client.read(offset, length));
  }

  async write(offset: number, bytes: Uint8Array): Promise<void> {
    await this.#command(COMMANDS.WRITE, offset, bytes.length, bytes);
  }

  async discard(offset: number, length: number): Promise<void> {
    await this.#command(COMMANDS.WRITE_ZEROES, offset, length);
  }

  async flush(): Promise<void> {
    await this.#command(COMMANDS.FLUSH, 0, 0);
  }

  async close(): Promise<void> {
    await this.#client[Symbol.asyncDispose]();
  }

  async #command(command: number, offset: number, length: number, bytes?: Uint8Array): Promise<void> {
    await this.#inTurn(`command ${command}`, async () => {
      this.#client.send(command, 1n, offset, length, 0, bytes);
      const { error } = await this.#client.reply();
      if (error !== 0) throw new Error(`error ${error}`);
    });
  }

  /** One request after the other: answers come in the order of the questions. */
  async #inTurn<T>(what: string, work: () => Promise<T>): Promise<T> {
    const mine = this.#turn.then(work);
    this.#turn = mine.catch(() => {});
    return await timely(what, mine);
  }
}
