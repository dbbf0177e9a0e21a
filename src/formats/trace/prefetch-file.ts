import { corrupt } from "../../errors.ts";
import { MAX_TRACE_BYTES, type TraceRecord } from "./layout.ts";
import { MAX_LIST_BYTES, parsePrefetchList, type PrefetchPath } from "./prefetch-list.ts";
import { isTrace, parseTrace } from "./trace-reader.ts";

/** What is to be fetched of an image before it is asked for, the first things first. */
export type PrefetchFile =
  | { readonly kind: "trace"; readonly records: readonly TraceRecord[] }
  | { readonly kind: "list"; readonly paths: readonly PrefetchPath[] };

/** No file that can be replayed has more. */
export const MAX_PREFETCH_FILE_BYTES = Math.max(MAX_TRACE_BYTES, MAX_LIST_BYTES);

/** Reads a trace or a list of paths, whichever it is. Throws as their readers do, and `CORRUPT` for an empty file. */
export function parsePrefetchFile(bytes: Uint8Array, name: string): PrefetchFile {
  if (bytes.length === 0) throw corrupt(`${name}: is empty, expected a trace or a list of paths`);
  if (isTrace(bytes)) return { kind: "trace", records: parseTrace(bytes, name) };
  return { kind: "list", paths: parsePrefetchList(bytes, name) };
}
