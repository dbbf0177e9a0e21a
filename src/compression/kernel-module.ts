/** Of WebAssembly's interface, which the types of Node leave to the browser's. */
declare const WebAssembly: {
  readonly Module: new (bytes: Uint8Array) => object;
  readonly Instance: new (module: object) => { readonly exports: unknown };
};

/** A number that a kernel exports: in `value`, which follows the kernel. */
export interface KernelNumber {
  value: number;
}

/** A kernel as `kernels/` has it; compiled with its first instance, once a thread. */
export class KernelModule {
  readonly #base64: string;
  #module: object | undefined;

  constructor(base64: string) {
    this.#base64 = base64;
  }

  /** The exports of a new instance, which has a memory of its own. */
  instantiate(): unknown {
    this.#module ??= new WebAssembly.Module(Buffer.from(this.#base64, "base64"));
    return new WebAssembly.Instance(this.#module).exports;
  }
}
