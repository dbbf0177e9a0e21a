import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { EntryLog, type ScannedEntry } from "./entry-log.ts";

const byteString = (maxLength: number): fc.Arbitrary<string> =>
  fc.uint8Array({ maxLength }).map((bytes) => Buffer.from(bytes).toString("latin1"));
const time = fc
  .tuple(fc.oneof(fc.integer(), fc.maxSafeInteger()), fc.nat(999_999_999))
  .map(([seconds, nanoseconds]) => ({ seconds, nanoseconds }));
const count = fc.oneof(fc.nat(300), fc.maxSafeNat(), fc.constantFrom(0x7f, 0x80, 0x7fffffff, 0x80000000, 2 ** 53 - 1));
const entry: fc.Arbitrary<ScannedEntry> = fc
  .record({
    path: fc.oneof(byteString(20), fc.constantFrom("usr/share/a", "usr/share/ab", "usr", "")),
    type: fc.constantFrom("file", "directory", "symlink", "hardlink", "character", "block", "fifo"),
    mode: fc.nat(0o7777),
    uid: count,
    gid: count,
    mtime: time,
    others: fc.option(fc.tuple(time, time), { nil: undefined }),
    size: count,
    link: fc.oneof(fc.constant(""), byteString(30)),
    major: fc.nat(4095),
    minor: fc.nat(1 << 20),
    xattrs: fc.array(fc.tuple(byteString(10), fc.uint8Array({ maxLength: 40 })), { maxLength: 3 }).map((pairs) => new Map(pairs)),
    payloadBlock: count,
    runs: fc.array(
      fc.tuple(count, count).map(([fileBlock, blocks]) => ({ fileBlock, blocks })),
      { maxLength: 4 },
    ),
    extents: fc.option(
      fc.array(
        fc.tuple(count, count).map(([offset, length]) => ({ offset, length })),
        { maxLength: 3 },
      ),
      { nil: undefined },
    ),
  })
  .map(({ others, payloadBlock, extents, ...rest }) => ({
    ...rest,
    atime: others?.[0] ?? rest.mtime,
    ctime: others?.[1] ?? rest.mtime,
    extents: rest.runs.length === 0 ? [] : (extents ?? [{ offset: 0, length: rest.size }]),
    dataOffset: 0,
    payloadBlock: rest.runs.length > 0 ? payloadBlock : 0,
  }));

/** As an archive has them: one's data after the other's. */
function inArchive(entries: readonly ScannedEntry[]): ScannedEntry[] {
  return entries.map((one, at) => (one.runs.length === 0 ? one : { ...one, dataOffset: 512 + 1536 * at * at }));
}

test("entries come out as they went in, every time", () => {
  fc.assert(
    fc.property(fc.array(entry, { maxLength: 30 }).map(inArchive), (entries) => {
      const log = new EntryLog();
      for (const one of entries) log.append(one);
      assert.equal(log.count, entries.length);
      assert.deepEqual([...log], entries);
      assert.deepEqual([...log], entries);
      const moved = EntryLog.from(log.chunks().map((chunk) => structuredClone(chunk, { transfer: [chunk.buffer] })));
      assert.equal(moved.count, entries.length);
      assert.equal(moved.mayHide, log.mayHide);
      assert.deepEqual([...moved], entries);
    }),
    { verbose: 1 },
  );
});

test("a log says whether anything in it could hide a path", () => {
  const [plain] = fc.sample(entry, { numRuns: 1, seed: 1 });
  const hides = (fields: Partial<ScannedEntry>): boolean => {
    const log = new EntryLog();
    for (const one of [{ path: "a.w" }, fields, { path: "z" }]) log.append({ ...plain, link: "", ...one });
    assert.equal(EntryLog.from(log.chunks()).mayHide, log.mayHide);
    return log.mayHide;
  };
  assert.equal(hides({ path: "a.whole" }), false);
  for (const fields of [{ path: "a.wh.x" }, { path: "d/.wh.x" }, { path: "x", link: ".wh..wh.plnk/1" }]) assert.equal(hides(fields), true);
});

test("entries that go on in another chunk come out as they went in", () => {
  const entries = inArchive(fc.sample(entry, { numRuns: 2000, seed: 3 }));
  const log = new EntryLog();
  for (const one of entries) log.append(one);
  const chunks = log.chunks();
  assert.ok(chunks.length > 2, `${chunks.length} chunks`);
  assert.deepEqual([...EntryLog.from(chunks)], entries);
});

test("entries larger than what is set aside at a time have their own room", () => {
  const [small] = fc.sample(entry, { numRuns: 1, seed: 1 });
  const large = { ...small, xattrs: new Map([["user.large", new Uint8Array(3 << 20).fill(7)]]) };
  const log = new EntryLog();
  for (const one of [small, large, small]) log.append(one);
  const [first, second, third] = [...log];
  assert.deepEqual([first, third], [small, small]);
  assert.equal(Buffer.compare(second.xattrs.get("user.large")!, large.xattrs.get("user.large")!), 0);
});

test("a hundred thousand files of a package tree take less than 30 bytes each", () => {
  const log = new EntryLog();
  const [one] = fc.sample(entry, { numRuns: 1, seed: 1 });
  const before = process.memoryUsage().arrayBuffers;
  for (let at = 0; at < 100_000; at++) {
    const mtime = { seconds: 1_700_000_000, nanoseconds: 0 };
    log.append({
      ...one,
      path: `usr/share/doc/package-${Math.floor(at / 10)}/file-${at}`,
      type: "file",
      mtime,
      atime: mtime,
      ctime: mtime,
      mode: 0o644,
      uid: 0,
      gid: 0,
      size: 4000,
      link: "",
      major: 0,
      minor: 0,
      xattrs: new Map(),
      payloadBlock: at,
      runs: [{ fileBlock: 0, blocks: 1 }],
    });
  }
  assert.ok((process.memoryUsage().arrayBuffers - before) / 100_000 < 30);
});
