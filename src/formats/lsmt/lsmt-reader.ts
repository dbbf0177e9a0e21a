import type { ByteSource } from "../../bytes/source.ts";
import { corrupt, unsupported } from "../../errors.ts";
import {
  decodeMapping,
  decodeRecord,
  FIRST_DATA_SECTOR,
  FLAG_DATA,
  FLAG_HEADER,
  FLAG_SEALED,
  FLAG_SPARSE,
  INVALID_FIRST_SECTOR,
  LSMT_MAGIC,
  LSMT_RECORD_BYTES,
  MAPPING_BYTES,
  MAX_INDEX_ENTRIES,
  SECTOR_BYTES,
  type LsmtRecord,
  type MappingFields,
} from "./layout.ts";
import { MappingList } from "./mapping-list.ts";
import { SegmentTable, type Segments } from "./segment-table.ts";

/** The first read of the end: the trailer, and the whole index of all but very large layers. */
const TAIL_BYTES = 64 << 10;
/** Only padding to a sector or to 4096 bytes lies between index and trailer. */
const MAX_INDEX_PADDING_BYTES = LSMT_RECORD_BYTES - 1;

/** A layer: a sorted table of segments, and the files that hold what they point to. */
export class LsmtLayer {
  /** Size of the device in bytes; 0 where the layer leaves it to the layers below. */
  readonly virtualSize: number;
  readonly uuid: string;
  readonly parentUuid: string;
  /** Free text given when the layer was committed. */
  readonly userTag: string;
  readonly segments: SegmentTable;
  /** The layer's own file and, in a warp layer, its target; a segment's tag is the position. Sector `n` of a file is at `n * 512`. */
  readonly files: readonly ByteSource[];
  readonly #index: ByteSource | undefined;

  constructor(record: LsmtRecord, segments: SegmentTable, files: readonly ByteSource[], index?: ByteSource) {
    this.virtualSize = record.virtualSize;
    this.uuid = record.uuid;
    this.parentUuid = record.parentUuid;
    this.userTag = tagText(record.userTag);
    this.segments = segments;
    this.files = files;
    this.#index = index;
  }

  get name(): string {
    return this.files[0].name;
  }

  /** Closes the sources that the layer was opened from. */
  async close(): Promise<void> {
    for (const file of this.files) await file.close();
    await this.#index?.close();
  }
}

function tagText(bytes: Uint8Array): string {
  const end = bytes.indexOf(0);
  return Buffer.from(end < 0 ? bytes : bytes.subarray(0, end)).toString("utf8");
}

/** True when the bytes (24 or more) are the start of an LSMT file. */
export function isLsmt(head: Uint8Array): boolean {
  return head.length >= LSMT_MAGIC.length && Buffer.compare(head.subarray(0, LSMT_MAGIC.length), LSMT_MAGIC) === 0;
}

/**
 * Opens a sealed layer: one that was committed, merged, or sealed in place. Closing the layer closes the source.
 * Throws `CORRUPT` where header, trailer and index contradict the format or each other, `UNSUPPORTED` for layers whose data
 * lies partly in another file.
 */
export async function openLayer(source: ByteSource): Promise<LsmtLayer> {
  const { trailer, mappings } = await readSealedFile(source, MAX_INDEX_PADDING_BYTES);
  checkOneFile(mappings, trailer, source.name);
  const { where, endSector } = dataSectionOf(source.name, trailer);
  for (let i = 0; i < mappings.count; i++) checkMapping(mappings, i, endSector, where);
  mappings.tag.fill(0);
  return new LsmtLayer(trailer, SegmentTable.from(mappings), [source]);
}

/** Name of the index for messages, and where the data ends, in sectors of the file. */
export function dataSectionOf(name: string, { indexOffset }: LsmtRecord): { where: string; endSector: number } {
  return { where: `${name}: lsmt index at ${indexOffset}`, endSector: Math.floor(indexOffset / SECTOR_BYTES) };
}

/**
 * The trailer of a finished layer and the entries of its index, in order, tags and places unchecked. At most `maxPaddingBytes` lie
 * between index and trailer. Throws `CORRUPT` as `openLayer` does.
 */
export async function readSealedFile(source: ByteSource, maxPaddingBytes: number): Promise<{ trailer: LsmtRecord; mappings: MappingList }> {
  const { name, size } = source;
  if (size < 2 * LSMT_RECORD_BYTES) throw corrupt(`${name}: lsmt layer of ${size} bytes, expected ${2 * LSMT_RECORD_BYTES} at least`);
  const header = checkLsmtRecord(await source.read(0, LSMT_RECORD_BYTES), `${name}: lsmt header at 0`, FLAG_HEADER | FLAG_DATA);
  const trailerAt = size - LSMT_RECORD_BYTES;
  const tailAt = Math.max(LSMT_RECORD_BYTES, size - TAIL_BYTES);
  const tail = await source.read(tailAt, size - tailAt);
  const trailerWhere = `${name}: lsmt trailer at ${trailerAt}`;
  const trailer = checkLsmtRecord(tail.subarray(trailerAt - tailAt), trailerWhere, FLAG_DATA | FLAG_SEALED);
  checkAgreement(header, trailer, name);
  checkIndexRange(trailer, trailerAt, maxPaddingBytes, trailerWhere);

  const { indexOffset, indexEntries } = trailer;
  const index =
    indexOffset >= tailAt
      ? tail.subarray(indexOffset - tailAt, indexOffset - tailAt + indexEntries * MAPPING_BYTES)
      : await source.read(indexOffset, indexEntries * MAPPING_BYTES);
  const mappings = parseMappings(index);
  checkSorted(mappings, indexOffset, name);
  return { trailer, mappings };
}

