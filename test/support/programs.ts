import { join } from "node:path";
import { execute, type CommandOptions, type CommandResult } from "./command.ts";

const BIN = join(import.meta.dirname, "../../bin");

/** A program under test, as a user calls it. */
export const LAZYLAYER = join(BIN, "lazylayer");
export const CONVERTOR = join(BIN, "convertor");

/** Nothing of whoever runs the tests: no stored credentials, no proxies, no conversion database. */
export const CLEAN_ENVIRONMENT = {
  DOCKER_CONFIG: "/nonexistent",
  REGISTRY_AUTH_FILE: "",
  XDG_CONFIG_HOME: "/nonexistent",
  XDG_RUNTIME_DIR: "",
  LAZYLAYER_DB_TYPE: "none",
};

export async function lazylayer(args: readonly string[], options: CommandOptions = {}): Promise<CommandResult> {
  return await execute(LAZYLAYER, args, { ...options, env: { ...CLEAN_ENVIRONMENT, ...options.env } });
}

export async function convertor(args: readonly string[], options: CommandOptions = {}): Promise<CommandResult> {
  return await execute(CONVERTOR, args, { ...options, env: { ...CLEAN_ENVIRONMENT, ...options.env } });
}
