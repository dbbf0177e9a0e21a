import type { ByteSource } from "../../bytes/source.ts";
import { checkWriteRange } from "../../bytes/writable-file.ts";
import { LazyError } from "../../errors.ts";
import type { LsmtLayer } from "./lsmt-reader.ts";
import type { SegmentMap } from "./segment-map.ts";

/**
 * A layer that is being written, in one of the forms of docs/formats/lsmt.md. Calls for the same place must not overlap; others may.
 * Reading goes through `segments` and `files`, at any time.
 */
export interface WritableLayer {
  readonly name: string;
  /** Size of the device in bytes; 0 where it is left to the layers below. */
  readonly virtualSize: number;
  readonly uuid: string;
  readonly parentUuid: string;
  /** Writes and discards begin at a multiple of this and end at one or at the end of the device. */
  readonly unitBytes: number;
  /** What is mapped; a change shows once its data can be read. */
  readonly segments: SegmentMap;
  /** Where the data is; a segment's tag is the position. */
  readonly files: readonly ByteSource[];
  write(offset: number, bytes: Uint8Array): Promise<void>;
  /** Makes a range read as zeros, over the layers below too. */
  discard(offset: number, length: number): Promise<void>;
  /** Resolves once everything written before the call survives a crash. */
  flush(): Promise<void>;
  /** Changes the size of the device, now and for good. What lay behind a smaller one is undefined after growing again. */
  resize(virtualSize: number): Promise<void>;
  /**
   * Makes the data file a finished layer where it is: flushes, and puts an index and a trailer behind the data. Answers that layer, which
   * has the same open file; it is finished as long as nothing more is written, and nothing may be while it is made. When this fails the
   * layer goes on as before. `UNSUPPORTED` where the form has no such thing.
   */
  seal(): Promise<LsmtLayer>;
  /** Closes what only writing needs, once the layer is sealed, and leaves the data file open. */
  retire(): Promise<void>;
  /** Flushes, then closes the files. */
  close(): Promise<void>;
}

/** Throws `USAGE` for a file that has something in it: a layer is made of empty ones. */
export function checkEmpty({ name, size }: ByteSource): void {
  if (size > 0) throw new LazyError("USAGE", `${name}: has ${size} bytes, expected a new file for an lsmt layer`);
}

/** Throws `USAGE` unless the range is inside of the device and of whole units. */
export function checkUnits(layer: Pick<WritableLayer, "name" | "virtualSize" | "unitBytes">, offset: number, length: number): void {
  const { name, virtualSize, unitBytes } = layer;
  checkWriteRange({ name, size: virtualSize }, offset, length);
  const end = offset + length;
  if (offset % unitBytes !== 0 || (end % unitBytes !== 0 && end !== virtualSize)) {
    throw new LazyError("USAGE", `${name}: write of [${offset}, ${end}), expected whole units of ${unitBytes} bytes`);
  }
}
