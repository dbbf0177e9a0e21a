import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { deflateSync, gunzipSync, gzipSync, inflateSync } from "node:zlib";
import fc from "fast-check";
import type { SpanIndex } from "../../compression/span-index.ts";
import { LazyError } from "../../errors.ts";
import { gzipIndexEntry, gzipIndexHeader, headerCrc } from "./layout.ts";
import { parseGzipIndex } from "./gzip-index-reader.ts";

const testdata = new URL("../../../testdata/", import.meta.url);
const GOLDEN = [
  { index: "gzip-index/layer0.gzip.meta", blob: "gzip-index/layer0.tar.gz", spans: 22 },
  { index: "gzip-index/layer2.gzip.meta", blob: "overlaybd/layer2.tar.gz", spans: 1 },
].map(({ index, blob, spans }) => {
  const stored = readFileSync(new URL(blob, testdata));
  return { name: blob, index: readFileSync(new URL(index, testdata)), stored, content: gunzipSync(stored), spans };
});
const [LARGE, SMALL] = GOLDEN;

type Header = ReturnType<typeof gzipIndexHeader.decode>;
type Entry = ReturnType<typeof gzipIndexEntry.decode>;

interface Changes {
  readonly header?: Partial<Header>;
  /** Does as it likes with the entries. */
  readonly entries?: (entries: Entry[]) => void;
  readonly windows?: (windows: Uint8Array) => void;
}

/** An index that is not as it was, but in order as far as sizes and checksums go. */
function changed(index: Uint8Array, { header: fields = {}, entries: change, windows: damage }: Changes): Buffer {
  const header = gzipIndexHeader.decode(index);
  const table = inflateSync(index.subarray(header.entriesOffset));
  const entries = Array.from({ length: header.entryCount }, (_, at) => gzipIndexEntry.decode(table, at * gzipIndexEntry.size));
  change?.(entries);
  const windows = Buffer.from(index.subarray(gzipIndexHeader.size, header.entriesOffset));
  damage?.(windows);
  const stored = deflateSync(Buffer.concat(entries.map((entry) => gzipIndexEntry.encode(entry))));
  const indexBytes = header.entriesOffset + stored.length;
  const sizes = { entryCount: entries.length, entriesBytes: stored.length, indexBytes };
  const head = gzipIndexHeader.encode({ ...header, ...sizes, ...fields });
  gzipIndexHeader.encodeInto(head, { headerCrc: headerCrc(head) });
  return Buffer.concat([head, windows, stored]);
}

function contentOf(index: SpanIndex, stored: Uint8Array): Buffer {
  const spans = Array.from({ length: index.spanCount }, (_, span) => {
    const { start, end } = index.storedRange(span);
    return index.decode(span, stored.subarray(start, end));
  });
  return Buffer.concat(spans);
}

for (const { name, index: bytes, stored, content, spans } of GOLDEN) {
  test(`every span of ${name} is decoded with the index that another tool made`, () => {
    const index = parseGzipIndex(bytes, "index");
    assert.equal(index.spanCount, spans);
    assert.equal(index.storedBytes, stored.length);
    assert.equal(index.contentBytes, content.length);
    for (let span = 0; span < index.spanCount; span++) {
      const { start, end } = index.storedRange(span);
      const expected = content.subarray(index.contentOffset(span), index.contentOffset(span + 1));
      assert.ok(expected.equals(index.decode(span, stored.subarray(start, end))), `span ${span}`);
    }
  });
}

