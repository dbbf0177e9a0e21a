import assert from "node:assert/strict";
import { stackLayerBlobs } from "../journeys/mount-support.ts";
import { digestOf, type Digest } from "../../src/oci/digest.ts";
import { startDockerRegistry } from "./docker-registry.ts";
import { startHostileRegistry, type HostileRegistry, type SeenRequest } from "./hostile-registry.ts";

export interface StackLayer {
  readonly digest: Digest;
  readonly size: number;
}

/** Puts the layers of the image in testdata into a repository of a registry, and answers how configurations name them. */
export async function pushStack(
  host: string,
  headers: Record<string, string> = {},
): Promise<{ readonly repoBlobUrl: string; readonly lowers: StackLayer[] }> {
  const repoBlobUrl = `http://${host}/v2/app/blobs`;
  const lowers = await Promise.all(
    stackLayerBlobs().map(async (blob) => {
      const digest = digestOf(blob);
      const begun = await fetch(`${repoBlobUrl}/uploads/`, { method: "POST", headers });
      const place = new URL(begun.headers.get("location") ?? "", repoBlobUrl);
      place.searchParams.set("digest", digest);
      assert.equal((await fetch(place, { method: "PUT", headers, body: new Uint8Array(blob) })).status, 201);
      return { digest, size: blob.length };
    }),
  );
  return { repoBlobUrl, lowers };
}

/** A registry with these layers, behind a server that counts what is asked of it, and breaks what it is told to. */
export class StackRegistry implements AsyncDisposable {
  readonly proxy: HostileRegistry;
  readonly repoBlobUrl: string;
  readonly lowers: readonly StackLayer[];
  readonly #stop: () => Promise<void>;

  private constructor(proxy: HostileRegistry, lowers: readonly StackLayer[], stop: () => Promise<void>) {
    this.proxy = proxy;
    this.repoBlobUrl = `http://${proxy.host}/v2/app/blobs`;
    this.lowers = lowers;
    this.#stop = stop;
  }

  static async start(): Promise<StackRegistry> {
    const registry = await startDockerRegistry();
    const { lowers } = await pushStack(registry.host);
    const proxy = await startHostileRegistry(registry.host);
    return new StackRegistry(proxy, lowers, async () => {
      await proxy.stop();
      await registry.stop();
    });
  }

  get blobBytes(): number {
    return this.lowers.reduce((sum, { size }) => sum + size, 0);
  }

  /** An image configuration in which each layer has a directory in that of a bench: `dir0`, `dir1`, `dir2`. */
  configIn(bench: { join(name: string): string }, more: object = {}): object {
    const lowers = this.lowers.map((lower, layer) => ({ ...lower, dir: bench.join(`dir${layer}`) }));
    return { repoBlobUrl: this.repoBlobUrl, lowers, ...more };
  }

  /** Bytes of blobs that were asked for. */
  get askedBytes(): number {
    return this.proxy.seen.reduce((sum, request) => sum + rangeBytes(request), 0);
  }

  async stop(): Promise<void> {
    await this.#stop();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }
}

function rangeBytes({ headers }: SeenRequest): number {
  const [, first, last] = /^bytes=(\d+)-(\d+)$/.exec(headers["range"] ?? "") ?? [];
  return first === undefined ? 0 : Number(last) - Number(first) + 1;
}
