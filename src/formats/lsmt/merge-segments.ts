import { unsupported } from "../../errors.ts";
import { MAX_TABLE_SEGMENTS } from "./layout.ts";
import { MappingList } from "./mapping-list.ts";
import type { Segments } from "./segment-table.ts";

/**
 * Merges layers of segments, lowest first, each sorted and without overlaps: upper ones hide lower ones, zeroed ones too.
 * `firstTags` says for each layer what is added to its tags; without it they are kept.
 */
export function mergeSegments(layers: readonly Segments[], firstTags?: readonly number[]): Segments {
  return mergeBetween(layers, 0, layers.length, firstTags);
}

/** Halves merge first, so that each segment is copied log2(layers) times, not once a layer. */
function mergeBetween(layers: readonly Segments[], from: number, to: number, firstTags: readonly number[] | undefined): Segments {
  if (to - from > 1) {
    const middle = (from + to) >>> 1;
    return overlay(mergeBetween(layers, middle, to, firstTags), mergeBetween(layers, from, middle, firstTags));
  }
  if (to === from) return new MappingList();
  const firstTag = firstTags?.[from] ?? 0;
  if (firstTag === 0) return layers[from];
  const { count, firstSector, sectors, mappedSector, zeroed } = layers[from];
  const tag = layers[from].tag.slice(0, count);
  for (let i = 0; i < count; i++) tag[i] += firstTag;
  return { count, firstSector, sectors, mappedSector, zeroed, tag };
}

function overlay(upper: Segments, lower: Segments): Segments {
  if (upper.count === 0) return lower;
  const merged = new MappingList();
  let settled = 0;
  let next = 0;
  for (let i = 0; i < upper.count; i++) {
    next = copyBetween(lower, next, settled, upper.firstSector[i], merged);
    merged.add(upper.firstSector[i], upper.sectors[i], upper.mappedSector[i], upper.zeroed[i] === 1, upper.tag[i]);
    settled = upper.firstSector[i] + upper.sectors[i];
  }
  copyBetween(lower, next, settled, Infinity, merged);
  if (merged.count > MAX_TABLE_SEGMENTS) {
    throw unsupported(`lsmt: merged layers have ${merged.count} segments, expected at most ${MAX_TABLE_SEGMENTS}`);
  }
  return merged;
}

/** Copies what lies in `[first, end)`, trimmed to it; returns where to look next. */
function copyBetween(segments: Segments, from: number, first: number, end: number, into: MappingList): number {
  let i = from;
  while (i < segments.count && segments.firstSector[i] + segments.sectors[i] <= first) i++;
  for (; i < segments.count && segments.firstSector[i] < end; i++) {
    const start = Math.max(segments.firstSector[i], first);
    const segmentEnd = segments.firstSector[i] + segments.sectors[i];
    const zeroed = segments.zeroed[i] === 1;
    const skipped = zeroed ? 0 : start - segments.firstSector[i];
    if (start < end) into.add(start, Math.min(segmentEnd, end) - start, segments.mappedSector[i] + skipped, zeroed, segments.tag[i]);
    if (segmentEnd > end) break;
  }
  return i;
}

/**
 * The state after mappings were made one after the other, each hiding what it overlaps.
 * Runs that are sorted already are layers, of which later ones lie on top.
 */
export function replaySegments(log: Segments): Segments {
  const runs: Segments[] = [];
  let from = 0;
  for (let i = 1; i <= log.count; i++) {
    if (i < log.count && log.firstSector[i] >= log.firstSector[i - 1] + log.sectors[i - 1]) continue;
    runs.push(slice(log, from, i));
    from = i;
  }
  return mergeSegments(runs);
}

function slice(segments: Segments, from: number, to: number): Segments {
  return {
    count: to - from,
    firstSector: segments.firstSector.subarray(from, to),
    sectors: segments.sectors.subarray(from, to),
    mappedSector: segments.mappedSector.subarray(from, to),
    zeroed: segments.zeroed.subarray(from, to),
    tag: segments.tag.subarray(from, to),
  };
}
