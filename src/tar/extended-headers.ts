import { corrupt, unsupported } from "../errors.ts";
import type { ByteString } from "../tree/entry.ts";
import { checkGlobalRecords, NO_RECORDS, parsePaxRecords, type PaxRecords } from "./pax.ts";

const NO_BODY = Buffer.alloc(0);
const MAX_BODY_BYTES = 1024 * 1024;

/** Names that come in members of their own because they do not fit into a header block. */
export interface LongNames {
  readonly path: ByteString | undefined;
  readonly link: ByteString | undefined;
}

/** What extended headers say about the next member. */
export interface Extensions {
  readonly records: PaxRecords;
  readonly long: LongNames;
}

const NO_LONG_NAMES: LongNames = { path: undefined, link: undefined };
const NO_EXTENSIONS: Extensions = { records: NO_RECORDS, long: NO_LONG_NAMES };

/** PAX headers (`x` for the next member, `g` for all that follow) and GNU long names (`L`) and link targets (`K`). */
export class ExtendedHeaders {
  #global: PaxRecords = NO_RECORDS;
  #local: PaxRecords | undefined;
  #long: LongNames = NO_LONG_NAMES;
  #type = "";
  #body: Buffer = NO_BODY;
  #filled = 0;

  static isExtension(typeflag: string): boolean {
    return typeflag === "x" || typeflag === "g" || typeflag === "L" || typeflag === "K";
  }

  /** Whether something was said about a member that has not come yet. */
  get isPending(): boolean {
    return this.#local !== undefined || this.#long !== NO_LONG_NAMES;
  }

  begin(typeflag: string, bodyBytes: number): void {
    if (bodyBytes < 0) throw corrupt(`extended header of type ${typeflag} has a size of ${bodyBytes}`);
    if (bodyBytes > MAX_BODY_BYTES) {
      throw unsupported(`extended header of type ${typeflag} is ${bodyBytes} bytes long, at most ${MAX_BODY_BYTES} are read`);
    }
    this.#type = typeflag;
    this.#body = Buffer.allocUnsafe(bodyBytes);
    this.#filled = 0;
  }

  get bodyBytesLeft(): number {
    return this.#body.length - this.#filled;
  }

  /** Takes as much of the body as is there; returns how many bytes that were. */
  addBody(bytes: Buffer, at: number): number {
    const taken = bytes.copy(this.#body, this.#filled, at);
    this.#filled += taken;
    return taken;
  }

  endBody(): void {
    const body = this.#body;
    this.#body = NO_BODY;
    this.#filled = 0;
    if (this.#type === "g") {
      this.#global = parsePaxRecords(body, this.#global);
      checkGlobalRecords(this.#global);
    } else if (this.#type === "x") {
      this.#local = parsePaxRecords(body, this.#local ?? this.#global);
    } else {
      const name = textBefore(body);
      this.#long = this.#type === "L" ? { path: name, link: this.#long.link } : { path: this.#long.path, link: name };
    }
  }

  /** What has been said about the member that comes now. The next one starts afresh. */
  take(): Extensions {
    if (!this.isPending && this.#global.size === 0) return NO_EXTENSIONS;
    const extensions = { records: this.#local ?? this.#global, long: this.#long };
    this.#local = undefined;
    this.#long = NO_LONG_NAMES;
    return extensions;
  }
}

function textBefore(body: Buffer): ByteString {
  const end = body.indexOf(0);
  return body.toString("latin1", 0, end < 0 ? body.length : end);
}
