import { corrupt, LazyError } from "../../errors.ts";
import { transmissionFlags, type NbdExport } from "./nbd-export.ts";
import {
  ALLOCATION_CONTEXT,
  ALLOCATION_CONTEXT_ID,
  blockSizeInfo,
  EXPORT_NAME_PADDING_BYTES,
  exportInfo,
  exportNameReply,
  INFOS,
  MAX_NAME_BYTES,
  MAX_PAYLOAD_BYTES,
  number16,
  number32,
  OPTION_REPLIES,
  OPTION_REPLY_MAGIC,
  optionReply,
  OPTIONS,
} from "./protocol.ts";

/** Anything may be asked for; the blocks of images have this size. */
const PREFERRED_BLOCK_BYTES = 4096;

/** What to send for an option, and what comes then: more options, requests, or the end of the connection. */
export interface OptionOutcome {
  readonly replies: readonly Uint8Array[];
  readonly next: "options" | "requests" | "end";
}

/** One client's haggling about options. Pure: nothing is read or written. */
export class Negotiation {
  readonly #served: NbdExport;
  readonly #withoutZeros: boolean;
  #structured = false;
  #allocation = false;

  /** `withoutZeros`: the client does without the padding of EXPORT_NAME's reply. */
  constructor(served: NbdExport, withoutZeros: boolean) {
    this.#served = served;
    this.#withoutZeros = withoutZeros;
  }

  /** Reads are answered in chunks. */
  get structured(): boolean {
    return this.#structured;
  }

  /** The client may ask what is a hole. */
  get allocation(): boolean {
    return this.#allocation;
  }

  /** Answers an option. What is malformed or unknown is refused, and the client may go on. */
  answer(option: number, data: Uint8Array): OptionOutcome {
    try {
      return this.#answer(option, new OptionData(data));
    } catch (error) {
      if (!(error instanceof LazyError)) throw error;
      // This option has no way to say what is wrong.
      if (option === OPTIONS.EXPORT_NAME) return { replies: [], next: "end" };
      return { replies: [reply(option, OPTION_REPLIES.ERR_INVALID, Buffer.from(error.message))], next: "options" };
    }
  }

