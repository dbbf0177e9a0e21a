import { corrupt } from "../errors.ts";
import { optionalString, parseJsonObject } from "../oci/json.ts";
import { parseChallenges, type Challenge } from "./challenge.ts";
import type { Credential, CredentialSource } from "./credentials.ts";
import { readBody, type HttpClient, type HttpRequest, type HttpResponse } from "./http.ts";
import { checkAudience, checkRealm } from "./realm.ts";
import { redactUrl } from "./registry-error.ts";
import { statusError } from "./status-error.ts";

/** What a request needs to be allowed to do. */
export interface Scope {
  readonly repository: string;
  readonly actions: "pull" | "pull,push";
}

interface Grant {
  readonly scopes: readonly Scope[];
  /** The value of an `Authorization` header. */
  readonly header: string;
  /** On the monotonic clock. */
  readonly expiresAtMs: number;
}

const MAX_TOKEN_ANSWER_BYTES = 1 << 20;
const DEFAULT_TOKEN_SECONDS = 60;
/** Tokens are renewed this long before they expire, so that a request does not outlive its token on the way. */
const EXPIRY_MARGIN_MS = 5_000;
const CLIENT_ID = "lazylayer";

export interface AuthenticatorOptions {
  readonly credentials?: CredentialSource | undefined;
  /** Hosts that may get credentials although they are in another domain than the registry. */
  readonly tokenServices?: readonly string[] | undefined;
}

/** Turns a registry's challenges into `Authorization` headers, and remembers what it was granted. */
export class Authenticator {
  readonly #registry: URL;
  readonly #repository: string;
  readonly #http: HttpClient;
  readonly #options: AuthenticatorOptions;
  readonly #grants: Grant[] = [];
  readonly #running = new Map<string, Promise<string | undefined>>();
  #lastChallenge: { readonly challenge: Challenge; readonly url: URL } | undefined;

  constructor(registry: URL, repository: string, http: HttpClient, options: AuthenticatorOptions) {
    this.#registry = registry;
    this.#repository = repository;
    this.#http = http;
    this.#options = options;
  }

  /** The header of an earlier grant that covers the scopes. */
  current(scopes: readonly Scope[]): string | undefined {
    const now = performance.now();
    return this.#grants.find((grant) => grant.expiresAtMs > now && scopes.every((scope) => covers(grant, scope)))?.header;
  }

  /**
   * Answers a 401, or a 403, which some registries send when a token has expired.
   * `used` is the refused header. Undefined means that there is nothing better to offer.
   */
  async answer(response: HttpResponse, scopes: readonly Scope[], used: string | undefined): Promise<string | undefined> {
    this.#forget(used);
    const renewed = this.current(scopes);
    if (renewed !== undefined) return renewed;
    const challenge = pickChallenge(parseChallenges(response.header("www-authenticate"))) ?? this.#lastChallenge?.challenge;
    if (!challenge) return undefined;
    this.#lastChallenge = { challenge, url: response.url };
    const header = await this.#once(scopes, () => this.#grant(challenge, scopes, response.url));
    return header === used ? undefined : header;
  }

  /** A header for a registry that has asked for one before; undefined if it has not. */
  async renew(scopes: readonly Scope[]): Promise<string | undefined> {
    const last = this.#lastChallenge;
    return last && (await this.#once(scopes, () => this.#grant(last.challenge, scopes, last.url)));
  }

  #forget(header: string | undefined): void {
    const at = this.#grants.findIndex((grant) => grant.header === header);
    if (at >= 0) this.#grants.splice(at, 1);
  }

  /** Requests that are refused at the same time share one answer. */
  async #once(scopes: readonly Scope[], grant: () => Promise<string | undefined>): Promise<string | undefined> {
    const key = JSON.stringify(scopes);
    const running = this.#running.get(key) ?? grant().finally(() => this.#running.delete(key));
    this.#running.set(key, running);
    return await running;
  }

  async #grant(challenge: Challenge, scopes: readonly Scope[], url: URL): Promise<string | undefined> {
    const credential = await this.#options.credentials?.credentialFor(this.#registry.host, this.#repository, url);
    if (challenge.scheme === "bearer") return await this.#fetchToken(challenge, scopes, credential);
    if (credential?.kind !== "basic") return undefined;
    return this.#remember({ scopes: [], header: basic(credential), expiresAtMs: Infinity });
  }

  async #fetchToken(challenge: Challenge, scopes: readonly Scope[], credential: Credential | undefined): Promise<string> {
    const realm = checkRealm(challenge.parameters.get("realm"), this.#registry);
    if (credential) checkAudience(realm, this.#registry, this.#options.tokenServices ?? []);
    const response = await this.#http.send(tokenRequest(realm, challenge, scopes, credential));
    if (response.status !== 200) throw await statusError(response, `${redactUrl(this.#registry)}: token service`);
    const { token, seconds } = parseToken(await readBody(response, MAX_TOKEN_ANSWER_BYTES), redactUrl(realm));
    const expiresAtMs = performance.now() + seconds * 1000 - EXPIRY_MARGIN_MS;
    return this.#remember({ scopes, header: `Bearer ${token}`, expiresAtMs });
  }

  #remember(grant: Grant): string {
    this.#grants.unshift(grant);
    if (this.#grants.length > 16) this.#grants.pop();
    return grant.header;
  }
}

function covers(grant: Grant, wanted: Scope): boolean {
  if (grant.scopes.length === 0) return true;
  return grant.scopes.some(
    (scope) => scope.repository === wanted.repository && (scope.actions === wanted.actions || wanted.actions === "pull"),
  );
}

function pickChallenge(challenges: readonly Challenge[]): Challenge | undefined {
  return challenges.find(({ scheme }) => scheme === "bearer") ?? challenges.find(({ scheme }) => scheme === "basic");
}

function basic(credential: { readonly username: string; readonly password: string }): string {
  return `Basic ${Buffer.from(`${credential.username}:${credential.password}`).toString("base64")}`;
}

function tokenRequest(realm: URL, challenge: Challenge, scopes: readonly Scope[], credential: Credential | undefined): HttpRequest {
  const service = challenge.parameters.get("service");
  const wanted = new Set(scopes.map((scope) => `repository:${scope.repository}:${scope.actions}`));
  const challenged = challenge.parameters.get("scope");
  if (challenged) wanted.add(challenged);
  if (credential?.kind === "identity-token") {
    const form = new URLSearchParams({ grant_type: "refresh_token", refresh_token: credential.token, client_id: CLIENT_ID });
    if (service) form.set("service", service);
    form.set("scope", [...wanted].join(" "));
    const headers = { "content-type": "application/x-www-form-urlencoded" };
    return { method: "POST", url: realm, headers, body: form.toString() };
  }
  const url = new URL(realm);
  if (service) url.searchParams.set("service", service);
  for (const scope of wanted) url.searchParams.append("scope", scope);
  return { method: "GET", url, headers: credential ? { authorization: basic(credential) } : {} };
}

function parseToken(bytes: Uint8Array, where: string): { token: string; seconds: number } {
  const answer = parseJsonObject(bytes, `${where}: token`);
  const token = optionalString(answer, "token", where) || optionalString(answer, "access_token", where);
  // What goes into a header must not be able to end it.
  if (!token || !/^[\x21-\x7e]+$/.test(token)) throw corrupt(`${where}: answers without a usable token`);
  const seconds = answer["expires_in"];
  return { token, seconds: typeof seconds === "number" && seconds > 0 ? seconds : DEFAULT_TOKEN_SECONDS };
}
