import { chmod, mkdir, open } from "node:fs/promises";
import { dirname } from "node:path";
import { DatabaseSync, type StatementSync } from "node:sqlite";
import { setTimeout as sleep } from "node:timers/promises";
import { corrupt, LazyError, messageOf, unsupported } from "../errors.ts";
import { CONVERSION_INDEX, CONVERSION_TABLE, conversionTableStatement } from "./conversion-table.ts";
import type { SqlDatabase, SqlRow, SqlValue } from "./sql-database.ts";

/** "lazy" in ASCII, in the file's header: tells our files from those of other programs. */
const APPLICATION_ID = 0x6c617a79;
const SCHEMA_VERSION = 1;
const SCHEMA = [
  conversionTableStatement({ text: "text", integer: "integer", options: "strict, without rowid" }),
  `create index if not exists ${CONVERSION_INDEX.name} on ${CONVERSION_TABLE} (${CONVERSION_INDEX.columns})`,
  `pragma application_id = ${APPLICATION_ID}`,
  `pragma user_version = ${SCHEMA_VERSION}`,
];

const DEFAULT_BUSY_TIMEOUT_MS = 10_000;
/** SQLite waits by blocking the thread, so it waits shortly and often. */
const BUSY_STEP_MS = 20;

/** Primary result codes; the rest of a code's bits say more than is needed here. */
const RESULT = { perm: 3, busy: 5, locked: 6, readOnly: 8, corrupt: 11, notADatabase: 26 };
const DUPLICATE = new Set([1555, 2067]); // SQLITE_CONSTRAINT_PRIMARYKEY, SQLITE_CONSTRAINT_UNIQUE

export interface SqliteOptions {
  /** How long a statement waits for other processes. */
  readonly busyTimeoutMs?: number | undefined;
}

/** Opens a database file of this user alone; file, directory and table are made if they are missing. Any number of processes may. */
export async function openSqliteDatabase(path: string, options: SqliteOptions = {}): Promise<SqlDatabase> {
  if (path === "" || path.includes("\0")) throw new LazyError("USAGE", "conversion database: the SQLite file has no name");
  try {
    await mkdir(dirname(path), { recursive: true, mode: 0o700 });
    const file = await open(path, "a", 0o600);
    await file.close();
    await chmodIfOurs(path);
  } catch (cause) {
    throw fileError(path, cause);
  }
  let file: DatabaseSync;
  try {
    file = new DatabaseSync(path, { timeout: BUSY_STEP_MS });
  } catch (cause) {
    throw sqliteError(path, cause);
  }
  const database = new SqliteDatabase(path, file, options.busyTimeoutMs ?? DEFAULT_BUSY_TIMEOUT_MS);
  try {
    await database.prepare();
    return database;
  } catch (error) {
    await database.close();
    throw error;
  }
}

/** A file from before that others may read or write. Its journal files take over its mode. */
async function chmodIfOurs(path: string): Promise<void> {
  try {
    await chmod(path, 0o600);
  } catch (error) {
    if (!(error instanceof Error && "code" in error && error.code === "EPERM")) throw error;
    // Somebody else's file that we may write: a choice of theirs.
  }
}

class SqliteDatabase implements SqlDatabase {
  readonly name: string;
  readonly #file: DatabaseSync;
  readonly #busyTimeoutMs: number;
  readonly #statements = new Map<string, StatementSync>();

  constructor(path: string, file: DatabaseSync, busyTimeoutMs: number) {
    this.name = path;
    this.#file = file;
    this.#busyTimeoutMs = busyTimeoutMs;
  }