  #answer(option: number, data: OptionData): OptionOutcome {
    switch (option) {
      case OPTIONS.EXPORT_NAME:
        return this.#exportName(data);
      case OPTIONS.ABORT:
        return { replies: [acknowledge(option)], next: "end" };
      case OPTIONS.LIST:
        data.end();
        return { replies: [reply(option, OPTION_REPLIES.SERVER, text32(this.#served.name)), acknowledge(option)], next: "options" };
      case OPTIONS.INFO:
      case OPTIONS.GO:
        return this.#info(option, data);
      case OPTIONS.STRUCTURED_REPLY:
        data.end();
        this.#structured = true;
        return { replies: [acknowledge(option)], next: "options" };
      case OPTIONS.LIST_META_CONTEXT:
      case OPTIONS.SET_META_CONTEXT:
        return this.#contexts(option, data);
      default:
        return { replies: [reply(option, OPTION_REPLIES.ERR_UNSUP, Buffer.from(`option ${option} is not supported`))], next: "options" };
    }
  }

  #isOurs(name: string): boolean {
    return name === "" || name === this.#served.name;
  }

  #exportName(data: OptionData): OptionOutcome {
    if (!this.#isOurs(data.rest())) return { replies: [], next: "end" };
    const fields = exportNameReply.encode({ size: this.#served.content.size, flags: this.#flags });
    const padding = Buffer.alloc(this.#withoutZeros ? 0 : EXPORT_NAME_PADDING_BYTES);
    return { replies: [fields, padding], next: "requests" };
  }

  #info(option: number, data: OptionData): OptionOutcome {
    const name = data.text();
    const wanted = data.numbers16();
    data.end();
    if (!this.#isOurs(name)) return this.#unknown(option, name);
    const { content } = this.#served;
    const replies = [
      exportInfo.encode({ type: INFOS.EXPORT, size: content.size, flags: this.#flags }),
      blockSizeInfo.encode({ type: INFOS.BLOCK_SIZE, minimum: 1, preferred: PREFERRED_BLOCK_BYTES, maximum: MAX_PAYLOAD_BYTES }),
    ];
    if (wanted.includes(INFOS.NAME)) replies.push(namedInfo(INFOS.NAME, this.#served.name));
    if (wanted.includes(INFOS.DESCRIPTION)) replies.push(namedInfo(INFOS.DESCRIPTION, content.name.slice(0, MAX_NAME_BYTES / 4)));
    return {
      replies: [...replies.map((info) => reply(option, OPTION_REPLIES.INFO, info)), acknowledge(option)],
      next: option === OPTIONS.GO ? "requests" : "options",
    };
  }

  get #flags(): number {
    return transmissionFlags(this.#served, this.#structured);
  }

  #unknown(option: number, name: string): OptionOutcome {
    const message = `there is no export ${JSON.stringify(name)}, only ${JSON.stringify(this.#served.name)}`;
    return { replies: [reply(option, OPTION_REPLIES.ERR_UNKNOWN, Buffer.from(message))], next: "options" };
  }

  #contexts(option: number, data: OptionData): OptionOutcome {
    if (!this.#structured) throw corrupt("metadata contexts need structured replies, which were not asked for");
    const name = data.text();
    const queries = data.texts();
    data.end();
    const isChoice = option === OPTIONS.SET_META_CONTEXT;
    if (isChoice) this.#allocation = false;
    if (!this.#isOurs(name)) return this.#unknown(option, name);
    const matches = queries.includes(ALLOCATION_CONTEXT) || (!isChoice && (queries.length === 0 || queries.includes("base:")));
    const found = matches && this.#served.extentsOf !== undefined;
    if (isChoice) this.#allocation = found;
    if (!found) return { replies: [acknowledge(option)], next: "options" };
    const context = Buffer.concat([number32.encode({ value: isChoice ? ALLOCATION_CONTEXT_ID : 0 }), Buffer.from(ALLOCATION_CONTEXT)]);
    return { replies: [reply(option, OPTION_REPLIES.META_CONTEXT, context), acknowledge(option)], next: "options" };
  }
}

function reply(option: number, type: number, data: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(optionReply.size + data.length);
  optionReply.encodeInto(bytes, { magic: OPTION_REPLY_MAGIC, option, type, length: data.length });
  bytes.set(data, optionReply.size);
  return bytes;
}

function acknowledge(option: number): Uint8Array {
  return reply(option, OPTION_REPLIES.ACK, new Uint8Array(0));
}

function text32(text: string): Uint8Array {
  const bytes = Buffer.from(text);
  return Buffer.concat([number32.encode({ value: bytes.length }), bytes]);
}

function namedInfo(type: number, text: string): Uint8Array {
  return Buffer.concat([number16.encode({ value: type }), Buffer.from(text)]);
}

/** The fields of an option, from front to back. Throws `CORRUPT` where they do not fit. */
class OptionData {
  readonly #bytes: Uint8Array;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  text(): string {
    return this.#string(this.#number32());
  }

  texts(): string[] {
    const count = this.#number32();
    this.#expect(count * number32.size); // each has a length at least
    return Array.from({ length: count }, () => this.text());
  }

  numbers16(): number[] {
    const count = number16.decode(this.#take(number16.size)).value;
    const bytes = this.#take(count * number16.size);
    return Array.from({ length: count }, (_, i) => number16.decode(bytes, i * number16.size).value);
  }

  rest(): string {
    return this.#string(this.#bytes.length - this.#at);
  }

  end(): void {
    const left = this.#bytes.length - this.#at;
    if (left !== 0) throw corrupt(`option has ${left} bytes too many`);
  }

  #string(bytes: number): string {
    if (bytes > MAX_NAME_BYTES) throw corrupt(`text of ${bytes} bytes, expected at most ${MAX_NAME_BYTES}`);
    return Buffer.from(this.#take(bytes)).toString();
  }

  #number32(): number {
    return number32.decode(this.#take(number32.size)).value;
  }

  #take(bytes: number): Uint8Array {
    this.#expect(bytes);
    this.#at += bytes;
    return this.#bytes.subarray(this.#at - bytes, this.#at);
  }

  #expect(bytes: number): void {
    const left = this.#bytes.length - this.#at;
    if (bytes > left) throw corrupt(`option ends early: ${bytes} bytes expected, ${left} left`);
  }
}