/** Checks the magic and that of the kind bits exactly `expected` are set, `FLAG_SEALED` being free in a header. */
export function checkLsmtRecord(bytes: Uint8Array, where: string, expected: number): LsmtRecord {
  if (!isLsmt(bytes)) throw corrupt(`${where}: no lsmt magic, found ${Buffer.from(bytes.subarray(0, LSMT_MAGIC.length)).toString("hex")}`);
  const record = decodeRecord(bytes, where);
  const mask = FLAG_HEADER | FLAG_DATA | (expected & FLAG_HEADER ? 0 : FLAG_SEALED);
  if ((record.flags & mask) !== expected) {
    throw corrupt(`${where}: flags are 0x${record.flags.toString(16)}, expected 0x${expected.toString(16)} in bits 0x${mask.toString(16)}`);
  }
  return record;
}

const SHARED_FIELDS = ["virtualSize", "uuid", "parentUuid", "version", "subVersion"] as const;

/** A layer states these fields twice and has no checksum, so a difference is the only sign of damage to either. */
function checkAgreement(header: LsmtRecord, trailer: LsmtRecord, name: string): void {
  for (const field of SHARED_FIELDS) {
    if (header[field] !== trailer[field]) {
      throw corrupt(`${name}: lsmt header and trailer differ in ${field}: ${header[field]} and ${trailer[field]}`);
    }
  }
  if ((header.flags ^ trailer.flags) & FLAG_SPARSE) throw corrupt(`${name}: lsmt header and trailer differ in whether the layer is sparse`);
  if (header.flags & FLAG_SEALED && Buffer.compare(header.userTag, trailer.userTag) !== 0) {
    throw corrupt(`${name}: lsmt header and trailer differ in userTag: "${tagText(header.userTag)}" and "${tagText(trailer.userTag)}"`);
  }
}

function checkIndexRange(trailer: LsmtRecord, trailerAt: number, maxPaddingBytes: number, where: string): void {
  const { indexOffset, indexEntries } = trailer;
  if (indexEntries > MAX_INDEX_ENTRIES) throw corrupt(`${where}: index has ${indexEntries} entries, expected at most ${MAX_INDEX_ENTRIES}`);
  const end = indexOffset + indexEntries * MAPPING_BYTES;
  if (indexOffset < LSMT_RECORD_BYTES || end > trailerAt || trailerAt - end > maxPaddingBytes) {
    throw corrupt(`${where}: index is at [${indexOffset}, ${end}), expected it to end at most ${maxPaddingBytes} before ${trailerAt}`);
  }
}

/** The mappings of an index in its order, without invalid entries. */
export function parseMappings(index: Uint8Array, into = new MappingList()): MappingList {
  const view = new DataView(index.buffer, index.byteOffset, index.byteLength);
  const fields: MappingFields = { firstSector: 0, sectors: 0, mappedSector: 0, zeroed: false, tag: 0 };
  for (let at = 0; at + MAPPING_BYTES <= index.length; at += MAPPING_BYTES) {
    decodeMapping(view, at, fields);
    if (fields.firstSector !== INVALID_FIRST_SECTOR)
      into.add(fields.firstSector, fields.sectors, fields.mappedSector, fields.zeroed, fields.tag);
  }
  return into;
}

/**
 * Tags on disk mean nothing in a merged layer, whose data is all in its own file; in a warp layer they select the file.
 * The latter shows in segments that claim more sectors than the data section has.
 */
function checkOneFile(mappings: Segments, trailer: LsmtRecord, name: string): void {
  let mapped = 0;
  let mixed = false;
  for (let i = 0; i < mappings.count; i++) {
    if (mappings.zeroed[i] === 0) mapped += mappings.sectors[i];
    if (mappings.tag[i] !== mappings.tag[0]) mixed = true;
  }
  const dataSectors = Math.floor(trailer.indexOffset / SECTOR_BYTES) - FIRST_DATA_SECTOR;
  if (mixed && mapped > dataSectors) {
    throw unsupported(
      `${name}: lsmt segments map ${mapped} sectors, the layer holds ${dataSectors}: this is the metadata of a turboOCI layer, which cannot be read without the tar that it points to`,
    );
  }
}

function checkSorted(mappings: Segments, indexOffset: number, name: string): void {
  for (let i = 1; i < mappings.count; i++) {
    const end = mappings.firstSector[i - 1] + mappings.sectors[i - 1];
    if (mappings.firstSector[i] < end) {
      throw corrupt(
        `${name}: lsmt index at ${indexOffset}: segment ${i} begins at sector ${mappings.firstSector[i]}, the one before it ends at ${end}`,
      );
    }
  }
}

/** Throws unless mapping `i` has a length and its data lies between the header and `endSector` of the file. */
export function checkMapping(mappings: Segments, i: number, endSector: number, where: string): void {
  const mapped = mappings.mappedSector[i];
  const end = mappings.zeroed[i] ? mapped : mapped + mappings.sectors[i];
  if (mappings.sectors[i] === 0 || mapped < FIRST_DATA_SECTOR || end > endSector) {
    throw corrupt(
      `${where}: segment ${i} (sectors ${mappings.firstSector[i]} + ${mappings.sectors[i]}) maps to [${mapped}, ${end}), expected a range inside of [${FIRST_DATA_SECTOR}, ${endSector}]`,
    );
  }
}
