import { LazyError } from "../errors.ts";
import type { RegistryReference } from "../oci/reference.ts";

const PATH_PART = "[a-z0-9]+(?:(?:\\.|_|__|-+)[a-z0-9]+)*";
const BLOBS_PATH = new RegExp(`^/v2/(${PATH_PART}(?:/${PATH_PART})*)/blobs/?$`);

/** A repository, and how its registry is spoken to. */
export interface BlobUrl {
  readonly reference: RegistryReference;
  readonly plainHttp: boolean;
}

/** The repository that `https://HOST[:PORT]/v2/REPOSITORY/blobs` is about. Throws `USAGE`. */
export function parseBlobUrl(text: string): BlobUrl {
  const url = URL.parse(text);
  const repository = BLOBS_PATH.exec(url?.pathname ?? "")?.[1];
  const isPlain = url?.search === "" && url.hash === "" && url.username === "" && url.password === "";
  if (url === null || repository === undefined || !isPlain || (url.protocol !== "http:" && url.protocol !== "https:")) {
    const shown = url === null || isPlain ? ` ${JSON.stringify(text.slice(0, 200))}` : "";
    throw new LazyError("USAGE", `the URL${shown} names no repository; expected https://HOST/v2/REPOSITORY/blobs, without user and query`);
  }
  return { reference: { kind: "registry", host: url.host, repository }, plainHttp: url.protocol === "http:" };
}
