import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { gunzipSync, zstdDecompressSync } from "node:zlib";
import { LazyError } from "../../src/errors.ts";
import { openLayoutStore } from "../../src/image-layout/layout-store.ts";
import { listImages } from "../../src/oci/image-selection.ts";
import { digestOf } from "../../src/oci/digest.ts";
import { verifyImage } from "../../src/verify/verify-image.ts";
import { convertLayout } from "../support/convert.ts";
import { assertClean, flatten } from "../support/flatten.ts";
import { writeImage } from "../support/image-builder.ts";
import { TemporaryDirectory } from "../support/temporary-directory.ts";

const FOLDER = new URL("../../testdata/tar/", import.meta.url);
/** The README's table: what the other tool makes of each archive, and the tree or refusal that is right. */
const ROWS = readFileSync(new URL("README.md", FOLDER), "utf8")
  .split("\n")
  .filter((line) => /^\| \S+\.(gz|zst) /.test(line))
  .map((line) => line.split("|").map((cell) => cell.trim()))
  .map(([, archive, , ours]) => ({ archive, ours }));

let scratch: TemporaryDirectory;
before(async () => (scratch = await TemporaryDirectory.create()));
after(async () => await scratch[Symbol.asyncDispose]());

for (const { archive, ours } of ROWS) {
  const isRefused = ours.startsWith("refused: ");
  test(`an image of ${archive} is ${isRefused ? "refused" : "converted to the right tree"}`, async () => {
    const [from, to] = [scratch.join(`${archive}-in`), scratch.join(`${archive}-out`)];
    const blob = readFileSync(new URL(archive, FOLDER));
    const tar = archive.endsWith(".zst") ? zstdDecompressSync(blob) : gunzipSync(blob);
    await writeImage(from, "x", { layers: [{ blob, diffId: digestOf(tar) }] });
    const failure: unknown = await convertLayout(from, "x", to).then(
      () => undefined,
      (error: unknown) => error,
    );
    if (isRefused) {
      assert.ok(failure instanceof LazyError, String(failure));
      assert.equal(failure.code, "CORRUPT");
      return;
    }
    assert.ifError(failure);
    const [source, converted] = [await openLayoutStore(from), await openLayoutStore(to)];
    const differences: unknown[] = [];
    const { images } = await verifyImage(
      { store: source, target: { tag: "x" } },
      { store: converted, target: { tag: "x" } },
      {
        platforms: [],
        signal: new AbortController().signal,
        observe: () => {},
        differs: (difference) => differences.push(difference),
      },
    );
    assert.deepEqual([images, differences], [1, []]);
    const [{ manifest }] = await listImages(converted, { tag: "x" });
    const device = scratch.join(`${archive}-device`);
    await flatten(converted, manifest, device, async () => await assertClean(device, archive));
  });
}

test("the table has rows", () => {
  assert.ok(ROWS.length >= 20 && ROWS.some(({ ours }) => ours.startsWith("refused: ")));
});
