import type { ByteSource } from "../bytes/source.ts";
import { unsupported } from "../errors.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import { hexOf, type Digest } from "../oci/digest.ts";
import { detectMediaType } from "../oci/document.ts";
import { isAttestation } from "../oci/image-selection.ts";
import type { ResolveTarget } from "../oci/image-store.ts";
import { parseIndex, type ImageIndex } from "../oci/index.ts";
import { parseJsonObject } from "../oci/json.ts";
import { documentKind, OCI_INDEX } from "../oci/media-types.ts";
import { isReferrersTag, referrersTag } from "../oci/referrers.ts";
import { readDocument, type ArchiveContent } from "./archive-content.ts";
import { imagesNamed, noSuchImage, tooManyImages, type NamedImage } from "./image-names.ts";
import type { MemberIndex } from "./member-index.ts";

const LAYOUT_VERSION = "1.0.0";
const REF_NAME = "org.opencontainers.image.ref.name";
/** Where docker and containerd put the whole name; `ref.name` is the tag alone then. */
export const IMAGE_NAME = "io.containerd.image.name";

interface LayoutImage extends NamedImage {
  readonly descriptor: Descriptor;
}

/** An OCI layout in a tar (image specification, image-layout.md). */
export class LayoutContent implements ArchiveContent {
  readonly #members: MemberIndex;
  readonly #name: string;
  readonly #repository: string | undefined;
  readonly #images: readonly LayoutImage[];
  readonly #lists: ReadonlyMap<string, Descriptor>;

  private constructor(members: MemberIndex, name: string, repository: string | undefined, index: ImageIndex) {
    this.#members = members;
    this.#name = name;
    this.#repository = repository;
    const images = index.manifests.map((descriptor) => ({ descriptor, names: namesOf(descriptor) }));
    const isList = ({ names: [name = ""] }: LayoutImage): boolean => isReferrersTag(name);
    this.#images = images.filter((image) => !isList(image));
    this.#lists = new Map(images.filter(isList).map(({ names, descriptor }) => [names[0], descriptor]));
  }

  /** Undefined if there is no layout in the archive. */
  static async open(members: MemberIndex, name: string, repository: string | undefined): Promise<LayoutContent | undefined> {
    const [mark, index] = [members.find("oci-layout"), members.find("index.json")];
    if (!mark || !index) return undefined;
    const version = parseJsonObject(await readDocument(mark), mark.name)["imageLayoutVersion"];
    if (version !== LAYOUT_VERSION)
      throw unsupported(`${name}: layout version is ${JSON.stringify(version)?.slice(0, 100)}, expected "${LAYOUT_VERSION}"`);
    return new LayoutContent(members, name, repository, parseIndex(await readDocument(index), OCI_INDEX, index.name));
  }

  async find({ tag, digest }: ResolveTarget): Promise<Descriptor> {
    if (digest !== undefined) return await this.#findDigest(digest);
    const wanted = { tag, repository: this.#repository };
    const found = imagesNamed(this.#images, wanted);
    const different = new Set(found.map(({ descriptor }) => descriptor.digest));
    if (different.size > 1) throw tooManyImages(this.#name, wanted, found);
    if (different.size === 0) throw noSuchImage(this.#name, wanted, this.#images);
    return await this.#presentImage(found[0].descriptor);
  }

  /** docker saves an index whole, but of its images only those that it has. Where that is one of several, it is what is meant. */
  async #presentImage(descriptor: Descriptor): Promise<Descriptor> {
    const blob = documentKind(descriptor.mediaType) === "index" ? this.open(descriptor.digest) : undefined;
    if (!blob) return descriptor;
    const { manifests } = parseIndex(await readDocument(blob), descriptor.mediaType, blob.name);
    const images = manifests.filter((entry) => !isAttestation(entry));
    const present = images.filter(({ digest }) => this.open(digest) !== undefined);
    return present.length === 1 && images.length > 1 ? present[0] : descriptor;
  }

  async #findDigest(digest: Digest): Promise<Descriptor> {
    const known = this.#images.find(({ descriptor }) => descriptor.digest === digest);
    if (known) return known.descriptor;
    const blob = this.open(digest);
    if (!blob) throw noSuchImage(this.#name, { tag: digest }, this.#images);
    return { mediaType: detectMediaType(await readDocument(blob), undefined, blob.name), digest, size: blob.size };
  }

  open(digest: Digest): ByteSource | undefined {
    return this.#members.find(`blobs/sha256/${hexOf(digest)}`);
  }

  referrersOf(subject: Digest): Descriptor | undefined {
    return this.#lists.get(referrersTag(subject));
  }
}

function namesOf({ annotations }: Descriptor): string[] {
  return [annotations?.[REF_NAME], annotations?.[IMAGE_NAME]].filter((name) => name !== undefined);
}
