import { DOCKER_HUB_HOST, formatReference, type ImageReference, type RegistryReference } from "../oci/reference.ts";

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
