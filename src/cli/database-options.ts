import { Option, type Command } from "commander";
import { z } from "zod";
import type { ConversionStore } from "../dedup/conversion-store.ts";
import { openConversionStore, STORE_TYPES } from "../dedup/open-store.ts";
import type { Environment } from "./environment.ts";

const databaseOptions = z.object({ dbType: z.string().optional(), dbStr: z.string().optional() });

/** `--db-type` and `--db-str`, as all commands that use the conversion database have them. */
export function addDatabaseOptions(command: Command): void {
  command
    .addOption(
      new Option("--db-type <type>", "where conversions are remembered (default: sqlite, in the cache directory)").choices(STORE_TYPES),
    )
    .addOption(
      new Option(
        "--db-str <string>",
        "the database: user:password@tcp(host:port)/database for mysql, postgres://user:password@host/database, or a file for sqlite; " +
          "other users of this machine can read arguments, so better set the variable",
      ).env("LAZYLAYER_DB_STR"),
    );
}

/** The store that the options name, in the user's cache directory if they name none; undefined for `none`. */
export async function openDatabase(options: unknown, environment: Environment, init = false): Promise<ConversionStore | undefined> {
  const { dbType, dbStr } = databaseOptions.parse(options);
  return await openConversionStore({ type: dbType, address: dbStr, directory: environment.cacheDirectory }, { init });
}
