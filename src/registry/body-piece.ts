import { isMarkedAsUntransferable } from "node:worker_threads";

/**
 * Frees a piece of an answer's body, which nobody reads any more, now and not when garbage is collected: until then what lives on would
 * be put behind it (2 MB of an idle device), and V8 would collect garbage for its sake, twenty times in a gigabyte. Not one whose buffer
 * may hold more: what follows in it, or Node's pool, which is marked.
 */
export function giveBack({ buffer, byteOffset, byteLength }: Uint8Array): void {
  if (!(buffer instanceof ArrayBuffer) || isMarkedAsUntransferable(buffer)) return;
  if (byteOffset + byteLength === buffer.byteLength) buffer.transfer(0);
}