test("an index whose windows and entries are not compressed is read", () => {
  const header = gzipIndexHeader.decode(LARGE.index);
  const table = inflateSync(LARGE.index.subarray(header.entriesOffset));
  const windows: Uint8Array[] = [];
  for (let at = 0; at < header.entryCount; at++) {
    const entry = gzipIndexEntry.decode(table, at * gzipIndexEntry.size);
    windows.push(inflateSync(LARGE.index.subarray(entry.windowOffset, entry.windowOffset + entry.windowBytes)));
    entry.windowOffset = gzipIndexHeader.size + at * 32_768;
    entry.windowBytes = 32_768;
    gzipIndexEntry.encodeInto(table, entry, at * gzipIndexEntry.size);
  }
  const entriesOffset = gzipIndexHeader.size + windows.length * 32_768;
  const sizes = { dictionaryAlgorithm: 0, entriesOffset, entriesBytes: table.length, indexBytes: entriesOffset + table.length };
  const head = gzipIndexHeader.encode({ ...header, ...sizes });
  gzipIndexHeader.encodeInto(head, { headerCrc: headerCrc(head) });
  const plain = Buffer.concat([head, ...windows, table]);
  assert.ok(LARGE.content.equals(contentOf(parseGzipIndex(plain, "index"), LARGE.stored)));
  assert.throws(() => parseGzipIndex(plain.subarray(0, -1), "index"), { code: "CORRUPT" });
});

test("an index that only knows the first member gives that one's content", () => {
  const stored = Buffer.concat([LARGE.stored, gzipSync("more")]);
  const index = parseGzipIndex(changed(LARGE.index, { header: { storedBytes: stored.length } }), "index");
  assert.ok(LARGE.content.equals(contentOf(index, stored)));
});

test("entries without content are passed over", () => {
  const bytes = changed(LARGE.index, {
    entries: (entries) => {
      entries.splice(5, 0, { ...entries[5] }, { ...entries[5] });
      entries.push({ ...entries[0], contentOffset: LARGE.content.length, storedOffset: LARGE.stored.length });
    },
  });
  const index = parseGzipIndex(bytes, "index");
  assert.equal(index.spanCount, LARGE.spans);
  assert.ok(LARGE.content.equals(contentOf(index, LARGE.stored)));
});

