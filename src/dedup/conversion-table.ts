import { checkConversion, checkRepository, checkSource, parseConversion, parseRepository } from "./conversion-row.ts";
import type { Conversion, ConversionSource, ConversionStore, RepositoryName } from "./conversion-store.ts";
import type { SqlDatabase, SqlRow } from "./sql-database.ts";

/** See docs/formats/conversion-database.md. */
export const CONVERSION_TABLE = "lazylayer_conversions";

/** Rows of other repositories that a search gives at most. */
export const MAX_ELSEWHERE = 64;

const COLUMNS = {
  host: "host",
  repository: "repo",
  source: "source_digest",
  mediaType: "media_type",
  fingerprint: "fingerprint",
  digest: "converted_digest",
  size: "converted_size",
} as const;

const KEY = "host, repo, kind, source_digest, media_type, fingerprint";
const FIELDS = `${KEY}, converted_digest, converted_size`;
const OF_SOURCE = "kind = ? and source_digest = ? and media_type = ?";
const ORDER = "order by host, repo, kind, source_digest, media_type, fingerprint";

/** The statement that makes the table if it is missing, with the dialect's types; `more` goes between the brackets. */
export function conversionTableStatement(dialect: { text: string; integer: string; more?: string; options?: string }): string {
  const texts = ["host", "repo", "kind", "source_digest", "media_type", "fingerprint", "converted_digest"];
  const columns = texts.map((name) => `${name} ${dialect.text} not null`);
  const clauses = [
    ...columns,
    `converted_size ${dialect.integer} not null`,
    `primary key (${KEY})`,
    ...(dialect.more ? [dialect.more] : []),
  ];
  return `create table if not exists ${CONVERSION_TABLE} (${clauses.join(", ")}) ${dialect.options ?? ""}`.trimEnd();
}

/** What a search in other repositories goes by. */
export const CONVERSION_INDEX = { name: `${CONVERSION_TABLE}_elsewhere`, columns: "host, kind, source_digest" };

/** A store in one table of our own. */
export class ConversionTable implements ConversionStore {
  readonly name: string;
  readonly #database: SqlDatabase;
  readonly #where: string;

  /** Closes the database when it is closed. */
  constructor(database: SqlDatabase) {
    this.name = database.name;
    this.#database = database;
    this.#where = `${database.name}: table ${CONVERSION_TABLE}`;
  }

  async find(repository: RepositoryName, source: ConversionSource): Promise<Conversion[]> {
    checkRepository(repository);
    const sql = `select ${FIELDS} from ${CONVERSION_TABLE} where host = ? and repo = ? and ${OF_SOURCE} order by fingerprint`;
    return this.#parse(await this.#database.select(sql, [repository.host, repository.repository, ...sourceValues(source)]));
  }

  async findElsewhere(repository: RepositoryName, source: ConversionSource): Promise<Conversion[]> {
    checkRepository(repository);
    const sql = `select ${FIELDS} from ${CONVERSION_TABLE} where host = ? and ${OF_SOURCE} and repo <> ? ${ORDER} limit ${MAX_ELSEWHERE}`;
    return this.#parse(await this.#database.select(sql, [repository.host, ...sourceValues(source), repository.repository]));
  }

  async insert(conversion: Conversion): Promise<boolean> {
    checkConversion(conversion);
    const sql = `insert into ${CONVERSION_TABLE} (${FIELDS}) values (?, ?, ?, ?, ?, ?, ?, ?)`;
    return await this.#database.insert(sql, [...keyValues(conversion), conversion.digest, conversion.size]);
  }

  async remove(conversion: Conversion): Promise<boolean> {
    checkConversion(conversion);
    const sql = `delete from ${CONVERSION_TABLE} where host = ? and repo = ? and ${OF_SOURCE} and fingerprint = ? and converted_digest = ?`;
    return (await this.#database.change(sql, [...keyValues(conversion), conversion.digest])) > 0;
  }

  async repositories(): Promise<RepositoryName[]> {
    const rows = await this.#database.select(`select distinct host, repo from ${CONVERSION_TABLE} order by host, repo`, []);
    return rows.map((row) => parseRepository(row, COLUMNS, this.#where));
  }

  async list(repository: RepositoryName): Promise<Conversion[]> {
    checkRepository(repository);
    const sql = `select ${FIELDS} from ${CONVERSION_TABLE} where host = ? and repo = ? ${ORDER}`;
    return this.#parse(await this.#database.select(sql, [repository.host, repository.repository]));
  }

  async close(): Promise<void> {
    await this.#database.close();
  }

  #parse(rows: readonly SqlRow[]): Conversion[] {
    return rows.map((row) => parseConversion(row, COLUMNS, row["kind"] === "layer" ? "layer" : "manifest", this.#where));
  }
}

function sourceValues(source: ConversionSource): [kind: string, digest: string, mediaType: string] {
  checkSource(source);
  return source.kind === "layer" ? ["layer", source.chainId, ""] : ["manifest", source.digest, source.mediaType];
}

function keyValues({ host, repository, source, fingerprint }: Conversion): string[] {
  return [host, repository, ...sourceValues(source), fingerprint ?? ""];
}
