import { LazyError } from "../errors.ts";

export type Credential =
  | { readonly kind: "basic"; readonly username: string; readonly password: string }
  /** An OAuth2 refresh token, good only for the registry's token service. */
  | { readonly kind: "identity-token"; readonly token: string };

/** Where credentials come from. Asked again when a registry refuses what it gave before. */
export interface CredentialSource {
  /**
   * `host` as in a reference, with the port; `url` is what the registry was asked for when it wanted to know who asks.
   * Undefined: go on without. Errors never hold secrets.
   */
  credentialFor(host: string, repository: string, url: URL): Promise<Credential | undefined>;
}

/** The same credential for whatever registry it is given to. */
export class FixedCredentials implements CredentialSource {
  readonly #credential: Credential;

  constructor(username: string, password: string) {
    this.#credential = { kind: "basic", username, password };
  }

  async credentialFor(): Promise<Credential> {
    return this.#credential;
  }
}

/** `user:password`; the password may hold further colons. Throws `USAGE` without repeating the text. */
export function parseUserPassword(text: string): FixedCredentials {
  const colon = text.indexOf(":");
  if (colon < 1) throw new LazyError("USAGE", "credentials: expected USER:PASSWORD, with a colon between the two");
  return new FixedCredentials(text.slice(0, colon), text.slice(colon + 1));
}
