import type * as Http from "node:http";
import type * as Https from "node:https";
import type * as Tls from "node:tls";

/**
 * Node's HTTP, without its ESM face: that reads every export, one of which loads a second HTTP client, for 13 MB and 80 ms in each
 * process of a device.
 */
export const http: typeof Http = process.getBuiltinModule("node:http");

/** Loaded with the first address that needs it. */
export function https(): typeof Https {
  return process.getBuiltinModule("node:https");
}

/** The same. */
export function tls(): typeof Tls {
  return process.getBuiltinModule("node:tls");
}
