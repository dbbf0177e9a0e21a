import { LazyError } from "../../errors.ts";

/** The block size that `--bs` says, in bytes. */
export function blockBytes(kibibytes: number): number {
  if (kibibytes >= 4 && kibibytes <= 64 && Number.isInteger(Math.log2(kibibytes))) return kibibytes * 1024;
  throw new LazyError("USAGE", `invalid '--bs' parameters. ${kibibytes} KiB is not a power of two from 4 to 64`);
}
