import { corrupt } from "../errors.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import { DigestHash } from "../oci/digest.ts";
import { giveBack } from "./body-piece.ts";
import type { RegistryCall, RegistryClient } from "./client.ts";
import type { HttpResponse } from "./http.ts";
import { checkRangeAnswer, rangeHeader, type ByteRange } from "./ranges.ts";
import { brokenTransfer, redactUrl } from "./registry-error.ts";

/** A connection that brought this much was worth having; failures before it do not count any more. */
const PROGRESS_BYTES = 256 << 10;

/**
 * A blob front to back, resumed after broken transfers, checked against its descriptor at the end. A piece is freed when the next one is
 * asked for.
 */
export async function* streamBlob(
  client: RegistryClient,
  call: Omit<RegistryCall, "expect">,
  descriptor: Descriptor,
): AsyncGenerator<Uint8Array> {
  const { digest, size } = descriptor;
  const hash = new DigestHash();
  let done = 0;
  let failures = 0;
  let lastFailureAt = 0;
  while (done < size) {
    try {
      for await (const chunk of readFrom(client, call, done, size)) {
        done += chunk.length;
        hash.update(chunk);
        yield chunk;
        giveBack(chunk);
      }
    } catch (error) {
      failures = done - lastFailureAt >= PROGRESS_BYTES ? 1 : failures + 1;
      lastFailureAt = done;
      await client.backoff.pauseOrThrow(error, failures, call);
    }
  }
  const found = hash.digest();
  if (found !== digest) throw corrupt(`${call.what}: content has digest ${found}, expected ${digest}`);
}

/** The rest of the blob from `start`, exactly. */
async function* readFrom(
  client: RegistryClient,
  call: Omit<RegistryCall, "expect">,
  start: number,
  size: number,
): AsyncGenerator<Uint8Array> {
  const range = { first: start, last: size - 1 };
  const headers = start === 0 ? call.headers : { ...call.headers, range: rangeHeader(range) };
  const response = await client.open({ ...call, ...(headers && { headers }), expect: start === 0 ? [200] : [200, 206] });
  await checkStart(response, range, size);
  let done = start;
  for await (const chunk of response.body) {
    done += chunk.length;
    if (done > size) throw corrupt(`${call.what}: content is longer than the ${size} bytes of its descriptor`);
    yield chunk;
  }
  if (done < size) throw brokenTransfer(response.url, `body ends after ${done} of ${size} bytes`);
}

async function checkStart(response: HttpResponse, range: ByteRange, size: number): Promise<void> {
  try {
    if (range.first > 0) return checkRangeAnswer(response, range, size);
    const stated = response.header("content-length");
    if (stated !== undefined && Number(stated) !== size) {
      throw corrupt(`${redactUrl(response.url)}: content is ${stated} bytes, its descriptor says ${size}`);
    }
  } catch (error) {
    await response.discard();
    throw error;
  }
}
