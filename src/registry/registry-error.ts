import { LazyError, type ErrorCode } from "../errors.ts";

export interface RegistryErrorDetails {
  /** HTTP status; undefined if no answer came. */
  readonly status?: number | undefined;
  /** Without user, password and query. */
  readonly url: string;
  /** How long the server asked to wait before the next try. */
  readonly retryAfterMs?: number | undefined;
  /** Whether the same request may succeed later. */
  readonly retryable: boolean;
}

/** A registry, its token service, or the network between, failed or refused. */
export class RegistryError extends LazyError {
  readonly status: number | undefined;
  readonly url: string;
  readonly retryAfterMs: number | undefined;
  readonly retryable: boolean;

  constructor(code: ErrorCode, message: string, details: RegistryErrorDetails, options?: ErrorOptions) {
    super(code, message, options);
    this.name = "RegistryError";
    this.status = details.status;
    this.url = details.url;
    this.retryAfterMs = details.retryAfterMs;
    this.retryable = details.retryable;
  }
}

/** Queries hold upload states and signatures, so only origin and path are ever shown. */
export function redactUrl(url: URL): string {
  return `${url.origin}${url.pathname}`;
}

/** A transfer that broke off or broke the protocol; trying again may help. */
export function brokenTransfer(url: URL, message: string, options?: ErrorOptions): RegistryError {
  const shown = redactUrl(url);
  return new RegistryError("UNAVAILABLE", `${shown}: ${message}`, { url: shown, retryable: true }, options);
}
