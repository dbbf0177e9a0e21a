import { resolve } from "node:path";
import { DOCKER_HUB_HOST, formatReference, parseReference, type ImageReference, type RegistryReference } from "../oci/reference.ts";

/** The host as people type it, which is what rows of the standalone convertor have. */
export function typedHost({ host }: RegistryReference): string {
  return host === DOCKER_HUB_HOST ? "docker.io" : host;
}

/** A reference as people know it; parses to the same one. */
export function referenceName(reference: ImageReference): string {
  return formatReference(reference.kind === "registry" ? { ...reference, host: typedHost(reference) } : reference);
}

/** The same without tag and digest: the repository, or the directory. */
export function placeName(reference: ImageReference): string {
  const { tag: _tag, digest: _digest, ...place } = reference;
  return referenceName(place);
}

/** A typed reference that means the same from any working directory. */
export function absoluteReference(text: string): string {
  const reference = parseReference(text);
  if (reference.kind === "layout") return formatReference({ ...reference, directory: resolve(reference.directory) });
  if (reference.kind === "oci-archive" || reference.kind === "docker-archive")
    return formatReference({ ...reference, file: resolve(reference.file) });
  return text;
}
