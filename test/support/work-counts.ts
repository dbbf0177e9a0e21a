import { Hash } from "node:crypto";
import { getEnvironmentData, MessagePort, setEnvironmentData } from "node:worker_threads";

/** What a program does that does not depend on how fast the machine is. */
export interface Work {
  readonly bytesHashed: number;
  /** By `set`, `copy` and `concat`; not by system calls, nor by kernels. */
  readonly bytesCopied: number;
  /** In buffers of 64 KiB or more. */
  readonly bytesAllocated: number;
  /** From thread to thread. */
  readonly messages: number;
}

const NAMES = ["bytesHashed", "bytesCopied", "bytesAllocated", "messages"] as const;
const KEY = "work counts";
const LARGE_BYTES = 64 << 10;

/** Counts what this thread does, and what threads do that are started later and call `countInThread`. Gives what was done so far. */
export function countWork(): () => Work {
  const counts = new BigInt64Array(new SharedArrayBuffer(NAMES.length * 8));
  setEnvironmentData(KEY, counts.buffer);
  countInto(counts);
  return () => {
    const [bytesHashed, bytesCopied, bytesAllocated, messages] = Array.from(counts, Number);
    return { bytesHashed, bytesCopied, bytesAllocated, messages };
  };
}

export function countInThread(): void {
  countInto(new BigInt64Array(getEnvironmentData(KEY) as SharedArrayBuffer));
}

function countInto(counts: BigInt64Array): void {
  const add = (name: (typeof NAMES)[number], amount: number): void => void Atomics.add(counts, NAMES.indexOf(name), BigInt(amount));
  const allocated = (bytes: unknown): void => {
    if (typeof bytes === "number" && bytes >= LARGE_BYTES) add("bytesAllocated", bytes);
  };
  before(Hash.prototype, "update", ([data]) => add("bytesHashed", lengthOf(data)));
  before(Object.getPrototypeOf(Uint8Array.prototype) as object, "set", ([source]) => add("bytesCopied", lengthOf(source)));
  before(Buffer.prototype as Buffer, "copy", (_, buffer) => add("bytesCopied", lengthOf(buffer)));
  before(Buffer, "concat", ([list]) => {
    const bytes = (list as Uint8Array[]).reduce((sum, { length }) => sum + length, 0);
    add("bytesCopied", bytes);
    allocated(bytes);
  });
  for (const allocate of ["alloc", "allocUnsafe", "allocUnsafeSlow"] as const) before(Buffer, allocate, ([bytes]) => allocated(bytes));
  for (const name of ["ArrayBuffer", "Uint8Array", "Uint32Array", "Float64Array"] as const) {
    const bytesEach = name === "ArrayBuffer" ? 1 : globalThis[name].BYTES_PER_ELEMENT;
    const counting: ProxyHandler<typeof ArrayBuffer> = {
      construct: (target, args, newTarget) => {
        if (typeof args[0] === "number") allocated(args[0] * bytesEach);
        return Reflect.construct(target, args, newTarget) as object;
      },
    };
    Reflect.set(globalThis, name, new Proxy(globalThis[name] as typeof ArrayBuffer, counting));
  }
  // A worker's own goes by way of a port.
  before(MessagePort.prototype, "postMessage", () => add("messages", 1));
}

function lengthOf(data: unknown): number {
  if (typeof data === "string") return Buffer.byteLength(data);
  return ArrayBuffer.isView(data) ? data.byteLength : 0;
}

/** Has `note` see the arguments of every call of a method. */
function before(target: object, method: string, note: (args: readonly unknown[], self: unknown) => void): void {
  const replaced: unknown = Reflect.get(target, method);
  if (typeof replaced !== "function") throw new Error(`nothing to count: no method ${method}`);
  const counting = function (this: unknown, ...args: unknown[]): unknown {
    note(args, this);
    return Reflect.apply(replaced, this, args);
  };
  Reflect.defineProperty(target, method, { value: counting, configurable: true, writable: true });
}
