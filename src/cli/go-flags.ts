import type { Option } from "commander";
import { LazyError } from "../errors.ts";

const TRUE = new Set(["1", "t", "T", "true", "TRUE", "True"]);
const FALSE = new Set(["0", "f", "F", "false", "FALSE", "False"]);
/** The one that is on by default. */
const MKFS = "mkfs";
/** An empty value of these is a mistake; of any other option it is as good as none. */
const NUMBERS = new Set(["vsize", "concurrency-limit", "retry", "timeout"]);

/**
 * Rewrites arguments as scripts for Go programs write them: `--flag=true` and `--flag=false` into `--flag` and `--no-flag`,
 * `-x=value` into `-x value`. A flag that is off by default simply goes away when it is false, and so does an option whose value is
 * empty, as in `-u "$USER_AND_PASSWORD"` with an empty variable.
 */
export function plainFlags(args: readonly string[], options: readonly Option[]): string[] {
  const plain: string[] = [];
  for (let at = 0; at < args.length; at++) {
    const arg = args[at];
    if (arg === "--") return [...plain, ...args.slice(at)];
    const { name, value } = splitFlag(arg);
    const option = options.find(({ short, long }) => name === short || name === long);
    if (option === undefined) {
      plain.push(...(value === undefined || name.startsWith("--") ? [arg] : [name, value]));
    } else if (!option.required) {
      plain.push(...booleanFlag(name, value));
    } else if (value === undefined && at + 1 === args.length) {
      plain.push(arg);
    } else {
      const given = value ?? args[++at];
      if (given !== "" || NUMBERS.has(nameOf(option))) plain.push(name, given);
    }
  }
  return plain;
}

/** `--name=value`, `-x=value`, or a name alone. */
function splitFlag(arg: string): { name: string; value: string | undefined } {
  const match = /^(--[^=]+|-[A-Za-z])=(.*)$/s.exec(arg);
  return match ? { name: match[1], value: match[2] } : { name: arg, value: undefined };
}

function booleanFlag(name: string, value: string | undefined): string[] {
  if (value === undefined || TRUE.has(value)) return [name];
  if (FALSE.has(value)) return name === `--${MKFS}` ? [`--no-${MKFS}`] : [];
  throw new LazyError("USAGE", `${name}=${value}: expected true or false`);
}

function nameOf({ long, short }: Option): string {
  return (long ?? short ?? "").replace(/^--?/, "");
}
