import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { test } from "node:test";
import * as z from "zod";
import { chanceOf } from "../../../test/support/recorded-file.ts";
import { TemporaryDirectory } from "../../../test/support/temporary-directory.ts";
import { UUID } from "../../../test/support/writable-forms.ts";
import { DiskFile } from "../../bytes/file.ts";
import { AppendLayer } from "./append-layer.ts";
import { SparseLayer } from "./sparse-layer.ts";
import type { FileExtent } from "./unsealed-layer.ts";
import { WarpUpper } from "./warp-upper.ts";
import type { WritableLayer } from "./writable-layer.ts";
import { openWritableStack } from "./writable-stack.ts";

const FIND_EXTENTS = `
import json, os, sys
found, at, file = [], 0, os.open(sys.argv[1], os.O_RDONLY)
while True:
    try: data = os.lseek(file, at, os.SEEK_DATA)
    except OSError: break
    at = os.lseek(file, data, os.SEEK_HOLE)
    found.append({"offset": data, "length": at - data})
print(json.dumps(found))
`;

function extentsOf(path: string): FileExtent[] {
  const output = execFileSync("python3", ["-c", FIND_EXTENTS, path], { encoding: "utf8" });
  return z.array(z.object({ offset: z.number(), length: z.number() })).parse(JSON.parse(output));
}

const forms = {
  append: {
    create: async (data: string, index: string, virtualSize: number): Promise<WritableLayer> =>
      await AppendLayer.create(await DiskFile.create(data), await DiskFile.create(index), { virtualSize, uuid: UUID }),
    open: async (data: string, index: string): Promise<WritableLayer> =>
      await AppendLayer.open(await DiskFile.open(data), await DiskFile.open(index)),
  },
  sparse: {
    create: async (data: string, _: string, virtualSize: number): Promise<WritableLayer> =>
      await SparseLayer.create(await DiskFile.create(data), { virtualSize, uuid: UUID }),
    open: async (data: string): Promise<WritableLayer> => await SparseLayer.open(await DiskFile.open(data), extentsOf(data)),
  },
  warp: {
    create: async (data: string, index: string, virtualSize: number): Promise<WritableLayer> =>
      await WarpUpper.create(await DiskFile.create(data), await DiskFile.create(index), { virtualSize, uuid: UUID }),
    open: async (data: string, index: string): Promise<WritableLayer> =>
      await WarpUpper.open(await DiskFile.open(data), await DiskFile.open(index)),
  },
};

for (const [name, form] of Object.entries(forms)) {
  test(`${name}: files on disk hold what was written, and holes where nothing was`, async () => {
    await using directory = await TemporaryDirectory.create();
    const [data, index] = [directory.join("data"), directory.join("index")];
    const size = 8 << 20;
    const model = Buffer.alloc(size);
    const chance = chanceOf(20_260);
    let stack = await openWritableStack(undefined, await form.create(data, index, size));
    for (let round = 0; round < 3; round++) {
      const places = Array.from({ length: 40 }, (_, i) => ({
        offset: i * 200_000 + chance.below(100_000),
        length: 1 + chance.below(60_000),
      }));
      await Promise.all(
        places.map(async ({ offset, length }, i) => {
          if (i % 5 === round) {
            model.fill(0, offset, offset + length);
            await stack.discard(offset, length);
          } else {
            model.fill(1 + i + round * 50, offset, offset + length);
            await stack.write(offset, model.subarray(offset, offset + length));
          }
        }),
      );
      await stack.flush();
      assert.equal(Buffer.compare(await stack.read(0, size), model), 0);
      await stack.close();
      stack = await openWritableStack(undefined, await form.open(data, index));
      assert.equal(Buffer.compare(await stack.read(0, size), model), 0, `opened again, round ${round}`);
    }
    await stack.close();
  });
}
