import { z } from "zod";
import type { FileExtent } from "../../src/formats/lsmt/unsealed-layer.ts";
import { run } from "./command.ts";

/** Where a file has data, as its filesystem says. */
export async function findDataExtents(path: string): Promise<FileExtent[]> {
  const script = `
import errno, json, os, sys
fd, found, at = os.open(sys.argv[1], os.O_RDONLY), [], 0
while True:
    try: start = os.lseek(fd, at, os.SEEK_DATA)
    except OSError as error:
        if error.errno != errno.ENXIO: raise
        break
    at = os.lseek(fd, start, os.SEEK_HOLE)
    found.append({"offset": start, "length": at - start})
print(json.dumps(found))`;
  return z.array(z.object({ offset: z.int(), length: z.int() })).parse(JSON.parse((await run("python3", ["-c", script, path])).toString()));
}
