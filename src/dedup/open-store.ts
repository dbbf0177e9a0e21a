import { join } from "node:path";
import { LazyError } from "../errors.ts";
import type { ConversionStore } from "./conversion-store.ts";

export const STORE_TYPES = ["none", "sqlite", "mysql", "postgres"] as const;
export type StoreType = (typeof STORE_TYPES)[number];

export interface StoreChoice {
  /** `--db-type`; the SQLite file in `directory` if it is not given. */
  readonly type?: string | undefined;
  /** `--db-str`: a DSN of the Go driver for MySQL, a connection string of libpq, or the path of a SQLite file. */
  readonly address?: string | undefined;
  /** Where the SQLite file is when `address` does not say. */
  readonly directory: string;
}

export interface OpenStoreOptions {
  /** Make the tables if they are missing. A SQLite file always has them. */
  readonly init?: boolean | undefined;
}

const FILE_NAME = "conversions.sqlite";

/**
 * Opens what the user chose; undefined for `none`. Drivers are loaded when they are needed, and servers are connected to at once.
 * Errors: `USAGE` for a choice that makes no sense, and those of `ConversionStore`. None quotes `address`: it may hold a password.
 */
export async function openConversionStore(choice: StoreChoice, options: OpenStoreOptions = {}): Promise<ConversionStore | undefined> {
  const { address, directory } = choice;
  const type = parseStoreType(choice);
  if (type === "none") return undefined;
  if (type === "sqlite") {
    const { openSqliteDatabase } = await import("./sqlite-database.ts");
    const { ConversionTable } = await import("./conversion-table.ts");
    return new ConversionTable(await openSqliteDatabase(address ?? join(directory, FILE_NAME)));
  }
  if (address === undefined) throw new LazyError("USAGE", `--db-type ${type} needs --db-str, which says where the server is`);
  if (type === "mysql") {
    const { parseMysqlDsn } = await import("./mysql-dsn.ts");
    const parsed = parseMysqlDsn(address);
    const { openMysqlDatabase } = await import("./mysql-database.ts");
    const { SharedStore } = await import("./shared-store.ts");
    return new SharedStore(await openMysqlDatabase(parsed, { init: options.init ?? false }));
  }
  const { parsePostgresAddress } = await import("./postgres-address.ts");
  const parsed = parsePostgresAddress(address);
  const { openPostgresDatabase } = await import("./postgres-database.ts");
  const { ConversionTable } = await import("./conversion-table.ts");
  return new ConversionTable(await openPostgresDatabase(parsed, { init: options.init ?? false }));
}

function parseStoreType({ type, address }: StoreChoice): StoreType {
  const known = STORE_TYPES.find((name) => name === (type ?? "sqlite"));
  if (known === undefined) {
    throw new LazyError("USAGE", `--db-type ${JSON.stringify(type?.slice(0, 40))}, expected one of ${STORE_TYPES.join(", ")}`);
  }
  if (address !== undefined && type === undefined) {
    throw new LazyError("USAGE", "--db-str without --db-type: say what kind of database it is, mysql, postgres or sqlite");
  }
  if (address === "" && known !== "none") throw new LazyError("USAGE", "--db-str is empty");
  return known;
}
