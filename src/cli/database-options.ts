import { Option, type Command } from "commander";
import { z } from "zod";
import type { ConversionStore } from "../dedup/conversion-store.ts";
import { openConversionStore, STORE_TYPES } from "../dedup/open-store.ts";
import { LazyError } from "../errors.ts";
import type { Environment } from "./environment.ts";

const databaseOptions = z.object({ dbType: z.string().optional(), dbStr: z.string().optional() });

/** `--db-type` and `--db-str`, as all commands that use the conversion database have them. */
export function addDatabaseOptions(command: Command): void {
  command
    .addOption(
      new Option("--db-type <type>", "where conversions are remembered (default: sqlite, in the cache directory)")
        .choices(STORE_TYPES)
        .env("LAZYLAYER_DB_TYPE"),
    )
    .addOption(
      new Option(
        "--db-str <string>",
        "the database: user:password@tcp(host:port)/database for mysql, postgres://user:password@host/database, or a file for sqlite; " +
          "other users of this machine can read arguments, so better set the variable",
      ).env("LAZYLAYER_DB_STR"),
    );
}

/** Whether a database is named as it must be. Whether its string is well-formed is seen when it is opened. */
export function checkDatabaseOptions(command: Command): void {
  const { dbType, dbStr } = databaseOptions.parse(command.opts());
  if (dbStr !== undefined && dbType === undefined) {
    throw new LazyError("USAGE", "--db-str without --db-type: say what kind of database it is, mysql, postgres or sqlite");
  }
  if (dbType === "none" && command.getOptionValueSource("dbStr") === "cli") {
    const isVariable = command.getOptionValueSource("dbType") === "env";
    const type = isVariable ? "LAZYLAYER_DB_TYPE=none" : "--db-type none";
    throw new LazyError(
      "USAGE",
      `--db-str and ${type} contradict each other; say with --db-type what kind of database it is, or leave it out`,
    );
  }
  if (dbStr === undefined && (dbType === "mysql" || dbType === "postgres")) {
    throw new LazyError("USAGE", `--db-type ${dbType} needs --db-str (or LAZYLAYER_DB_STR), which says where the server is`);
  }
}

/** Throws if the command line names a database although there is nothing to remember. What the environment says may stand. */
export function refuseDatabaseOptions(command: Command, why: string): void {
  const given = ["dbType", "dbStr"].find((key) => command.getOptionValueSource(key) === "cli");
  if (given === undefined || command.getOptionValue("dbType") === "none") return;
  throw new LazyError("USAGE", `${given === "dbType" ? "--db-type" : "--db-str"} is of no use here: ${why}; leave it out`);
}

/** The store that the options name, in the user's cache directory if they name none; undefined for `none`. */
export async function openDatabase(options: unknown, environment: Environment, init = false): Promise<ConversionStore | undefined> {
  const { dbType, dbStr } = databaseOptions.parse(options);
  return await openConversionStore({ type: dbType, address: dbStr, directory: environment.cacheDirectory }, { init });
}
