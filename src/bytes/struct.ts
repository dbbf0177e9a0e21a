import { corrupt } from "../errors.ts";

/** How one field is stored; all integers are little-endian. */
export interface FieldType<T> {
  readonly bytes: number;
  get(view: DataView, offset: number): T;
  set(view: DataView, offset: number, value: T): void;
}

export const u8: FieldType<number> = {
  bytes: 1,
  get: (view, at) => view.getUint8(at),
  set: (view, at, value) => view.setUint8(at, value),
};

export const u16: FieldType<number> = {
  bytes: 2,
  get: (view, at) => view.getUint16(at, true),
  set: (view, at, value) => view.setUint16(at, value, true),
};

export const u32: FieldType<number> = {
  bytes: 4,
  get: (view, at) => view.getUint32(at, true),
  set: (view, at, value) => view.setUint32(at, value, true),
};

/** A 64-bit size or count as a number; refused as corrupt from 2^53 on. */
export const u64: FieldType<number> = {
  bytes: 8,
  get: (view, at) => {
    const low = view.getUint32(at, true);
    const high = view.getUint32(at + 4, true);
    // Most are small, and an integer to the engine, not a floating-point number that it has to box.
    if (high === 0) return low;
    const value = low + high * 2 ** 32;
    if (!Number.isSafeInteger(value)) throw corrupt(`u64 at ${at} is ${view.getBigUint64(at, true)}, expected less than 2^53`);
    return value;
  },
  set: (view, at, value) => view.setBigUint64(at, BigInt(value), true),
};

/** Raw bytes of a fixed length. Decoding copies. */
export function raw(length: number): FieldType<Uint8Array> {
  return {
    bytes: length,
    get: (view, at) => new Uint8Array(view.buffer, view.byteOffset + at, length).slice(),
    set: (view, at, value) => {
      if (value.length > length) throw new RangeError(`field holds ${length} bytes, got ${value.length}`);
      new Uint8Array(view.buffer, view.byteOffset + at, length).set(value);
    },
  };
}

/** Text of a fixed length, one byte a character, ended by the first NUL. */
export function text(length: number): FieldType<string> {
  return {
    bytes: length,
    get: (view, at) => {
      const bytes = Buffer.from(view.buffer, view.byteOffset + at, length);
      const end = bytes.indexOf(0);
      return bytes.toString("latin1", 0, end < 0 ? length : end);
    },
    set: (view, at, value) => {
      if (value.length > length) throw new RangeError(`field holds ${length} bytes, got ${value.length}`);
      new Uint8Array(view.buffer, view.byteOffset + at, length).set(Buffer.from(value, "latin1"));
    },
  };
}

type ValueOf<F> = F extends FieldType<infer T> ? T : never;
type Mutable<T> = { -readonly [K in keyof T]: T[K] };

/** The values of a struct's fields. */
export type StructValue<S> = S extends Struct<infer F> ? Values<F> : never;
type Values<F> = Mutable<{ [K in keyof F]: F[K] extends readonly [number, infer T] ? ValueOf<T> : never }>;

/** A packed structure declared as a table `field: [offset, type]`, so that it reads like its format page. */
export class Struct<F extends Record<string, readonly [number, FieldType<unknown>]>> {
  readonly size: number;
  readonly fields: F;

  constructor(size: number, fields: F) {
    this.size = size;
    this.fields = fields;
  }

  decode(bytes: Uint8Array, offset = 0): Values<F> {
    if (offset + this.size > bytes.length)
      throw corrupt(`structure of ${this.size} bytes at ${offset}: only ${bytes.length - offset} left`);
    const view = new DataView(bytes.buffer, bytes.byteOffset + offset, this.size);
    const value: Record<string, unknown> = {};
    for (const name in this.fields) value[name] = this.fields[name][1].get(view, this.fields[name][0]);
    return value as Values<F>;
  }

  /** One field alone: of bytes that may be something else, in which others may have no value. */
  decodeField<K extends keyof F & string>(name: K, bytes: Uint8Array): Values<F>[K] {
    const [at, type] = this.fields[name];
    const view = new DataView(bytes.buffer, bytes.byteOffset, this.size);
    return type.get(view, at) as Values<F>[K];
  }

  /** Writes the given fields; bytes of the others stay as they are. */
  encodeInto(bytes: Uint8Array, value: Partial<Values<F>>, offset = 0): void {
    const view = new DataView(bytes.buffer, bytes.byteOffset + offset, this.size);
    for (const name in value) this.fields[name][1].set(view, this.fields[name][0], value[name]);
  }

  encode(value: Partial<Values<F>>): Uint8Array {
    const bytes = new Uint8Array(this.size);
    this.encodeInto(bytes, value);
    return bytes;
  }
}
