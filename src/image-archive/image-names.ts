import { LazyError } from "../errors.ts";
import { formatReference, parseReference } from "../oci/reference.ts";

/** An image of an archive and what it is called there: tags alone (`v1`), or whole names (`docker.io/library/app:v1`). */
export interface NamedImage {
  readonly names: readonly string[];
}

/** What is asked for. Without a repository, a tag of any. */
export interface WantedName {
  readonly repository?: string | undefined;
  readonly tag?: string | undefined;
}

const SHOWN_NAMES = 20;

/**
 * The images that the name means; all of them without a tag. A name that is exactly the tag goes before names that end in it.
 */
export function imagesNamed<T extends NamedImage>(images: readonly T[], { repository, tag }: WantedName): readonly T[] {
  if (tag === undefined) return images;
  if (repository === undefined) {
    const exact = images.filter(({ names }) => names.includes(tag));
    return exact.length > 0 ? exact : images.filter(({ names }) => names.some((name) => isWhole(name) && tagIn(name) === tag));
  }
  const wanted = normalised(`${repository}:${tag}`);
  return images.filter(({ names }) => names.some((name) => isWhole(name) && normalised(name) === wanted));
}

/** Throws `USAGE` that names what there is to choose from. */
export function tooManyImages(archive: string, wanted: WantedName, images: readonly NamedImage[]): LazyError {
  const what = wanted.tag === undefined ? "holds several images" : `has several images called ${JSON.stringify(nameOf(wanted))}`;
  return new LazyError("USAGE", `${archive}: ${what}, name one of them: ${namesOf(images)}`);
}

export function noSuchImage(archive: string, wanted: WantedName, images: readonly NamedImage[]): LazyError {
  const what = wanted.tag === undefined ? "no image at all" : `no image ${JSON.stringify(nameOf(wanted))}`;
  const others = images.length === 0 ? "" : `; it has ${namesOf(images)}`;
  return new LazyError("NOT_FOUND", `${archive}: has ${what}${others}`);
}

function nameOf({ repository, tag }: WantedName): string {
  return repository === undefined ? `${tag}` : `${repository}:${tag}`;
}

function namesOf(images: readonly NamedImage[]): string {
  const names = images.map((image) => image.names[0] ?? "one without a name");
  return names.slice(0, SHOWN_NAMES).map((name) => JSON.stringify(name.slice(0, 300))).join(", "); // prettier-ignore
}

function isWhole(name: string): boolean {
  return /[:/]/.test(name);
}

function tagIn(name: string): string {
  const colon = name.lastIndexOf(":");
  return colon > name.lastIndexOf("/") ? name.slice(colon + 1) : "latest";
}

/** Docker's short names and the long ones are the same. What is no name of an image is only like itself. */
function normalised(name: string): string {
  try {
    return formatReference(parseReference(name));
  } catch {
    return name;
  }
}
