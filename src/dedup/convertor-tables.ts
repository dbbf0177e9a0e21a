import { checkConversion, checkRepository, checkSource, parseConversion, parseRepository, type RowColumns } from "./conversion-row.ts";
import type { Conversion, ConversionSource, RepositoryName } from "./conversion-store.ts";
import { MAX_ELSEWHERE } from "./conversion-table.ts";
import type { SqlDatabase } from "./sql-database.ts";

/** One of the standalone convertor's tables. See docs/formats/conversion-database.md. */
interface ConvertorTable {
  readonly name: string;
  readonly kind: ConversionSource["kind"];
  readonly columns: RowColumns;
  /** Columns in the order of the convertor's statements. */
  readonly fields: readonly string[];
  readonly key: readonly string[];
}

const LAYERS: ConvertorTable = {
  name: "overlaybd_layers",
  kind: "layer",
  columns: { host: "host", repository: "repo", source: "chain_id", digest: "data_digest", size: "data_size" },
  fields: ["host", "repo", "chain_id", "data_digest", "data_size"],
  key: ["host", "repo", "chain_id"],
};

const MANIFESTS: ConvertorTable = {
  name: "overlaybd_manifests",
  kind: "manifest",
  columns: { host: "host", repository: "repo", source: "src_digest", digest: "out_digest", size: "data_size", mediaType: "mediatype" },
  fields: ["host", "repo", "src_digest", "out_digest", "data_size", "mediatype"],
  key: ["host", "repo", "src_digest", "mediatype"],
};

const TABLES: readonly ConvertorTable[] = [LAYERS, MANIFESTS];

/** Statements that make the tables if they are missing, as the convertor's statements need them. */
export const CONVERTOR_TABLE_STATEMENTS: readonly string[] = TABLES.map(({ name, fields, key }) => {
  const columns = fields.map((field) => `${field} ${field === "data_size" ? "bigint" : "varchar(255)"} not null`);
  const index = `key ${name}_elsewhere (host, ${key[2]})`;
  return `create table if not exists ${name} (${columns.join(", ")}, primary key (${key.join(", ")}), ${index}) engine=InnoDB default charset=utf8`;
});

/**
 * The two tables that the standalone convertor reads and writes, with no column of ours. Somebody else made them, with whatever
 * collation: the database may find rows whose names differ in case, so what comes back is compared once more.
 */
export class ConvertorTables {
  readonly #database: SqlDatabase;

  constructor(database: SqlDatabase) {
    this.#database = database;
  }

  async find(repository: RepositoryName, source: ConversionSource): Promise<Conversion[]> {
    checkRepository(repository);
    const found = await this.#select(tableOf(source), ["host", "repo", ...sourceColumns(source)], "", [
      repository.host,
      repository.repository,
      ...sourceValues(source),
    ]);
    return found.filter((row) => isIn(row, repository) && isOf(row, source));
  }

  async findElsewhere(repository: RepositoryName, source: ConversionSource): Promise<Conversion[]> {
    checkRepository(repository);
    const found = await this.#select(tableOf(source), ["host", ...sourceColumns(source)], `order by repo limit ${MAX_ELSEWHERE + 1}`, [
      repository.host,
      ...sourceValues(source),
    ]);
    const others = found.filter((row) => row.host === repository.host && row.repository !== repository.repository && isOf(row, source));
    return others.slice(0, MAX_ELSEWHERE);
  }

  async insert(conversion: Conversion): Promise<boolean> {
    checkConversion(conversion);
    const { name, fields } = tableOf(conversion.source);
    const { host, repository, source, digest, size } = conversion;
    const values = source.kind === "layer" ? [source.chainId, digest, size] : [source.digest, digest, size, source.mediaType];
    const sql = `insert into ${name}(${fields.join(", ")}) values(${fields.map(() => "?").join(", ")})`;
    return await this.#database.insert(sql, [host, repository, ...values]);
  }

  async remove(conversion: Conversion): Promise<boolean> {
    checkConversion(conversion);
    const { host, repository, source, digest } = conversion;
    const { name, columns } = tableOf(source);
    const where = ["host", "repo", ...sourceColumns(source), columns.digest].map((column) => `${column}=?`).join(" and ");
    return (await this.#database.change(`delete from ${name} where ${where}`, [host, repository, ...sourceValues(source), digest])) > 0;
  }

  async repositories(): Promise<RepositoryName[]> {
    const found: RepositoryName[] = [];
    for (const { name, columns } of TABLES) {
      const rows = await this.#database.select(`select distinct host, repo from ${name}`, []);
      found.push(...rows.map((row) => parseRepository(row, columns, this.#where(name))));
    }
    return found;
  }

  async list(repository: RepositoryName): Promise<Conversion[]> {
    checkRepository(repository);
    const found: Conversion[] = [];
    for (const table of TABLES) {
      const rows = await this.#select(table, ["host", "repo"], `order by ${table.key.join(", ")}`, [
        repository.host,
        repository.repository,
      ]);
      found.push(...rows.filter((row) => isIn(row, repository)));
    }
    return found;
  }

  async #select(table: ConvertorTable, where: readonly string[], end: string, values: readonly string[]): Promise<Conversion[]> {
    const { name, kind, columns, fields } = table;
    const condition = where.map((column) => `${column}=?`).join(" and ");
    const rows = await this.#database.select(`select ${fields.join(", ")} from ${name} where ${condition} ${end}`.trimEnd(), values);
    return rows.map((row) => parseConversion(row, columns, kind, this.#where(name)));
  }

  #where(table: string): string {
    return `${this.#database.name}: table ${table}`;
  }
}

function tableOf({ kind }: ConversionSource): ConvertorTable {
  return kind === "layer" ? LAYERS : MANIFESTS;
}

function sourceColumns({ kind }: ConversionSource): string[] {
  return kind === "layer" ? ["chain_id"] : ["src_digest", "mediatype"];
}

function sourceValues(source: ConversionSource): string[] {
  checkSource(source);
  return source.kind === "layer" ? [source.chainId] : [source.digest, source.mediaType];
}

function isIn(row: RepositoryName, { host, repository }: RepositoryName): boolean {
  return row.host === host && row.repository === repository;
}

function isOf({ source: found }: Conversion, source: ConversionSource): boolean {
  if (found.kind === "layer") return source.kind === "layer" && found.chainId === source.chainId;
  return source.kind === "manifest" && found.digest === source.digest && found.mediaType === source.mediaType;
}
