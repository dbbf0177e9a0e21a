import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";

const SOURCE = new URL("../../testdata/images", import.meta.url).pathname;
const GZIP_LAYER = "a0f179cc75f0484b3eeb5352bfc557b399f88061320cbecaaeb41a5187ec6abb";
const PLAIN_LAYER = "34165a27b9f3fac59e8954049e8e484688ddee64e4cea2e674c2d2eaa6bb5d87";

/** The layout of testdata/images, complete, in a directory of its own. */
export interface ImagesLayout extends AsyncDisposable {
  readonly directory: string;
}

export async function copyImages(): Promise<ImagesLayout> {
  const directory = await mkdtemp(join(tmpdir(), "lazylayer-images-"));
  const blobs = join(directory, "blobs/sha256");
  await cp(SOURCE, directory, { recursive: true });
  await writeFile(join(blobs, PLAIN_LAYER), gunzipSync(await readFile(join(blobs, GZIP_LAYER))));
  return { directory, [Symbol.asyncDispose]: async () => rm(directory, { recursive: true, force: true }) };
}
