import type { Digest } from "../oci/digest.ts";

/** A repository of a registry, as rows name it. */
export interface RepositoryName {
  /** Host, and port if it is not the default. */
  readonly host: string;
  readonly repository: string;
}

/** What was converted: a layer on top of certain others, named by its chain ID, or a whole image to a kind of manifest. */
export type ConversionSource =
  | { readonly kind: "layer"; readonly chainId: Digest }
  | { readonly kind: "manifest"; readonly digest: Digest; readonly mediaType: string };

/** A row: somebody says that this source was converted, and that the result is in this repository. */
export interface Conversion extends RepositoryName {
  readonly source: ConversionSource;
  /** Of the converted blob or manifest. */
  readonly digest: Digest;
  /** In bytes. */
  readonly size: number;
  /**
   * With which options, see `fingerprint.ts`. Undefined for rows of the standalone convertor, which does not record them: such a
   * row may come from any options, and it is for the caller to say whether that will do.
   */
  readonly fingerprint?: string | undefined;
}

/**
 * What has been converted already, and where it is. Three databases, one contract: `conversion-store.contract.ts`.
 *
 * Rows are hints. Nothing that a row says was checked against a registry, and any process may add and remove rows at any time.
 * A store never holds the only copy of anything: losing it costs time, nothing else.
 *
 * Each call is atomic and idempotent, and calls may run concurrently, in one process and in many. After a failure the store stays
 * usable, and the next call connects anew. Errors: `USAGE` (a name that no registry can have), `UNAVAILABLE`, `DENIED`, `NOT_FOUND`
 * (the database or its tables), `CORRUPT` (a damaged file, or a row that makes no sense). None holds a password.
 *
 * Whoever opened a store closes it.
 */
export interface ConversionStore {
  /** For messages; holds no secrets. */
  readonly name: string;

  /**
   * This repository's rows for a source: at most one of each fingerprint and one without. A row without a fingerprint is left out
   * when one with a fingerprint says the same, in a store that keeps the two apart.
   */
  find(repository: RepositoryName, source: ConversionSource): Promise<Conversion[]>;

  /** The same of other repositories of the same host, by name; at most 64 rows of each kind. */
  findElsewhere(repository: RepositoryName, source: ConversionSource): Promise<Conversion[]>;

  /**
   * Adds a row. True if it is new; false if there is a row of this repository, source and fingerprint, which stays as it is, whatever
   * its digest: of several writers the first wins, and all of them are right.
   */
  insert(conversion: Conversion): Promise<boolean>;

  /** Removes a row if it is still the same, down to the digest. False if it is not there any more: somebody has replaced it. */
  remove(conversion: Conversion): Promise<boolean>;

  /** All repositories that have rows, by host and name. */
  repositories(): Promise<RepositoryName[]>;

  /** All rows of a repository, layers first, in a stable order. */
  list(repository: RepositoryName): Promise<Conversion[]>;

  /** Frees connections and files. Idempotent; running calls may fail. */
  close(): Promise<void>;
}
