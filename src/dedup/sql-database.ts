/** A row as a driver gives it, by column; nothing in it has been checked. */
export type SqlRow = Readonly<Record<string, unknown>>;

export type SqlValue = string | number;

/**
 * A database that takes SQL with `?` for values. The drivers bind values; they never become part of the text.
 * Every statement is a transaction of its own. Errors are those of `ConversionStore`.
 */
export interface SqlDatabase {
  /** For messages; holds no secrets. */
  readonly name: string;

  select(sql: string, values: readonly SqlValue[]): Promise<readonly SqlRow[]>;

  /** One row; false if its key exists. */
  insert(sql: string, values: readonly SqlValue[]): Promise<boolean>;

  /** The number of rows that changed. */
  change(sql: string, values: readonly SqlValue[]): Promise<number>;

  /** Idempotent. */
  close(): Promise<void>;
}
