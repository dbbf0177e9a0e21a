import { LazyError, messageOf } from "../errors.ts";
import { brokenTransfer, redactUrl, RegistryError } from "./registry-error.ts";

/** The other side has closed the connection, or a connection that it had closed was used. */
const CLOSED = new Set(["ECONNRESET", "EPIPE"]);
/** What the other side says about the certificate that it was shown, or was not. */
const WANTS_CERTIFICATE = /ALERT_(?:CERTIFICATE|BAD_CERTIFICATE|UNKNOWN_CA|UNSUPPORTED_CERTIFICATE|ACCESS_DENIED)|ALERT_HANDSHAKE_FAILURE/;
const CERTIFICATE = /CERT|SIGNED|UNABLE_TO_|ERR_TLS_/;

/** What a failed connection or a broken body means to the caller. Errors of this project pass unchanged. */
export function networkError(url: URL, error: unknown): LazyError {
  if (error instanceof LazyError) return error;
  const code = codeOf(error);
  const permanent = (hint: string): RegistryError =>
    new RegistryError("UNAVAILABLE", `${redactUrl(url)}: ${hint}`, { url: redactUrl(url), retryable: false }, { cause: error });
  if (WANTS_CERTIFICATE.test(code)) {
    const shown = redactUrl(url);
    const message = `${shown}: wants a client certificate, or another one: ${code}; give --client-cert CERT:KEY, or see docs/registries.md`;
    return new RegistryError("DENIED", message, { url: shown, retryable: false }, { cause: error });
  }
  if (CERTIFICATE.test(code)) return permanent(`TLS certificate not accepted: ${messageOf(error)}; trust its authority, or use --insecure`);
  if (code === "ERR_SSL_WRONG_VERSION_NUMBER" || code === "EPROTO") return permanent("does not speak TLS; use --plain for plain HTTP");
  if (code === "ENOTFOUND") return permanent("host name is not known; check the reference and the name server");
  if (code === "ECONNREFUSED") return brokenTransfer(url, "connection refused; is the registry running?", { cause: error });
  if (CLOSED.has(code) && url.protocol === "https:") {
    const hint = "the other side closed the connection; it may be busy, or want a client certificate (--client-cert CERT:KEY)";
    return brokenTransfer(url, hint, { cause: error });
  }
  return brokenTransfer(url, `connection failed: ${messageOf(error) || code || "unknown reason"}`, { cause: error });
}

/** A failure to connect to any of several addresses carries the reason one level down. */
function codeOf(error: unknown): string {
  if (typeof error !== "object" || error === null) return "";
  if ("code" in error && typeof error.code === "string") return error.code;
  if (error instanceof AggregateError) return codeOf(error.errors[0]);
  return "cause" in error ? codeOf(error.cause) : "";
}
