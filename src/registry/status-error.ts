import type { ErrorCode } from "../errors.ts";
import { readBody, type HttpResponse } from "./http.ts";
import { redactUrl, RegistryError } from "./registry-error.ts";
import { parseRetryAfter } from "./retry.ts";

const MAX_ERROR_BYTES = 64 << 10;
const PASSING: ReadonlySet<number> = new Set([408, 425, 429]);

/** What an unexpected status means. Reads the body for the registry's own words. `what` starts the message. */
export async function statusError(response: HttpResponse, what: string): Promise<RegistryError> {
  const { status } = response;
  const said = await readReason(response);
  const details = {
    status,
    url: redactUrl(response.url),
    retryAfterMs: parseRetryAfter(response.header("retry-after"), response.header("date")),
    retryable: PASSING.has(status) || (status >= 500 && status !== 501),
  };
  return new RegistryError(codeFor(status, said), `${what}: ${status}${said && ` ${said}`}${hintFor(status)}`, details);
}

function codeFor(status: number, said: string): ErrorCode {
  if (status === 401 || status === 403) return "DENIED";
  if (status === 404) return "NOT_FOUND";
  if (status === 416) return "CORRUPT";
  if (status === 400 && /^(?:DIGEST|SIZE|MANIFEST)_INVALID/.test(said)) return "CORRUPT";
  if ([400, 405, 413, 415, 501].includes(status)) return "UNSUPPORTED";
  return "UNAVAILABLE";
}

function hintFor(status: number): string {
  if (status === 401) return "; log in: give -u USER:PASSWORD, or run docker login";
  if (status === 403) return "; these credentials are not allowed to do this";
  if (status === 404) return "; check the name, and whether it needs a login";
  if (status === 416) return "; the content is shorter than its descriptor says";
  if (status === 429) return "; the registry limits the rate of requests, try again later";
  return "";
}

/** Servers repeat what they were asked with: addresses with their signatures, headers with their tokens. */
function withoutSecrets(text: string): string {
  return text.replace(/\?[^\s"'<>]*=[^\s"'<>]*/g, "?…").replace(/\b(Bearer|Basic)\s+[\w.~+/=-]+/gi, "$1 …");
}

/** `CODE: message` of the first error in a registry's answer, as printable text; empty if there is none. */
async function readReason(response: HttpResponse): Promise<string> {
  let text: string;
  try {
    text = Buffer.from(await readBody(response, MAX_ERROR_BYTES)).toString();
  } catch {
    return ""; // The status is the error to report, with or without the words that came with it.
  }
  const code = /"code"\s*:\s*"([A-Za-z0-9_ -]{1,64})"/.exec(text)?.[1] ?? "";
  const message = /"message"\s*:\s*"((?:[^"\\]|\\.){1,200})/.exec(text)?.[1] ?? "";
  return [code, withoutSecrets(message.replace(/[^\x20-\x7e]/g, "?"))].filter(Boolean).join(": ");
}
