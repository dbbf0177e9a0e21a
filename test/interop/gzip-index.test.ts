import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import { gunzipSync, gzipSync } from "node:zlib";
import { decompress } from "../../src/compression/decompress.ts";
import { LayerIndexer } from "../../src/convert/layer-index.ts";
import { TemporaryDirectory } from "../support/temporary-directory.ts";

/**
 * Reads the content of the first member of argv[2] with the index argv[1] as overlaybd's runtime does, by zlib itself, and
 * writes the concatenated spans to argv[3]; the number of entries to stdout.
 */
const PROGRAM = `
import ctypes, struct, sys, zlib
index, stored = open(sys.argv[1], "rb").read(), open(sys.argv[2], "rb").read()
(magic, major, minor, algorithm, level, flags, span, window_bytes, entry_bytes, count, stored_bytes, index_bytes, content_bytes,
 reserved, start, length, crc) = struct.unpack("<8sBBBbBiiiqqqq256sqqI", index[:333])
register = 0
for byte in index[:329]:
    register ^= byte
    for _ in range(8): register = (register >> 1) ^ (0x82F63B78 if register & 1 else 0)
assert register == crc and magic == b"ddgzidx\\0" and (major, algorithm, entry_bytes) == (1, 1, 29)
assert index_bytes == len(index) == start + length and stored_bytes == len(stored) and window_bytes == 32768
table = zlib.decompress(index[start:])
entries = [struct.unpack("<qqqBI", table[at * 29:at * 29 + 29]) for at in range(count)]
assert len(table) == count * 29 and entries[0][0] == 0
class Stream(ctypes.Structure):
    _fields_ = [("next_in", ctypes.c_void_p), ("avail_in", ctypes.c_uint), ("total_in", ctypes.c_ulong),
                ("next_out", ctypes.c_void_p), ("avail_out", ctypes.c_uint), ("total_out", ctypes.c_ulong),
                ("rest", ctypes.c_void_p * 8)]
z = ctypes.CDLL("libz.so.1")
z.zlibVersion.restype = ctypes.c_char_p
out = open(sys.argv[3], "wb")
blob = ctypes.create_string_buffer(stored, len(stored))
for number, (content, at, window_at, bits, window_length) in enumerate(entries):
    wanted = (entries[number + 1][0] if number + 1 < count else content_bytes) - content
    window = zlib.decompress(index[window_at:window_at + window_length])
    assert len(window) == 32768
    stream, target = Stream(), ctypes.create_string_buffer(wanted)
    assert z.inflateInit2_(ctypes.byref(stream), -15, z.zlibVersion(), ctypes.sizeof(stream)) == 0
    if bits: assert z.inflatePrime(ctypes.byref(stream), bits, stored[at - 1] >> (8 - bits)) == 0
    assert z.inflateSetDictionary(ctypes.byref(stream), window, len(window)) == 0
    stream.next_in, stream.avail_in = ctypes.addressof(blob) + at, len(stored) - at
    stream.next_out, stream.avail_out = ctypes.addressof(target), wanted
    assert z.inflate(ctypes.byref(stream), 0) >= 0
    out.write(target.raw[:wanted - stream.avail_out])
    z.inflateEnd(ctypes.byref(stream))
print(count)
`;

const skip =
  spawnSync("python3", ["-c", 'import ctypes; ctypes.CDLL("libz.so.1").inflatePrime']).status === 0 ? false : "no python3, or no libz.so.1";

const LAYER = readFileSync(new URL("../../testdata/gzip-index/layer0.tar.gz", import.meta.url));
const TAR = gunzipSync(LAYER);
const LAYERS = [
  { name: "a layer of gzip -6", stored: LAYER },
  ...[1, 6, 9].map((level) => ({ name: `a layer of node:zlib, level ${level}`, stored: gzipSync(TAR, { level }) })),
  { name: "stored blocks", stored: gzipSync(TAR, { level: 0 }) },
  { name: "a layer with zeros behind it", stored: Buffer.concat([LAYER, Buffer.alloc(1000)]) },
];

async function indexOf(stored: Uint8Array, spanBytes: number): Promise<Uint8Array> {
  const indexer = new LayerIndexer(spanBytes);
  const { stream } = await decompress(
    (async function* () {
      yield stored;
    })(),
    "blob",
    indexer.observer,
  );
  for await (const chunk of stream) indexer.content(chunk);
  return (await indexer.finish()).file!.bytes;
}

for (const { name, stored } of LAYERS) {
  test(`zlib itself decodes every span with our index: ${name}`, { skip }, async () => {
    await using directory = await TemporaryDirectory.create();
    const [index, blob, output] = ["index", "blob", "output"].map((file) => directory.join(file));
    writeFileSync(blob, stored);
    for (const spanBytes of [2 ** 16, 2 ** 20]) {
      writeFileSync(index, await indexOf(stored, spanBytes));
      const { status, stdout, stderr } = spawnSync("python3", ["-c", PROGRAM, index, blob, output], { encoding: "utf8" });
      assert.equal(status, 0, stderr);
      assert.ok(Number(stdout) > 10, `${stdout} entries`);
      assert.ok(readFileSync(output).equals(TAR));
    }
  });
}
