import { readFile } from "node:fs/promises";
import type { ConnectionOptions } from "node:tls";
import type { Pool, QueryResult } from "pg";
import { LazyError, messageOf } from "../errors.ts";
import { CONVERSION_INDEX, CONVERSION_TABLE, conversionTableStatement } from "./conversion-table.ts";
import { tablesMissing, unreachable } from "./database-error.ts";
import type { PostgresAddress } from "./postgres-address.ts";
import type { SqlDatabase, SqlRow, SqlValue } from "./sql-database.ts";

const CONNECTIONS = 2;
/** Each idle connection may turn out to be dead, and one more try. */
const MAX_TRIES = CONNECTIONS + 1;
const QUERY_TIMEOUT_MS = 30_000;
/** Two sessions that make the tables at once make them once: the second one waits. The number is arbitrary. */
const TABLES = [
  "begin",
  "select pg_advisory_xact_lock(7813273)",
  conversionTableStatement({ text: 'text collate "C"', integer: "bigint" }),
  `create index if not exists ${CONVERSION_INDEX.name} on ${CONVERSION_TABLE} (${CONVERSION_INDEX.columns})`,
  "commit",
].join("; ");
const CHECK = `select 1 from ${CONVERSION_TABLE} limit 1`;

/** SQLSTATE codes, from the appendix of PostgreSQL's manual. */
const STATE = {
  uniqueViolation: "23505",
  undefinedTable: "42P01",
  undefinedColumn: "42703",
  noSuchDatabase: "3D000",
  noPrivilege: "42501",
  readOnly: "25006",
};

/** Connects and finds the table, or makes it. */
export async function openPostgresDatabase(
  address: PostgresAddress,
  options: { readonly init?: boolean; readonly queryTimeoutMs?: number } = {},
): Promise<SqlDatabase> {
  const { host, port, user, password, database, connectTimeoutMs } = address;
  const name = `PostgreSQL at ${host.startsWith("/") ? `${host}, port ${port}` : `${host}:${port}`}, database ${database}`;
  const ssl = await tlsOptions(address);
  const { default: pg } = await import("pg");
  const pool = new pg.Pool({
    host,
    port,
    user,
    database,
    ssl,
    // As a function: then the driver looks neither into the environment nor for a password file.
    password: () => password,
    max: CONNECTIONS,
    connectionTimeoutMillis: connectTimeoutMs,
    query_timeout: options.queryTimeoutMs ?? QUERY_TIMEOUT_MS,
    application_name: "lazylayer",
    allowExitOnIdle: true,
  });
  // A connection that breaks while nobody uses it; the pool has forgotten it already.
  pool.on("error", () => {});
  const opened = new PostgresDatabase(pool, name);
  try {
    if (options.init === true) await opened.change(TABLES, []);
    await opened.select(CHECK, []);
    return opened;
  } catch (error) {
    await opened.close();
    throw error;
  }
}

async function tlsOptions({ tls, rootCertificate, certificate, key }: PostgresAddress): Promise<ConnectionOptions | false> {
  if (tls === "off") return false;
  const options: ConnectionOptions = { rejectUnauthorized: tls !== "skip-verify" };
  if (rootCertificate !== undefined) options.ca = await readPem(rootCertificate);
  if (certificate !== undefined) options.cert = await readPem(certificate);
  if (key !== undefined) options.key = await readPem(key);
  if (tls !== "verify-full") options.checkServerIdentity = () => undefined;
  return options;
}

async function readPem(path: string): Promise<Buffer> {
  try {
    return await readFile(path);
  } catch (cause) {
    throw new LazyError("USAGE", `${path}: certificate or key named in --db-str: ${messageOf(cause)}`, { cause });
  }
}

class PostgresDatabase implements SqlDatabase {
  readonly name: string;
  readonly #pool: Pool;
  #closing: Promise<void> | undefined;

  constructor(pool: Pool, name: string) {
    this.name = name;
    this.#pool = pool;
  }

  async select(sql: string, values: readonly SqlValue[]): Promise<readonly SqlRow[]> {
    return (await this.#query(sql, values)).rows;
  }

  async insert(sql: string, values: readonly SqlValue[]): Promise<boolean> {
    try {
      return (await this.change(sql, values)) > 0;
    } catch (error) {
      if (error instanceof LazyError && stateOf(error.cause) === STATE.uniqueViolation) return false;
      throw error;
    }
  }

  async change(sql: string, values: readonly SqlValue[]): Promise<number> {
    return (await this.#query(sql, values)).rowCount ?? 0;
  }

  async #query(sql: string, values: readonly SqlValue[]): Promise<QueryResult<SqlRow>> {
    let count = 0;
    const text = sql.replaceAll("?", () => `$${++count}`);
    for (let tries = 1; ; tries++) {
      try {
        return values.length === 0 ? await this.#pool.query<SqlRow>(text) : await this.#pool.query<SqlRow>(text, [...values]);
      } catch (error) {
        // An idle connection may have been closed by the server, and each statement may be run twice.
        if (tries < MAX_TRIES && isTransient(error)) continue;
        throw postgresError(this.name, error);
      }
    }
  }

  async close(): Promise<void> {
    this.#closing ??= this.#pool.end();
    await this.#closing;
  }
}

/** The code of an answer of the server; empty for everything else. */
function stateOf(error: unknown): string {
  const isAnswer = error instanceof Error && "severity" in error && "code" in error && typeof error.code === "string";
  return isAnswer ? String(error.code) : "";
}

function systemCode(error: unknown): string {
  return error instanceof Error && "code" in error ? String(error.code) : "";
}

function isTransient(error: unknown): boolean {
  const state = stateOf(error);
  if (state !== "") return state === "57P01" || state === "40P01" || state === "40001"; // ended by an administrator, deadlock, conflict
  return ["ECONNRESET", "EPIPE"].includes(systemCode(error)) || messageOf(error).startsWith("Connection terminated unexpectedly");
}

function postgresError(name: string, cause: unknown): LazyError {
  const state = stateOf(cause);
  const why = messageOf(cause);
  // The driver's own refusal to log in without a password.
  if (state === "" && why.startsWith("SASL:")) return new LazyError("DENIED", `${name}: ${why}; put the password into --db-str`, { cause });
  if (state === "") return unreachable(name, systemCode(cause), cause);
  // Class 28: not authorized.
  if (state.startsWith("28") || state === STATE.noPrivilege || state === STATE.readOnly) {
    return new LazyError("DENIED", `${name}: ${why}; check user, password and grants`, { cause });
  }
  switch (state) {
    case STATE.undefinedTable:
      return tablesMissing(name, cause);
    case STATE.noSuchDatabase:
      return new LazyError("NOT_FOUND", `${name}: ${why}; make it on the server: create database …`, { cause });
    case STATE.undefinedColumn:
      return new LazyError("UNSUPPORTED", `${name}: ${why}; the table is not as docs/formats/conversion-database.md has it`, { cause });
    default:
      return new LazyError("UNAVAILABLE", `${name}: ${why}`, { cause });
  }
}
