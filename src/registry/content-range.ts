export interface ContentRange {
  readonly first: number;
  /** Inclusive. */
  readonly last: number;
  /** Size of the whole; undefined if the server does not say. */
  readonly total: number | undefined;
}

/** `bytes first-last/total`; undefined for anything else, also for ranges that contradict themselves. */
export function parseContentRange(header: string | undefined): ContentRange | undefined {
  const match = /^bytes[ \t]+(\d{1,16})-(\d{1,16})\/(\d{1,16}|\*)$/i.exec(header?.trim() ?? "");
  if (!match) return undefined;
  const [first, last] = [Number(match[1]), Number(match[2])];
  const total = match[3] === "*" ? undefined : Number(match[3]);
  const consistent = [first, last, total ?? 0].every(Number.isSafeInteger) && first <= last && (total === undefined || last < total);
  return consistent ? { first, last, total } : undefined;
}
