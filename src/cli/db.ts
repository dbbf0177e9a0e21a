import type { Command } from "commander";
import type { Conversion, ConversionStore, RepositoryName } from "../dedup/conversion-store.ts";
import { LazyError } from "../errors.ts";
import { addDatabaseOptions, checkDatabaseOptions, openDatabase } from "./database-options.ts";
import type { Environment } from "./environment.ts";
import { addStoreOptions, openReference, readStoreOptions } from "./store-options.ts";

/** Adds `db init`, `db ls` and `db gc`. `setStatus` gets 1 when `gc` could not ask all registries. */
export function addDbCommand(program: Command, environment: Environment, setStatus: (status: number) => void): void {
  const db = program
    .command("db")
    .summary("look after the conversion database")
    .description("Looks after the database of what was converted.")
    .addHelpText(
      "after",
      `
Examples:
  lazylayer db ls
  lazylayer db gc --dry-run
  LAZYLAYER_DB_STR='user:password@tcp(db.example:3306)/conversions' lazylayer db init --db-type mysql`,
    );
  const init = db
    .command("init")
    .summary("make the database's tables")
    .description("Makes the database's tables if they are missing. Tables and rows that are there stay as they are.");
  const ls = db
    .command("ls")
    .summary("print what is remembered")
    .description(
      "Prints a line for each row: host/repository, layer or manifest, what was converted (chain ID or digest), what it became, its size,\nand the options it was made with (- for rows of the standalone convertor).",
    )
    .option("--json", "a JSON object on each line");
  const gc = db
    .command("gc")
    .summary("forget what registries have lost")
    .description(
      "Removes rows whose layers or manifests are gone from their registries. A registry that cannot be reached or refuses\naccess keeps its rows; the status is then 1.",
    )
    .option("--dry-run", "say what would be removed, and leave it");
  for (const command of [init, ls, gc]) {
    addDatabaseOptions(command);
    command.hook("preAction", () => checkDatabaseOptions(command));
  }
  addStoreOptions(gc);
  init.action(async (options: unknown) => {
    await withStore(options, environment, true, async (store) => environment.stderr.write(`${store.name}: ready\n`));
  });
  ls.action(async (options: { json?: boolean }) => {
    await withStore(options, environment, false, async (store) => await listRows(store, options.json === true, environment));
  });
  gc.action(async (options: { dryRun?: boolean }) => {
    await withStore(options, environment, false, async (store) => {
      if ((await collectGarbage(store, options, options.dryRun === true, environment)) > 0) setStatus(1);
    });
  });
}

async function withStore(
  options: unknown,
  environment: Environment,
  init: boolean,
  use: (store: ConversionStore) => Promise<unknown>,
): Promise<void> {
  const store = await openDatabase(options, environment, init);
  if (store === undefined) throw new LazyError("USAGE", "--db-type none: there is no database to work on");
  try {
    await use(store);
  } finally {
    await store.close();
  }
}

async function listRows(store: ConversionStore, json: boolean, environment: Environment): Promise<void> {
  for (const repository of await store.repositories()) {
    environment.signal.throwIfAborted();
    for (const row of await store.list(repository)) environment.stdout.write(`${json ? JSON.stringify(flatten(row)) : rowText(row)}\n`);
  }
}

function rowText(row: Conversion): string {
  const { host, repository, kind, source, mediaType, digest, size, fingerprint } = flatten(row);
  return [`${host}/${repository}`, kind, source, digest, size, fingerprint ?? "-", ...(mediaType === undefined ? [] : [mediaType])].join(
    "\t",
  );
}

function flatten({ host, repository, source, digest, size, fingerprint }: Conversion) {
  const what =
    source.kind === "layer"
      ? { kind: source.kind, source: source.chainId, mediaType: undefined }
      : { kind: source.kind, source: source.digest, mediaType: source.mediaType };
  return { host, repository, ...what, digest, size, fingerprint };
}

/** The number of repositories that could not be asked. */
async function collectGarbage(store: ConversionStore, options: unknown, dryRun: boolean, environment: Environment): Promise<number> {
  const { pruneStore } = await import("../dedup/prune-store.ts");
  const stores = await readStoreOptions(options, environment);
  const nameOf = ({ host, repository }: RepositoryName): string => `${host}/${repository}`;
  const { kept, stale, skipped } = await pruneStore(store, {
    openRepository: async (repository) => (await openReference(nameOf(repository), stores, environment)).store,
    dryRun,
    stale: (row) => environment.stdout.write(`${rowText(row)}\n`),
    skipped: (repository, error) => environment.stderr.write(`warning: ${nameOf(repository)}: rows kept: ${error.message}\n`),
    signal: environment.signal,
  });
  const unasked = skipped === 0 ? "" : `; ${skipped} repositories could not be asked`;
  environment.stderr.write(`${dryRun ? "would remove" : "removed"} ${stale} rows, kept ${kept}${unasked}\n`);
  return skipped;
}
