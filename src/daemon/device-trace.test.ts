import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { test } from "node:test";
import { layOutImage } from "../../test/support/image-directories.ts";
import { TemporaryDirectory } from "../../test/support/temporary-directory.ts";
import { openImageConfig } from "../device/image-config.ts";
import { parseTrace } from "../formats/trace/trace-reader.ts";
import { openDeviceTrace } from "./device-trace.ts";

test("a recording that is full says so once, and the trace has what came before", async () => {
  await using directory = await TemporaryDirectory.create();
  const { upper, ...config } = await layOutImage("stack-mkfs", directory);
  const recordTracePath = directory.join("trace");
  await writeFile(recordTracePath, "");
  const readOnly = { ...config, upper: { ...upper, data: "", index: "" }, recordTracePath };
  const places = { openRemote: async () => assert.fail("nothing is remote"), cache: undefined, gzipCache: undefined, notice: assert.fail };
  const image = await openImageConfig(readOnly, places);
  assert.ok(image.isReadOnly);
  const said: string[] = [];
  const log = (level: string, message: string): void => void said.push(`${level} ${message}`);
  const trace = await openDeviceTrace(image, { concurrency: 1, maxBytes: 1, maxRecords: 2, log });
  for (const megabyte of [0, 8, 16]) await image.reads.read(megabyte << 20, 8 << 20);
  await trace?.close();
  await image.device.close();
  assert.equal(parseTrace(await readFile(recordTracePath), "trace").length, 2);
  assert.deepEqual(
    said.filter((line) => !line.startsWith("info ")),
    [`error ${recordTracePath}: the recording is full, with 2 reads; what else is read is not recorded`],
  );
});
