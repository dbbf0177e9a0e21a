import { corrupt, LazyError } from "../errors.ts";
import { isDigest } from "../oci/digest.ts";
import type { Conversion, ConversionSource, RepositoryName } from "./conversion-store.ts";
import type { SqlRow } from "./sql-database.ts";

/** What every database can hold and compare exactly, and what the known tool's columns have room for. */
const NAME = /^[\x21-\x7e]{1,255}$/;

/** Throws `USAGE` for what is no name of a repository. Whatever else is in a name, it is bound as a value. */
export function checkRepository({ host, repository }: RepositoryName): void {
  checkName(host, "host");
  checkName(repository, "repository");
}

export function checkSource(source: ConversionSource): void {
  if (source.kind === "manifest") checkName(source.mediaType, "media type");
}

/** Throws `USAGE` for a row that a store cannot hold. */
export function checkConversion(conversion: Conversion): void {
  checkRepository(conversion);
  checkSource(conversion.source);
  if (conversion.fingerprint !== undefined) checkName(conversion.fingerprint, "fingerprint");
  if (!Number.isSafeInteger(conversion.size) || conversion.size < 0) {
    throw new LazyError("USAGE", `conversion database: size ${conversion.size}, expected a number of bytes`);
  }
}

function checkName(text: string, what: string): void {
  if (NAME.test(text)) return;
  const shown = JSON.stringify(text.slice(0, 100));
  throw new LazyError("USAGE", `conversion database: ${what} ${shown}, expected 1 to 255 printable ASCII characters without spaces`);
}

/** The names of a table's columns. */
export interface RowColumns {
  readonly host: string;
  readonly repository: string;
  /** Chain ID or source digest. */
  readonly source: string;
  readonly digest: string;
  readonly size: string;
  /** Without one, all rows are layers. */
  readonly mediaType?: string;
  readonly fingerprint?: string;
}

/** Checks what a database returned. Throws `CORRUPT` with what to do; `where` is database and table. */
export function parseConversion(row: SqlRow, columns: RowColumns, kind: ConversionSource["kind"], where: string): Conversion {
  const { host, repository } = parseRepository(row, columns, where);
  const place = `${where}: row of ${host}/${repository} for ${String(row[columns.source]).slice(0, 100)}`;
  const digestIn = (column: string) => {
    const value = row[column];
    if (isDigest(value)) return value;
    throw corrupt(`${place}: ${column} is ${shown(value)}, expected sha256: and 64 lower-case hex digits; delete the row`);
  };
  const source = digestIn(columns.source);
  const fingerprint = columns.fingerprint === undefined ? "" : textIn(row, columns.fingerprint, place);
  return {
    host,
    repository,
    source:
      kind === "layer"
        ? { kind, chainId: source }
        : { kind, digest: source, mediaType: textIn(row, columns.mediaType ?? "mediatype", place) },
    digest: digestIn(columns.digest),
    size: sizeIn(row, columns.size, place),
    ...(fingerprint !== "" && { fingerprint }),
  };
}

export function parseRepository(row: SqlRow, columns: Pick<RowColumns, "host" | "repository">, where: string): RepositoryName {
  return { host: textIn(row, columns.host, where), repository: textIn(row, columns.repository, where) };
}

function textIn(row: SqlRow, column: string, where: string): string {
  const value = row[column];
  if (typeof value === "string") return value;
  throw corrupt(`${where}: ${column} is ${shown(value)}, expected text; delete the row, or make the table anew: lazylayer db init`);
}

/** Drivers give 64-bit numbers as numbers, as decimal text or as bigint. */
function sizeIn(row: SqlRow, column: string, where: string): number {
  const value = row[column];
  const isNumeric = typeof value === "number" || typeof value === "bigint" || (typeof value === "string" && /^\d{1,20}$/.test(value));
  const size = isNumeric ? Number(value) : Number.NaN;
  if (Number.isSafeInteger(size) && size >= 0) return size;
  throw corrupt(`${where}: ${column} is ${shown(value)}, expected a number of bytes; delete the row`);
}

function shown(value: unknown): string {
  if (typeof value === "string") return JSON.stringify(value.slice(0, 100));
  if (typeof value === "number" || typeof value === "bigint" || value == null) return String(value);
  return typeof value;
}

/** Equal for rows of the same source. */
export function sourceKey({ source }: Conversion): string {
  return source.kind === "layer" ? source.chainId : `${source.digest} ${source.mediaType}`;
}
