import type { ByteSource } from "../bytes/source.ts";
import type { SegmentTable } from "../formats/lsmt/segment-table.ts";
import type { TraceRecorder } from "../formats/trace/trace-recorder.ts";
import type { Device } from "./device.ts";
import { PrefetchLayers } from "./prefetch-layers.ts";
import { WaitingReads } from "./waiting-reads.ts";

/**
 * A device as its user reads it: knows whether a read is waiting, so that what is fetched ahead can stand back, and notes what is
 * read, in the order in which it was asked for. Closing it closes the device.
 */
export class ProgramReads implements ByteSource {
  readonly name: string;
  readonly size: number;
  readonly #device: Device;
  #recorder: TraceRecorder | undefined;
  readonly #layers: PrefetchLayers;
  readonly #waiting = new WaitingReads();

  constructor(device: Device) {
    this.name = device.name;
    this.size = device.size;
    this.#device = device;
    this.#layers = new PrefetchLayers(device);
  }

  /** Where each part of the device is. */
  get segments(): SegmentTable {
    return this.#device.segments;
  }

  /** From now on, `recorder` notes all reads. */
  record(recorder: TraceRecorder): void {
    this.#recorder = recorder;
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    if (this.#recorder !== undefined) this.#note(this.#recorder, offset, length);
    return await this.#waiting.run(async () => await this.#device.read(offset, length));
  }

  /** Resolves when no read is waiting: at once, or at the end of the last one. */
  async idle(): Promise<void> {
    await this.#waiting.idle();
  }

  async close(): Promise<void> {
    await this.#device.close();
  }

  #note(recorder: TraceRecorder, offset: number, length: number): void {
    this.#device.forParts(offset, length, (file, partOffset, partBytes) => recorder.add(this.#layers.layerOf(file), partOffset, partBytes));
  }
}
