/** node bench/lazy/inflate-floor.ts FILE.gz...: seconds that the inflate kernel alone takes for these layers, and their content. */
import { closeSync, openSync, readSync } from "node:fs";
import { GzipDecoder } from "../../src/compression/gzip-decoder.ts";

const CHUNK_BYTES = 1 << 20;
const chunk = Buffer.allocUnsafe(CHUNK_BYTES);
let content = 0;
const start = performance.now();
for (const path of process.argv.slice(2)) {
  const file = openSync(path, "r");
  using decoder = new GzipDecoder(path);
  for (let bytes; (bytes = readSync(file, chunk, 0, CHUNK_BYTES, null)) > 0;) {
    decoder.push(chunk.subarray(0, bytes));
    for (let piece; (piece = decoder.next()) !== undefined;) content += piece.length;
  }
  decoder.close();
  closeSync(file);
}
console.log(JSON.stringify({ seconds: (performance.now() - start) / 1000, content }));
