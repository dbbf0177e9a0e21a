import type { Pool, PoolConnection, ResultSetHeader, RowDataPacket } from "mysql2/promise";
import { LazyError, messageOf } from "../errors.ts";
import { CONVERSION_INDEX, CONVERSION_TABLE, conversionTableStatement } from "./conversion-table.ts";
import { CONVERTOR_TABLE_STATEMENTS } from "./convertor-tables.ts";
import { tablesMissing, unreachable, within } from "./database-error.ts";
import type { MysqlAddress } from "./mysql-dsn.ts";
import type { SqlDatabase, SqlRow, SqlValue } from "./sql-database.ts";

const CONNECTIONS = 2;
const CLOSE_TIMEOUT_MS = 1000;
/** A value that does not fit is an error, whatever the server's default. */
const SESSION_MODE = "set session sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION'";
const TABLES = [
  ...CONVERTOR_TABLE_STATEMENTS,
  conversionTableStatement({
    text: "varchar(255) character set ascii collate ascii_bin",
    integer: "bigint",
    more: `key ${CONVERSION_INDEX.name} (${CONVERSION_INDEX.columns})`,
    options: "engine=InnoDB",
  }),
];
const CHECKS = ["overlaybd_layers", "overlaybd_manifests", CONVERSION_TABLE].map((table) => `select 1 from ${table} limit 1`);

/** Server error numbers, from the list of server errors in MySQL's and MariaDB's manuals. */
const ERROR = {
  duplicateKey: 1062,
  unknownDatabase: 1049,
  noSuchTable: 1146,
  deadlock: 1213,
  unknownColumn: 1054,
  dataTooLong: 1406,
  unknownVariable: 1193,
  wrongValueForVariable: 1231,
  wrongTypeForVariable: 1232,
};
const DENIED = new Set([1044, 1045, 1142, 1143, 1227, 1251, 1275, 1698]);

/** Connects and finds the tables, or makes them. */
export async function openMysqlDatabase(address: MysqlAddress, options: { readonly init?: boolean } = {}): Promise<SqlDatabase> {
  const { createPool } = await import("mysql2/promise");
  const { endpoint, tls } = address;
  const pool = createPool({
    ...("socketPath" in endpoint ? { socketPath: endpoint.socketPath } : { host: endpoint.host, port: endpoint.port }),
    user: address.user,
    password: address.password,
    database: address.database,
    connectTimeout: address.connectTimeoutMs,
    connectionLimit: CONNECTIONS,
    supportBigNumbers: true,
    // A server must not ask for this machine's files.
    flags: ["-LOCAL_FILES"],
    ...(tls !== "off" && { ssl: { rejectUnauthorized: tls === "verify", verifyIdentity: tls === "verify" } }),
  });
  const database = new MysqlDatabase(pool, address);
  try {
    if (options.init === true) for (const statement of TABLES) await database.change(statement, []);
    for (const statement of CHECKS) await database.select(statement, []);
    return database;
  } catch (error) {
    await database.close();
    throw error;
  }
}

class MysqlDatabase implements SqlDatabase {
  readonly name: string;
  readonly #pool: Pool;
  readonly #address: MysqlAddress;
  readonly #prepared = new WeakSet<object>();
  readonly #open = new Set<PoolConnection["connection"]>();
  #closing: Promise<void> | undefined;

  constructor(pool: Pool, address: MysqlAddress) {
    const { endpoint, database } = address;
    this.name = `MySQL at ${"socketPath" in endpoint ? endpoint.socketPath : `${endpoint.host}:${endpoint.port}`}, database ${database}`;
    this.#pool = pool;
    this.#address = address;
  }

