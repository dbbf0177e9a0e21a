import { sourceKey } from "./conversion-row.ts";
import type { Conversion, ConversionSource, ConversionStore, RepositoryName } from "./conversion-store.ts";
import { ConversionTable } from "./conversion-table.ts";
import { ConvertorTables } from "./convertor-tables.ts";
import type { SqlDatabase } from "./sql-database.ts";

/**
 * A store that the standalone convertor uses too: its two tables as they are, and the table of ours next to them, which alone
 * knows fingerprints. A row of the convertor's that says the same as one of ours is one of ours.
 */
export class SharedStore implements ConversionStore {
  readonly name: string;
  readonly #own: ConversionTable;
  readonly #convertor: ConvertorTables;

  /** Closes the database when it is closed. */
  constructor(database: SqlDatabase) {
    this.name = database.name;
    this.#own = new ConversionTable(database);
    this.#convertor = new ConvertorTables(database);
  }

  async find(repository: RepositoryName, source: ConversionSource): Promise<Conversion[]> {
    return merge(await this.#own.find(repository, source), await this.#convertor.find(repository, source));
  }

  async findElsewhere(repository: RepositoryName, source: ConversionSource): Promise<Conversion[]> {
    return merge(await this.#own.findElsewhere(repository, source), await this.#convertor.findElsewhere(repository, source));
  }

  /** Rows with a fingerprint stay out of the convertor's tables, where they could not be told from its own. */
  async insert(conversion: Conversion): Promise<boolean> {
    return await (conversion.fingerprint === undefined ? this.#convertor : this.#own).insert(conversion);
  }

  /** What is gone for us is gone for the convertor too, as far as it has the same row. */
  async remove(conversion: Conversion): Promise<boolean> {
    const fromConvertor = await this.#convertor.remove(conversion);
    return conversion.fingerprint === undefined ? fromConvertor : await this.#own.remove(conversion);
  }

  async repositories(): Promise<RepositoryName[]> {
    const found = [...(await this.#own.repositories()), ...(await this.#convertor.repositories())];
    const distinct = new Map(found.map((name) => [JSON.stringify([name.host, name.repository]), name]));
    return [...distinct.values()].toSorted((a, b) => compare(a.host, b.host) || compare(a.repository, b.repository));
  }

  async list(repository: RepositoryName): Promise<Conversion[]> {
    const rows = merge(await this.#own.list(repository), await this.#convertor.list(repository));
    return rows.toSorted((a, b) => compare(a.source.kind, b.source.kind) || compare(sourceKey(a), sourceKey(b)));
  }

  async close(): Promise<void> {
    await this.#own.close();
  }
}

function merge(own: readonly Conversion[], convertors: readonly Conversion[]): Conversion[] {
  const known = new Set(own.map(resultKey));
  return [...own, ...convertors.filter((row) => !known.has(resultKey(row)))];
}

function resultKey(row: Conversion): string {
  return JSON.stringify([row.host, row.repository, sourceKey(row), row.digest]);
}

function compare(a: string, b: string): number {
  if (a === b) return 0;
  return a < b ? -1 : 1;
}
