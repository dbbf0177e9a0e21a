import { createReadStream } from "node:fs";
import { createGunzip } from "node:zlib";
import { tarHeader, tarMember } from "../../test/support/tar-builder.ts";

const MTIME = 1_700_000_000;
const BLOCK_BYTES = 512;
const END = new Uint8Array(2 * BLOCK_BYTES);
const MIB = 2 ** 20;

/** Layer `number` of many tiny ones: a file that each layer replaces, one of its own, now and then a deletion. */
export function* tinyLayer(number: number): Generator<Uint8Array> {
  yield tarMember({ name: "etc/", mtime: MTIME });
  yield tarMember({ name: "etc/release-number", mtime: MTIME + number, data: `${number}\n` });
  yield tarMember({ name: "opt/", mtime: MTIME });
  yield tarMember({ name: "opt/notes/", mtime: MTIME });
  yield tarMember({ name: `opt/notes/release-${number}.txt`, mtime: MTIME + number, data: text(number, 900) });
  if (number % 10 === 9) yield tarMember({ name: `opt/notes/.wh.release-${number - 5}.txt`, mtime: MTIME });
  yield END;
}

/** A layer that changes one file of a Debian root. */
export function* oneFileLayer(): Generator<Uint8Array> {
  yield tarMember({ name: "etc/debian_version", mtime: MTIME, data: "one file is another\n" });
  yield END;
}

/** Small files as a package manager for scripts leaves them: a few hundred bytes to a few kilobytes each, 50 to a directory. */
export function* manyFilesLayer(files: number): Generator<Uint8Array> {
  yield tarMember({ name: "srv/", mtime: MTIME });
  yield tarMember({ name: "srv/modules/", mtime: MTIME });
  const random = generator(1);
  for (let at = 0; at < files; at++) {
    const name = `srv/modules/package-${Math.floor(at / 500)}/part-${Math.floor(at / 50) % 10}/`;
    if (at % 500 === 0) yield tarMember({ name: `srv/modules/package-${at / 500}/`, mtime: MTIME });
    if (at % 50 === 0) yield tarMember({ name, mtime: MTIME });
    yield tarMember({ name: `${name}a-module-${at}.js`, mtime: MTIME, data: text(at, 200 + (random() % 3000)) });
  }
  yield END;
}

/**
 * About `totalBytes` of tar in a few files: by turns the tar archive of a Debian layer (gzip, at `path`) and as much as a third of
 * it that does not compress.
 */
export async function* mixedLayer(path: string, tarBytes: number, totalBytes: number): AsyncGenerator<Uint8Array> {
  yield tarMember({ name: "srv/", mtime: MTIME });
  const noiseBytes = Math.ceil(tarBytes / 3);
  for (let at = 0, number = 0; at < totalBytes; number++, at += tarBytes + noiseBytes) {
    yield tarHeader({ name: `srv/system-${number}.tar`, mtime: MTIME }, tarBytes);
    yield* padded(createReadStream(path, { highWaterMark: MIB }).pipe(createGunzip({ chunkSize: MIB })), tarBytes);
    yield tarHeader({ name: `srv/noise-${number}.bin`, mtime: MTIME }, noiseBytes);
    yield* padded(noise(number, noiseBytes), noiseBytes);
  }
  yield END;
}

async function* padded(pieces: Iterable<Uint8Array> | AsyncIterable<Uint8Array>, bytes: number): AsyncGenerator<Uint8Array> {
  let seen = 0;
  for await (const piece of pieces) {
    seen += piece.length;
    yield piece;
  }
  if (seen !== bytes) throw new Error(`a file of ${bytes} bytes came as ${seen}`);
  yield new Uint8Array((BLOCK_BYTES - (bytes % BLOCK_BYTES)) % BLOCK_BYTES);
}

function* noise(seed: number, bytes: number): Generator<Uint8Array> {
  const random = generator(seed);
  for (let at = 0; at < bytes; at += MIB) {
    const words = new Uint32Array(MIB / 4);
    for (let word = 0; word < words.length; word++) words[word] = random();
    yield new Uint8Array(words.buffer, 0, Math.min(MIB, bytes - at));
  }
}

const WORDS = Array.from({ length: 2048 }, (_, at) => {
  const random = generator(at);
  return Array.from({ length: 2 + (random() % 9) }, () => String.fromCharCode(97 + (random() % 26))).join("");
});

/** So many bytes of words, some of them often: compresses about as source text does. */
function text(seed: number, bytes: number): string {
  const random = generator(seed);
  let words = "";
  while (words.length < bytes) {
    const rank = Math.floor(WORDS.length ** ((random() % 4096) / 4096)) - 1;
    words += `${WORDS[rank]}${random() % 8 === 0 ? ";\n" : " "}`;
  }
  return words.slice(0, bytes);
}

/** Numbers of 32 bits that depend on the seed only (xorshift32, seeds spread by a multiplication). */
function generator(seed: number): () => number {
  let state = (Math.imul(seed + 1, 0x9e3779b1) ^ 0x5bd1e995) >>> 0 || 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state = (state ^ (state << 5)) >>> 0;
    return state;
  };
}
