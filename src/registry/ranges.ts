import { corrupt } from "../errors.ts";
import { giveBack } from "./body-piece.ts";
import { parseContentRange } from "./content-range.ts";
import type { HttpResponse } from "./http.ts";
import { brokenTransfer, redactUrl, RegistryError } from "./registry-error.ts";

export interface ByteRange {
  readonly first: number;
  /** Inclusive. */
  readonly last: number;
}

export function rangeHeader({ first, last }: ByteRange): string {
  return `bytes=${first}-${last}`;
}

/**
 * Checks that a 206 holds exactly the range that was asked for, of a blob of `size` bytes. A 200 is the whole blob and no range:
 * taking its start for the range would give bytes of the wrong place.
 */
export function checkRangeAnswer(response: HttpResponse, range: ByteRange, size: number): void {
  if (response.status !== 206) {
    const url = redactUrl(response.url);
    const what = `asked for ${rangeHeader(range)}, got a ${response.status} with the whole blob; the server or a proxy before it ignores ranges`;
    throw new RegistryError("UNAVAILABLE", `${url}: ${what}`, { status: response.status, url, retryable: false });
  }
  const stated = response.header("content-range");
  const got = parseContentRange(stated);
  if (!got || got.first !== range.first || got.last !== range.last) {
    throw brokenTransfer(response.url, `asked for ${rangeHeader(range)}, got Content-Range ${JSON.stringify(stated)}`);
  }
  if (got.total !== undefined && got.total !== size) {
    throw corrupt(`${redactUrl(response.url)}: blob is ${got.total} bytes, its descriptor says ${size}`);
  }
}

/** The bytes of a range answer, all of them. */
export async function readRangeAnswer(response: HttpResponse, range: ByteRange, size: number): Promise<Uint8Array> {
  const length = range.last - range.first + 1;
  const isWhole = response.status === 200 && range.first === 0 && length === size;
  try {
    if (!isWhole) checkRangeAnswer(response, range, size);
    const bytes = Buffer.allocUnsafeSlow(length);
    let at = 0;
    for await (const chunk of response.body) {
      if (at + chunk.length > length) throw corrupt(`${redactUrl(response.url)}: body is longer than the ${length} bytes expected`);
      bytes.set(chunk, at);
      at += chunk.length;
      giveBack(chunk);
    }
    if (at < length) throw brokenTransfer(response.url, `body ends after ${at} of ${length} bytes`);
    return bytes;
  } catch (error) {
    await response.discard();
    throw error;
  }
}
