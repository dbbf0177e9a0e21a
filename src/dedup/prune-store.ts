import { LazyError } from "../errors.ts";
import type { ImageStore } from "../oci/image-store.ts";
import type { Conversion, ConversionStore, RepositoryName } from "./conversion-store.ts";

export interface PruneOptions {
  /** Opens a repository; it is closed again before the next one is opened. */
  readonly openRepository: (repository: RepositoryName) => Promise<ImageStore>;
  /** Say what would be removed, and leave it. */
  readonly dryRun: boolean;
  /** A row whose blob or manifest is gone, before it is removed. */
  readonly stale: (conversion: Conversion) => void;
  /** A repository that could not be asked; its rows stay. */
  readonly skipped: (repository: RepositoryName, error: LazyError) => void;
  readonly signal: AbortSignal;
}

export interface PruneResult {
  readonly kept: number;
  readonly stale: number;
  /** Repositories that could not be asked. */
  readonly skipped: number;
}

const QUESTIONS = 8;

/**
 * Removes rows whose blobs or manifests are gone, repository by repository. Only a registry's clear answer counts: one that cannot
 * be reached or refuses access keeps its rows. A row that changes meanwhile stays.
 */
export async function pruneStore(store: ConversionStore, options: PruneOptions): Promise<PruneResult> {
  let kept = 0;
  let stale = 0;
  let skipped = 0;
  for (const repository of await store.repositories()) {
    options.signal.throwIfAborted();
    const rows = await store.list(repository);
    const gone = await findGone(repository, rows, options);
    if (gone === undefined) {
      skipped++;
      continue;
    }
    for (const row of gone) {
      options.stale(row);
      if (!options.dryRun) await store.remove(row);
    }
    stale += gone.length;
    kept += rows.length - gone.length;
  }
  return { kept, stale, skipped };
}

/** Undefined if the registry did not answer for all of them. */
async function findGone(repository: RepositoryName, rows: readonly Conversion[], options: PruneOptions): Promise<Conversion[] | undefined> {
  try {
    const images = await options.openRepository(repository);
    try {
      const gone: Conversion[] = [];
      for (let at = 0; at < rows.length; at += QUESTIONS) {
        options.signal.throwIfAborted();
        const some = rows.slice(at, at + QUESTIONS);
        const present = await Promise.all(some.map(async (row) => await isPresent(images, row)));
        gone.push(...some.filter((_, index) => !present[index]));
      }
      return gone;
    } finally {
      await images.close();
    }
  } catch (error) {
    options.signal.throwIfAborted();
    if (!(error instanceof LazyError)) throw error;
    options.skipped(repository, error);
    return undefined;
  }
}

async function isPresent(images: ImageStore, { source, digest, size }: Conversion): Promise<boolean> {
  if (source.kind === "layer") return await images.hasBlob(digest, size);
  try {
    await images.resolve({ digest });
    return true;
  } catch (error) {
    if (error instanceof LazyError && error.code === "NOT_FOUND") return false;
    throw error;
  }
}
