import assert from "node:assert/strict";
import { test } from "node:test";
import { Directory, type DirectoryBlocks } from "./directory.ts";
import { HASH_HALF_MD4 } from "./directory-hash.ts";

const OPTIONS = { blockBytes: 4096, hash: { version: HASH_HALF_MD4, signed: true, seed: new Uint32Array(4) }, seed: 1 };

/** A directory's blocks, and which of them were read and written. */
class Blocks {
  readonly bytes = new Map<number, Uint8Array>();
  readonly read = new Set<number>();
  readonly written = new Set<number>();

  write(directory: Directory): void {
    directory.layOut();
    directory.encode((fileBlock, bytes) => {
      this.bytes.set(fileBlock, bytes);
      this.written.add(fileBlock);
    });
  }

  /** The same blocks as a directory reads them; what was read and written before is forgotten. */
  reread(): DirectoryBlocks {
    this.read.clear();
    this.written.clear();
    const read = (fileBlock: number): Uint8Array => {
      this.read.add(fileBlock);
      return this.bytes.get(fileBlock)!;
    };
    return { count: this.bytes.size, read };
  }
}

function filled(names: number): Blocks {
  const directory = Directory.create(12, 2, OPTIONS);
  for (let index = 0; index < names; index++) directory.insert(`name-${index}`, 100 + index, 1);
  const blocks = new Blocks();
  blocks.write(directory);
  return blocks;
}

test("a change in a large directory reads and writes its index and one leaf", () => {
  const blocks = filled(20_000);
  assert.ok(blocks.bytes.size > 90, `${blocks.bytes.size} blocks`);
  const directory = Directory.load(12, blocks.reread(), true, OPTIONS);
  assert.equal(directory.lookup("name-777"), 877);
  assert.equal(directory.lookup("name-777x"), undefined);
  directory.remove("name-777");
  directory.remove("name-777x");
  blocks.write(directory);
  assert.ok(blocks.read.size <= 4, `read ${[...blocks.read].join()}`);
  assert.deepEqual(blocks.written.size, 2, `wrote ${[...blocks.written].join()}`);
  const names = [...Directory.load(12, blocks.reread(), true, OPTIONS).entries()].map(({ name }) => name);
  assert.deepEqual(new Set(names), new Set(Array.from({ length: 20_000 }, (_, at) => `name-${at}`).filter((name) => name !== "name-777")));
});

test("a packed directory comes back with what its blocks do not say", () => {
  for (const count of [0, 10, 5000]) {
    const written = filled(count);
    const change = (directory: Directory): Directory => {
      for (let index = 0; index < count; index += 3) directory.remove(`name-${index}`);
      for (let index = 0; index < 300; index++) directory.insert(`more-${index}`, 9000 + index, 2);
      return directory;
    };
    const load = (): Directory => Directory.load(12, written.reread(), count === 5000, OPTIONS);
    assert.equal(load().packed(), undefined, "nothing to say");
    const expected = new Blocks();
    expected.write(change(load()));
    const packed = change(load()).packed()!;
    const found = new Blocks();
    found.write(Directory.unpack(12, packed, written.reread(), count === 5000, OPTIONS));
    assert.deepEqual(found.bytes, expected.bytes, `${count} names`);
  }
});

test("a name that occurs twice in a block is corrupt", () => {
  const blocks = filled(2);
  const bytes = Buffer.from(blocks.bytes.get(0)!);
  bytes[bytes.indexOf("name-1") + 5] = "0".charCodeAt(0);
  blocks.bytes.set(0, bytes);
  assert.throws(() => Directory.load(12, blocks.reread(), false, OPTIONS), { code: "CORRUPT", message: /"name-0" occurs twice/ });
});
