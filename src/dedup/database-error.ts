import { LazyError, messageOf } from "../errors.ts";

const CERTIFICATE = /CERT|SIGNED|UNABLE_TO_|ERR_TLS_|ERR_SSL_|HANDSHAKE_SSL_ERROR/;
const NO_TLS = /does not support (?:secure connection|SSL)/i;

/** A server that was not reached, or whose connection broke. `code` is the system's or the driver's, or empty. */
export function unreachable(name: string, code: string, cause: unknown): LazyError {
  // With several addresses of a host, the reasons are in a list and the message is empty.
  const inner: unknown = cause instanceof AggregateError ? cause.errors[0] : undefined;
  const why = messageOf(inner ?? cause) || code;
  if (NO_TLS.test(why))
    return new LazyError("UNAVAILABLE", `${name}: the server has no TLS; set it up, or turn TLS off in --db-str`, { cause });
  if (CERTIFICATE.test(code)) {
    return new LazyError("UNAVAILABLE", `${name}: TLS certificate not accepted: ${why}; trust its authority`, { cause });
  }
  return new LazyError("UNAVAILABLE", `${name}: cannot be reached: ${why}`, { cause });
}

export function tablesMissing(name: string, cause: unknown): LazyError {
  return new LazyError("NOT_FOUND", `${name}: ${messageOf(cause)}; make the tables: lazylayer db init`, { cause });
}

/** What `work` comes to, or an error after a while; `late` is told then and looks after what is left of it. */
export async function within<T>(milliseconds: number, work: Promise<T>, late: () => void): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const expired = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => {
      late();
      reject(new Error(`no answer in ${milliseconds / 1000} s`));
    }, milliseconds);
  });
  try {
    return await Promise.race([work, expired]);
  } finally {
    clearTimeout(timer);
  }
}