  async prepare(): Promise<void> {
    await this.#patiently(() => {
      if (this.#isReady()) return;
      this.#file.exec("pragma journal_mode = wal");
      this.#file.exec("begin immediate");
      try {
        // Another process may have been faster.
        if (!this.#isReady()) for (const statement of SCHEMA) this.#file.exec(statement);
        this.#file.exec("commit");
      } catch (error) {
        if (this.#file.isTransaction) this.#file.exec("rollback");
        throw error;
      }
    });
    // A crash of the machine may lose the last rows, but cannot damage the file: rows are hints.
    await this.#patiently(() => this.#file.exec("pragma synchronous = normal"));
  }

  /** False for a file that is still empty. */
  #isReady(): boolean {
    const applicationId = this.#pragma("application_id");
    const version = this.#pragma("user_version");
    if (applicationId === 0 && version === 0 && this.#pragma("schema_version") === 0) return false;
    if (applicationId !== APPLICATION_ID) {
      throw unsupported(`${this.name}: is a SQLite file of another program; name another file, or move it away`);
    }
    if (version === SCHEMA_VERSION) return true;
    throw unsupported(
      `${this.name}: has the tables of version ${version}, this program knows ${SCHEMA_VERSION}; use a newer program, or delete the file`,
    );
  }

  #pragma(name: string): number {
    const value = this.#file.prepare(`pragma ${name}`).get()?.[name];
    return typeof value === "number" ? value : Number.NaN;
  }

  async select(sql: string, values: readonly SqlValue[]): Promise<readonly SqlRow[]> {
    return await this.#patiently(() => this.#statement(sql).all(...values));
  }

  async insert(sql: string, values: readonly SqlValue[]): Promise<boolean> {
    try {
      return (await this.change(sql, values)) > 0;
    } catch (error) {
      if (error instanceof LazyError && DUPLICATE.has(resultCode(error.cause))) return false;
      throw error;
    }
  }

  async change(sql: string, values: readonly SqlValue[]): Promise<number> {
    return await this.#patiently(() => Number(this.#statement(sql).run(...values).changes));
  }

  #statement(sql: string): StatementSync {
    const known = this.#statements.get(sql);
    if (known !== undefined) return known;
    const statement = this.#file.prepare(sql);
    this.#statements.set(sql, statement);
    return statement;
  }

  /** Lets other work go on while another process writes. */
  async #patiently<T>(use: () => T): Promise<T> {
    for (let waitedMs = 0; ; waitedMs += 2 * BUSY_STEP_MS) {
      try {
        return use();
      } catch (error) {
        const code = resultCode(error) & 0xff;
        const isBusy = code === RESULT.busy || code === RESULT.locked;
        if (!isBusy || waitedMs >= this.#busyTimeoutMs) throw sqliteError(this.name, error);
      }
      await sleep(BUSY_STEP_MS);
    }
  }

  async close(): Promise<void> {
    this.#statements.clear();
    if (this.#file.isOpen) this.#file.close();
  }
}

function resultCode(error: unknown): number {
  return error instanceof Error && "errcode" in error && typeof error.errcode === "number" ? error.errcode : 0;
}

function sqliteError(path: string, cause: unknown): LazyError {
  if (cause instanceof LazyError) return cause;
  const why = messageOf(cause);
  switch (resultCode(cause) & 0xff) {
    case RESULT.corrupt:
    case RESULT.notADatabase:
      return corrupt(
        `${path}: the conversion database is damaged (${why}); delete it, with ${path}-wal and ${path}-shm: ` +
          "it only remembers what registries hold, and fills up again",
        { cause },
      );
    case RESULT.busy:
    case RESULT.locked:
      return new LazyError("UNAVAILABLE", `${path}: another process has locked the conversion database; end it, or try again`, { cause });
    case RESULT.perm:
    case RESULT.readOnly:
      return new LazyError("DENIED", `${path}: the conversion database cannot be written (${why}); make file and directory writable`, {
        cause,
      });
    default:
      return new LazyError("UNAVAILABLE", `${path}: conversion database: ${why}`, { cause });
  }
}

function fileError(path: string, cause: unknown): LazyError {
  const code = cause instanceof Error && "code" in cause ? cause.code : undefined;
  const isDenied = code === "EACCES" || code === "EPERM" || code === "EROFS";
  const hint = isDenied ? "make file and directory writable, or name another file" : "name another file";
  return new LazyError(isDenied ? "DENIED" : "UNAVAILABLE", `${path}: conversion database: ${messageOf(cause)}; ${hint}`, { cause });
}