  async select(sql: string, values: readonly SqlValue[]): Promise<readonly SqlRow[]> {
    return await this.#use(async (connection) => {
      const [rows] = await connection.execute<RowDataPacket[]>(sql, [...values]);
      return rows;
    });
  }

  async insert(sql: string, values: readonly SqlValue[]): Promise<boolean> {
    try {
      return (await this.change(sql, values)) > 0;
    } catch (error) {
      if (error instanceof LazyError && errorNumber(error.cause) === ERROR.duplicateKey) return false;
      throw error;
    }
  }

  async change(sql: string, values: readonly SqlValue[]): Promise<number> {
    return await this.#use(async (connection) => {
      const [result] = await connection.execute<ResultSetHeader>(sql, [...values]);
      return result.affectedRows;
    });
  }

  async #use<T>(run: (connection: PoolConnection) => Promise<T>): Promise<T> {
    for (let tries = 1; ; tries++) {
      try {
        return await this.#useOnce(run);
      } catch (error) {
        // An idle connection may have been closed by the server, and each statement may be run twice.
        if (tries < MAX_TRIES && isTransient(error)) continue;
        throw mysqlError(this.name, error);
      }
    }
  }

  async #useOnce<T>(run: (connection: PoolConnection) => Promise<T>): Promise<T> {
    const { connectTimeoutMs, queryTimeoutMs } = this.#address;
    const connecting = this.#pool.getConnection();
    const connection = await within(connectTimeoutMs + queryTimeoutMs, connecting, () => {
      void connecting.then(
        (late) => late.release(),
        () => {},
      );
    });
    this.#open.add(connection.connection);
    try {
      // Not the driver's own timeout: it does not count while a statement is being prepared.
      const work = this.#prepare(connection).then(async () => await run(connection));
      const result = await within(queryTimeoutMs, work, () => void work.catch(() => {}));
      connection.release();
      return result;
    } catch (error) {
      // What the server refused leaves the connection as it was; after anything else its state is unknown.
      if (errorNumber(error) === 0) this.#destroy(connection);
      else connection.release();
      throw error;
    }
  }

  #destroy(connection: PoolConnection): void {
    this.#open.delete(connection.connection);
    connection.destroy();
  }

  async #prepare(connection: PoolConnection): Promise<void> {
    if (this.#prepared.has(connection.connection)) return;
    await connection.query(SESSION_MODE);
    for (const [name, value] of this.#address.variables) await connection.query(`set ${name}=${value}`);
    this.#prepared.add(connection.connection);
  }

  async close(): Promise<void> {
    this.#closing ??= this.#end();
    await this.#closing;
  }

  /** A server that does not answer is not waited for. */
  async #end(): Promise<void> {
    const ending = this.#pool.end();
    try {
      await within(CLOSE_TIMEOUT_MS, ending, () => void ending.catch(() => {}));
    } catch {
      for (const connection of this.#open) connection.destroy();
    }
  }
}

/** Each idle connection may turn out to be dead, and one more try. */
const MAX_TRIES = CONNECTIONS + 1;

function isTransient(error: unknown): boolean {
  return errorNumber(error) === ERROR.deadlock || ["PROTOCOL_CONNECTION_LOST", "ECONNRESET", "EPIPE"].includes(errorCode(error));
}

/** Of an answer of the server; 0 for everything else. */
function errorNumber(error: unknown): number {
  const isAnswer = error instanceof Error && "sqlState" in error && error.sqlState !== undefined;
  return isAnswer && "errno" in error && typeof error.errno === "number" && error.errno > 0 ? error.errno : 0;
}

function errorCode(error: unknown): string {
  return error instanceof Error && "code" in error ? String(error.code) : "";
}

function mysqlError(name: string, cause: unknown): LazyError {
  const number = errorNumber(cause);
  const why = messageOf(cause);
  if (number === 0) return unreachable(name, errorCode(cause), cause);
  if (DENIED.has(number)) return new LazyError("DENIED", `${name}: ${why}; check user, password and grants`, { cause });
  switch (number) {
    case ERROR.noSuchTable:
      return tablesMissing(name, cause);
    case ERROR.unknownDatabase:
      return new LazyError("NOT_FOUND", `${name}: ${why}; make it on the server: create database …`, { cause });
    case ERROR.unknownColumn:
    case ERROR.dataTooLong:
      return new LazyError("UNSUPPORTED", `${name}: ${why}; the table is not as docs/formats/conversion-database.md has it`, { cause });
    case ERROR.unknownVariable:
    case ERROR.wrongValueForVariable:
    case ERROR.wrongTypeForVariable:
      return new LazyError("USAGE", `${name}: ${why}; check the parameters after the ? of --db-str`, { cause });
    default:
      return new LazyError("UNAVAILABLE", `${name}: ${why}`, { cause });
  }
}
