import { EntryLog } from "../../convert/entry-log.ts";
import { PayloadPacker } from "../../convert/payload-packer.ts";
import { corrupt, LazyError, unsupported } from "../../errors.ts";
import { ExtendedHeaders } from "../../tar/extended-headers.ts";
import { BLOCK_BYTES, parseHeader } from "../../tar/header.ts";
import { parseMember, storedSize, type TarEntry } from "../../tar/tar-entry.ts";
import { TarReader } from "../../tar/tar-reader.ts";
import { quoted } from "../../tree/path.ts";
import { StreamReader } from "./stream-reader.ts";

/*
 * A dump of an archive's headers: its header blocks with the bodies of extended headers, without the files' data. The header of
 * a file has the offset of its data in the archive where others have the major number of a device; so its checksum is wrong.
 * See docs/tools.md.
 */

const CHECKSUM = { offset: 148, length: 8 } as const;
const DATA_OFFSET = { offset: 329, length: 8 } as const;
const TYPE_OFFSET = 156;
const SIZE = { offset: 124, length: 12 } as const;
const MAX_BODY_BYTES = 1 << 20;

/** The dump of an uncompressed archive, block by block. Throws `CORRUPT` for an archive that is broken. */
export async function* dumpHeaders(chunks: AsyncIterable<Uint8Array>, name: string): AsyncGenerator<Buffer, void> {
  const reader = new StreamReader(chunks, name);
  const extended = new ExtendedHeaders();
  for (let zeroBlocks = 0; zeroBlocks < 2;) {
    const at = reader.position;
    const block = await reader.read(BLOCK_BYTES);
    if (block === undefined) break;
    const header = located(name, at, () => parseHeader(block, 0));
    if (header === undefined) {
      zeroBlocks++;
    } else if (zeroBlocks > 0) {
      throw corrupt(`${name}: tar header at ${at}: it follows a lone block of zeros; two of them end an archive, none may come earlier`);
    } else if (ExtendedHeaders.isExtension(header.typeflag)) {
      located(name, at, () => extended.begin(header.typeflag, header.size));
      const body = (await reader.read(padded(header.size))) ?? Buffer.alloc(0);
      located(name, at, () => {
        extended.addBody(body, 0);
        extended.endBody();
      });
      yield block;
      yield body;
    } else {
      const { records, long } = extended.take();
      const { type, path } = located(name, at, () => parseMember(header, records, long));
      if (header.typeflag === "S" || records.get("GNU.sparse.major") === "1") {
        throw unsupported(`${name}: ${quoted(path)} is a sparse file whose map is in its data, which a dump of headers leaves out`);
      }
      if (type === "file") block.writeBigInt64LE(BigInt(reader.position), DATA_OFFSET.offset);
      yield block;
      await reader.skip(padded(located(name, at, () => storedSize(header, records, type))));
    }
  }
  await reader.end();
}

/** The entries of a dumped archive, with the places of their data in it. */
export async function readHeaderDump(
  chunks: AsyncIterable<Uint8Array>,
  name: string,
): Promise<{ entries: EntryLog; payloadBlocks: number }> {
  const reader = new StreamReader(chunks, name);
  const entries = new EntryLog();
  const packer = new PayloadPacker(undefined);
  let dataOffset = 0;
  const append = (entry: TarEntry): void => {
    const { payloadBlock, runs } = packer.beginFile(entry);
    entries.append({ ...entry, dataOffset: runs.length === 0 ? 0 : dataOffset, payloadBlock, runs });
  };
  const archive = new TarReader({ entry: append, data: () => {}, entryEnd: () => packer.endFile() }, name);
  for (let at = 0, last = 0; ; at = reader.position) {
    const block = await reader.read(BLOCK_BYTES);
    if (block === undefined) break;
    const typeflag = block.toString("latin1", TYPE_OFFSET, TYPE_OFFSET + 1);
    if (isFile(typeflag)) {
      dataOffset = takeDataOffset(block, `${name}: header at ${at}`, last);
      last = dataOffset;
    }
    archive.write(block);
    if (ExtendedHeaders.isExtension(typeflag))
      archive.write((await reader.read(bodyBytes(block, `${name}: header at ${at}`))) ?? Buffer.alloc(0));
    archive.skip(Number.MAX_SAFE_INTEGER - archive.position);
  }
  archive.close();
  return { entries, payloadBlocks: packer.blocks };
}

/** Takes the offset out of a header, which becomes what it was but for the field itself. */
function takeDataOffset(block: Buffer, where: string, last: number): number {
  const offset = block.readBigInt64LE(DATA_OFFSET.offset);
  if (offset < BigInt(last) || offset > BigInt(Number.MAX_SAFE_INTEGER) || offset % BigInt(BLOCK_BYTES) !== 0n) {
    throw corrupt(`${where}: data is at ${offset}, expected a multiple of ${BLOCK_BYTES} from ${last} on: this is no dump of tar headers`);
  }
  block.fill(0, DATA_OFFSET.offset, DATA_OFFSET.offset + DATA_OFFSET.length);
  block.fill(" ", CHECKSUM.offset, CHECKSUM.offset + CHECKSUM.length);
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${sum.toString(8).padStart(6, "0")}\0 `, CHECKSUM.offset, "latin1");
  return Number(offset);
}

function isFile(typeflag: string): boolean {
  return typeflag === "0" || typeflag === "\0" || typeflag === "7";
}

function bodyBytes(block: Buffer, where: string): number {
  const digits = block
    .toString("latin1", SIZE.offset, SIZE.offset + SIZE.length)
    .replace(/[\0 ]+$/, "")
    .trimStart();
  const size = /^[0-7]*$/.test(digits) ? Number.parseInt(digits || "0", 8) : Number.NaN;
  if (!(size <= MAX_BODY_BYTES)) throw corrupt(`${where}: extended header of "${digits}" bytes, expected at most ${MAX_BODY_BYTES}`);
  return padded(size);
}

function padded(bytes: number): number {
  return Math.ceil(bytes / BLOCK_BYTES) * BLOCK_BYTES;
}

function located<R>(name: string, at: number, parse: () => R): R {
  try {
    return parse();
  } catch (error) {
    if (!(error instanceof LazyError)) throw error;
    throw new LazyError(error.code, `${name}: tar header at ${at}: ${error.message}`, { cause: error });
  }
}
