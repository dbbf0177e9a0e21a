import type { ByteSource } from "../bytes/source.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import type { Digest } from "../oci/digest.ts";
import type { BlobSpool } from "./blob-spool.ts";
import type { OutputLayer } from "./output-image.ts";

/** What the documents say of a layer whose blob has this digest. */
type Describe = (digest: Digest) => OutputLayer;

/** The stored layer that a turboOCI layer refers to, with its content if that is no layer of the source. */
export interface ReferredData {
  readonly data: Descriptor;
  readonly dataContent?: ByteSource | undefined;
}

/** A layer of a result. Its blob is in the destination already, or made, and hashed when it is first read. */
export class ConvertedLayer {
  /** Bytes of the blob. */
  readonly size: number;
  /** Undefined for what is in the destination already. */
  readonly content: BlobSpool | undefined;
  readonly data: Descriptor | undefined;
  readonly dataContent: ByteSource | undefined;
  readonly #describe: Describe;
  #output: Promise<OutputLayer> | undefined;

  private constructor(size: number, content: BlobSpool | undefined, describe: Describe, referred?: ReferredData) {
    this.size = size;
    this.content = content;
    this.data = referred?.data;
    this.dataContent = referred?.dataContent;
    this.#describe = describe;
  }

  static made(content: BlobSpool, describe: Describe, referred?: ReferredData): ConvertedLayer {
    return new ConvertedLayer(content.size, content, describe, referred);
  }

  static stored(output: OutputLayer): ConvertedLayer {
    const { descriptor, data } = output;
    const layer = new ConvertedLayer(descriptor.size, undefined, () => output, data && { data });
    layer.#output = Promise.resolve(output);
    return layer;
  }

  /** What the documents say of it. Reads the blob if nobody has hashed it yet. */
  async output(): Promise<OutputLayer> {
    this.#output ??= this.content!.digest().then(this.#describe);
    return await this.#output;
  }

  /** The same, when the digest turned out while the blob was stored. */
  async hashed(digest: Digest): Promise<OutputLayer> {
    this.#output ??= Promise.resolve(this.#describe(digest));
    return await this.#output;
  }
}
