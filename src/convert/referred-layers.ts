import { MemorySource, type ByteSource } from "../bytes/source.ts";
import { LazyError } from "../errors.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import type { Digest } from "../oci/digest.ts";
import type { ImageStore } from "../oci/image-store.ts";
import { encodeJson } from "../oci/json.ts";
import { EMPTY_CONFIG, OCI_MANIFEST } from "../oci/media-types.ts";
import type { ConvertTarget } from "./convert-options.ts";
import { copyBlob } from "./copy-document.ts";
import type { ConvertedLayer } from "./converted-layer.ts";
import { describe } from "./output-image.ts";

/** What the manifest is among others that holds the layers which turboOCI layers refer to. */
const ARTIFACT_TYPE = "application/vnd.lazylayer.referred-layers.v1+json";
const EMPTY = encodeJson({});

const SUFFIX = "-layers";
const MAX_TAG_CHARACTERS = 128;

/** The tag under which the layers are kept that the image with this tag refers to. */
function keepingTag(tag: string): string {
  if (tag.length + SUFFIX.length <= MAX_TAG_CHARACTERS) return `${tag}${SUFFIX}`;
  const longest = MAX_TAG_CHARACTERS - SUFFIX.length;
  const hint = `name one of at most ${longest} characters, as what it refers to is kept under it and "${SUFFIX}"`;
  throw new LazyError("USAGE", `tag ${tag}: is too long for a turboOCI image; ${hint}`);
}

/**
 * The layers that a turboOCI image refers to but does not name in its manifest: they are brought to where the image is, and held there
 * by a manifest of their own, with a tag of its own, so that a registry's garbage collection finds them in use.
 */
export class ReferredLayers {
  readonly #source: ImageStore;
  readonly #target: ConvertTarget;
  /** Each is settled when the layer is there; images that share one share this too, so that it is asked for and brought once. */
  readonly #layers = new Map<Digest, Promise<Descriptor>>();

  /** Throws `USAGE` for a tag that is too long. */
  constructor(source: ImageStore, target: ConvertTarget) {
    this.#source = source;
    this.#target = target;
    if (target.format === "turbo") this.#tag();
  }

  /** Makes sure that what these layers refer to is in the destination. */
  async store(layers: readonly Partial<Pick<ConvertedLayer, "data" | "dataContent">>[], signal: AbortSignal): Promise<void> {
    for (const { data, dataContent } of layers) {
      if (data === undefined) continue;
      signal.throwIfAborted();
      const stored = this.#layers.get(data.digest) ?? this.#bring(data, dataContent, signal);
      this.#layers.set(data.digest, stored);
      await stored;
    }
  }

  async #bring(data: Descriptor, content: ByteSource | undefined, signal: AbortSignal): Promise<Descriptor> {
    const { destination, mountFrom } = this.#target;
    if (content) await destination.putBlob(data, content, { signal });
    else await copyBlob(this.#source, destination, data, { mountFrom, signal });
    return data;
  }

  /** Stores the manifest that names all of them. */
  async keep(signal: AbortSignal): Promise<void> {
    const { destination } = this.#target;
    const tag = this.#layers.size === 0 ? undefined : this.#tag();
    if (tag === undefined) return;
    const config = describe(EMPTY_CONFIG, EMPTY);
    await destination.putBlob(config, new MemorySource(EMPTY, "empty config"), { signal });
    const layers = (await Promise.all(this.#layers.values())).toSorted((a, b) => (a.digest < b.digest ? -1 : 1));
    const manifest = encodeJson({ schemaVersion: 2, mediaType: OCI_MANIFEST, artifactType: ARTIFACT_TYPE, config, layers });
    await destination.putManifest(manifest, OCI_MANIFEST, { tag, signal });
  }

  /** Undefined where they need not be kept. */
  #tag(): string | undefined {
    const { tag, isArchive } = this.#target;
    return tag === undefined || isArchive ? undefined : keepingTag(tag);
  }
}
