import { LazyError } from "../errors.ts";

const TRUE = new Set(["1", "t", "T", "true", "TRUE", "True"]);
const FALSE = new Set(["0", "f", "F", "false", "FALSE", "False"]);

/**
 * Rewrites `--flag=true` and `--flag=false`, as scripts for Go programs write them, into `--flag` and `--no-flag`, and
 * `-x=value` into `-x value`. A flag that is off by default simply goes away; `mkfs` is the one that is on.
 */
export function plainFlags(args: readonly string[], flags: readonly string[]): string[] {
  const onByDefault = "mkfs";
  return args.flatMap((arg) => {
    const short = /^-([A-Za-z])=(.*)$/s.exec(arg);
    if (short) return [`-${short[1]}`, short[2] ?? ""];
    const match = /^--([a-z-]+)=(.*)$/s.exec(arg);
    const [flag, value] = [match?.[1] ?? "", match?.[2] ?? ""];
    if (!flags.includes(flag)) return [arg];
    if (TRUE.has(value)) return [`--${flag}`];
    if (FALSE.has(value)) return flag === onByDefault ? [`--no-${flag}`] : [];
    throw new LazyError("USAGE", `--${flag}=${value}: expected true or false`);
  });
}