test("what is no gzip index, or contradicts itself, is refused", () => {
  const refuses = (message: RegExp, bytes: Uint8Array, code = "CORRUPT"): void => {
    assert.throws(() => parseGzipIndex(bytes, "index"), { name: "LazyError", code, message });
  };
  const { index, content, stored } = LARGE;
  refuses(/^index: a gzip index of 332 bytes, expected 333 at least$/, index.subarray(0, 332));
  refuses(/^index: gzip index header: indexBytes is 63346, expected 63345$/, index.subarray(0, -1));
  refuses(/headerCrc/, Buffer.concat([index.subarray(0, 60), Buffer.from("x"), index.subarray(61)]));
  refuses(/^index: begins with .* expected a gzip index$/, LARGE.stored);
  const headers: [message: RegExp, header: Partial<Header>, code?: string][] = [
    [/begins with/, { magic: "ddgzidy" }],
    [/version 2, expected 1/, { majorVersion: 2 }, "UNSUPPORTED"],
    [/dictionaryAlgorithm is 2, expected 0 or 1/, { dictionaryAlgorithm: 2 }],
    [/windowBytes is 16384, expected 32768/, { windowBytes: 16_384 }],
    [/entryBytes is 30, expected 29/, { entryBytes: 30 }],
    [/indexBytes is 5, expected/, { indexBytes: 5 }],
    [/entriesBytes is \d+, expected/, { entriesOffset: 400 }],
    [/entries at 332, inside of the header/, { entriesOffset: 332, entriesBytes: index.length - 332 }],
    [/expected at most 1048576/, { entryCount: 2 ** 40 }, "UNSUPPORTED"],
    [/bytes cannot hold \d+/, { entryCount: 2 ** 20 }],
    [/gzip index entries: not the zlib data of 609 bytes/, { entryCount: 21 }],
    [/gzip index entries: 638 bytes, expected 667/, { entryCount: 23 }],
    [/100 bytes cannot have \d+ bytes of content/, { storedBytes: 100 }],
    [/entry \d+: begins at \d+ of 1000000 stored bytes/, { storedBytes: 1_000_000 }],
    [/entry \d+: begins at \d+ of 1000000 bytes of content/, { contentBytes: 1_000_000 }],
    [/no access point in \d+ bytes of content/, { contentBytes: content.length + 2 ** 25 }, "UNSUPPORTED"],
  ];
  for (const [message, header, code] of headers) refuses(message, Buffer.from(patched(index, header)), code);
  const entries: [message: RegExp, change: (entries: Entry[]) => void][] = [
    [/entry 0: begins at 1 of the content, expected 0/, ([first]) => (first.contentOffset = 1)],
    [/entry 3: begins at 5 of the content, before the last one/, (all) => (all[3].contentOffset = 5)],
    [/entry 3: begins at stored byte 11, before the last one/, (all) => (all[3].storedOffset = 11)],
    [/entry 21: begins at \d+ of \d+ stored bytes/, (all) => (all[21].storedOffset = stored.length + 1)],
    [/entry 2: 8 bits before byte/, (all) => (all[2].bits = 8)],
    [/entry 0: 1 bits before byte 0/, ([first]) => Object.assign(first, { storedOffset: 0, bits: 1 })],
    [/entry 4: its window is \[332, /, (all) => (all[4].windowOffset = 332)],
    [/entry 4: its window is \[/, (all) => (all[4].windowBytes = 2 ** 31)],
    [/a gzip index without entries/, (all) => (all.length = 0)],
  ];
  for (const [message, change] of entries) refuses(message, changed(index, { entries: change }));
});

function patched(index: Uint8Array, fields: Partial<Header>): Uint8Array {
  const bytes = Uint8Array.from(index);
  gzipIndexHeader.encodeInto(bytes, fields);
  gzipIndexHeader.encodeInto(bytes, { headerCrc: headerCrc(bytes) });
  return bytes;
}

test("an index that lies is found out where the data does not give what it says", () => {
  const { index, stored, content } = LARGE;
  const refuses = (message: RegExp, bytes: Uint8Array, blob: Uint8Array = stored): void => {
    const spans = parseGzipIndex(bytes, "index");
    assert.throws(() => contentOf(spans, blob), { name: "LazyError", code: "CORRUPT", message });
  };
  refuses(
    /expected \d+ bytes of content from the access point at byte \d+, found \d+/,
    patched(index, { contentBytes: content.length + 1 }),
  );
  refuses(
    /expected \d+ bytes of content from the access point at byte \d+, found more/,
    patched(index, { contentBytes: content.length - 1 }),
  );
  for (const shift of [-1, 1]) refuses(/found/, changed(index, { entries: (all) => (all[7].contentOffset += shift) }));
  refuses(/found|broken/, changed(index, { entries: (all) => (all[7].storedOffset += 1) }));
  refuses(/found|broken/, changed(index, { entries: (all) => (all[7].bits = (all[7].bits + 1) & 7) }));
  refuses(/gzip index window 0: not the zlib data of 32768 bytes/, changed(index, { windows: (bytes) => (bytes[5] ^= 1) }));
  const short = stored.subarray(0, -4);
  refuses(/the compressed data ends in the middle/, patched(index, { storedBytes: short.length }), short);
  const spans = parseGzipIndex(index, "index");
  assert.throws(() => spans.decode(0, stored), { code: "CORRUPT", message: /span 0 is 1863353 bytes, expected/ });
});

test("no bytes do more than be refused", () => {
  const numbers = ["contentOffset", "storedOffset", "windowOffset", "bits", "windowBytes"] as const;
  const value = fc.oneof(fc.nat(10), fc.nat(255), fc.nat(70_000), fc.constant(2 ** 31));
  const edits = fc.array(fc.tuple(fc.constantFrom(...numbers), value), { maxLength: 3 });
  const fields = fc.constantFrom("contentBytes", "storedBytes", "entryCount", "entriesOffset", "spanBytes", "windowBytes", "reserved");
  fc.assert(
    fc.property(edits, fields, fc.option(value), fc.option(fc.nat()), (all, field, number, flip) => {
      const entries = ([first]: Entry[]): void => all.forEach(([name, each]) => (first[name] = name === "bits" ? each & 0xff : each));
      const bytes = changed(SMALL.index, { entries, header: number === null || field === "reserved" ? {} : { [field]: number } });
      if (flip !== null) bytes[flip % bytes.length] ^= 1 << (flip & 7);
      try {
        contentOf(parseGzipIndex(bytes, "index"), SMALL.stored);
      } catch (error) {
        assert.ok(error instanceof LazyError, String(error));
      }
    }),
    { numRuns: 1500 },
  );
});
