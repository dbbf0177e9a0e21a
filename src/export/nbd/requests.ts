import { writableOf, type NbdExport } from "./nbd-export.ts";
import { COMMAND_FLAGS, COMMANDS, ERRNO, MAX_PAYLOAD_BYTES, REQUEST_MAGIC, requestHeader } from "./protocol.ts";

/** What a client has agreed on with the server. */
export interface Agreement {
  readonly structured: boolean;
  readonly allocation: boolean;
}

interface Range {
  readonly cookie: bigint;
  readonly offset: number;
  readonly length: number;
}

/** A request that can be carried out as it stands. */
export type Request =
  | (Range & { readonly kind: "read" })
  /** Its data follows. */
  | (Range & { readonly kind: "write"; readonly flush: boolean })
  | (Range & { readonly kind: "trim"; readonly flush: boolean })
  | (Range & { readonly kind: "zero"; readonly flush: boolean; readonly mayDiscard: boolean })
  | (Range & { readonly kind: "extents"; readonly onlyOne: boolean })
  | { readonly kind: "flush"; readonly cookie: bigint };

export type ParsedRequest =
  | { readonly kind: "request"; readonly request: Request }
  /** To be answered with an error, after so many bytes of data that nobody wants. */
  | { readonly kind: "refused"; readonly cookie: bigint; readonly errno: number; readonly payloadBytes: number }
  /** The client says goodbye. */
  | { readonly kind: "disconnect" }
  /** What follows cannot be told from requests: there is no going on. */
  | { readonly kind: "broken"; readonly why: string };

const MODIFYING: ReadonlySet<number> = new Set([COMMANDS.WRITE, COMMANDS.TRIM, COMMANDS.WRITE_ZEROES]);

/** Flags that each command may have. */
const KNOWN_FLAGS: ReadonlyMap<number, number> = new Map([
  [COMMANDS.READ, COMMAND_FLAGS.FUA | COMMAND_FLAGS.DF],
  [COMMANDS.WRITE, COMMAND_FLAGS.FUA],
  [COMMANDS.FLUSH, COMMAND_FLAGS.FUA],
  [COMMANDS.TRIM, COMMAND_FLAGS.FUA],
  [COMMANDS.WRITE_ZEROES, COMMAND_FLAGS.FUA | COMMAND_FLAGS.NO_HOLE | COMMAND_FLAGS.FAST_ZERO],
  [COMMANDS.BLOCK_STATUS, COMMAND_FLAGS.FUA | COMMAND_FLAGS.REQ_ONE],
]);

/** Makes sense of a request's 28 bytes, or says why there is none in them. Pure. */
export function parseRequest(bytes: Uint8Array, served: NbdExport, agreement: Agreement): ParsedRequest {
  const { magic, flags, command, cookie, offset, length } = requestHeader.decode(bytes);
  if (magic !== REQUEST_MAGIC) return { kind: "broken", why: `request begins with 0x${magic.toString(16)}, expected 0x25609513` };
  if (command === COMMANDS.DISC) return { kind: "disconnect" };
  const payloadBytes = command === COMMANDS.WRITE ? length : 0;
  if (payloadBytes > MAX_PAYLOAD_BYTES) {
    return { kind: "broken", why: `write of ${payloadBytes} bytes, expected at most ${MAX_PAYLOAD_BYTES}` };
  }
  const errno = refusal(flags, command, offset, length, served, agreement);
  if (errno !== 0) return { kind: "refused", cookie, errno, payloadBytes };
  return { kind: "request", request: requestOf(flags, command, { cookie, offset, length }) };
}

/** The error that the request deserves, 0 for none. */
function refusal(flags: number, command: number, offset: number, length: number, served: NbdExport, agreement: Agreement): number {
  const known = KNOWN_FLAGS.get(command);
  if (known === undefined || flags & ~known) return ERRNO.INVAL;
  if (flags & COMMAND_FLAGS.DF && !agreement.structured) return ERRNO.INVAL;
  if (command === COMMANDS.BLOCK_STATUS && !agreement.allocation) return ERRNO.INVAL;
  if (MODIFYING.has(command) && writableOf(served) === undefined) return ERRNO.PERM;
  // Only what is discarded becomes zero faster than by writing.
  if (flags & COMMAND_FLAGS.FAST_ZERO && flags & COMMAND_FLAGS.NO_HOLE) return ERRNO.NOTSUP;
  if (command === COMMANDS.FLUSH) return 0;
  return rangeRefusal(command, offset, length, served);
}

function rangeRefusal(command: number, offset: number, length: number, { content }: NbdExport): number {
  const grows = command === COMMANDS.WRITE || command === COMMANDS.WRITE_ZEROES;
  if (offset + length > content.size) return grows ? ERRNO.NOSPC : ERRNO.INVAL;
  if (command === COMMANDS.READ && length > MAX_PAYLOAD_BYTES) return ERRNO.INVAL;
  return command === COMMANDS.BLOCK_STATUS && length === 0 ? ERRNO.INVAL : 0;
}

function requestOf(flags: number, command: number, range: Range): Request {
  const flush = (flags & COMMAND_FLAGS.FUA) !== 0;
  switch (command) {
    case COMMANDS.READ:
      return { kind: "read", ...range };
    case COMMANDS.WRITE:
      return { kind: "write", flush, ...range };
    case COMMANDS.TRIM:
      return { kind: "trim", flush, ...range };
    case COMMANDS.WRITE_ZEROES:
      return { kind: "zero", flush, mayDiscard: (flags & COMMAND_FLAGS.NO_HOLE) === 0, ...range };
    case COMMANDS.BLOCK_STATUS:
      return { kind: "extents", onlyOne: (flags & COMMAND_FLAGS.REQ_ONE) !== 0, ...range };
    default:
      return { kind: "flush", cookie: range.cookie };
  }
}
