import assert from "node:assert/strict";
import { existsSync, readdirSync, rmSync } from "node:fs";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { TemporaryDirectory } from "../../test/support/temporary-directory.ts";
import { messageOf } from "../errors.ts";
import { parseTrace } from "../formats/trace/trace-reader.ts";
import { TraceRecording, type TraceRecordingOptions } from "./prefetch-recording.ts";

const never: TraceRecordingOptions = { onFailure: (error) => assert.fail(messageOf(error)) };

test("a recording has a lock while it lasts, and when it has ended a trace and a sign that it is whole", async () => {
  await using directory = await TemporaryDirectory.create();
  const path = directory.join("app.trace");
  await writeFile(`${path}.ok`, "of the last time");
  const recording = await TraceRecording.start(path, never);
  assert.deepEqual(readdirSync(directory.path), ["app.trace.lock"]);
  recording.recorder.add(1, 512, 1024);
  await Promise.all([recording.end(), recording.end()]);
  await recording.discard();
  recording.recorder.add(1, 8192, 1024);
  assert.deepEqual(readdirSync(directory.path).toSorted(), ["app.trace", "app.trace.ok"]);
  assert.deepEqual(parseTrace(await readFile(path), "trace"), [{ op: "read", layer: 1, offset: 512, length: 1024 }]);
  assert.equal(recording.recorder.records.length, 1, "nothing is noted afterwards");
});

test("whoever removes the lock ends the recording", async () => {
  await using directory = await TemporaryDirectory.create();
  const path = directory.join("app.trace");
  const recording = await TraceRecording.start(path, { ...never, pollMs: 5 });
  recording.recorder.add(0, 0, 512);
  rmSync(`${path}.lock`);
  while (!existsSync(`${path}.ok`)) await sleep(5);
  assert.equal(parseTrace(await readFile(path), "trace").length, 1);
  await recording.end();
});

test("a recording that is discarded writes nothing", async () => {
  await using directory = await TemporaryDirectory.create();
  const recording = await TraceRecording.start(directory.join("app.trace"), never);
  await recording.discard();
  await recording.end();
  assert.deepEqual(readdirSync(directory.path), []);
});

test("nobody records what is being recorded", async () => {
  await using directory = await TemporaryDirectory.create();
  const path = directory.join("app.trace");
  const recording = await TraceRecording.start(path, never);
  const message = /app\.trace: no trace can be recorded: .*app\.trace\.lock is there: it is being recorded; remove that file if/;
  await assert.rejects(TraceRecording.start(path, never), { code: "USAGE", message });
  await recording.discard();
  const missing = { code: "USAGE", message: /no trace can be recorded: ENOENT/ };
  await assert.rejects(TraceRecording.start(directory.join("none", "app.trace"), never), missing);
});

test("a trace that cannot be written leaves neither lock nor parts of it, and is said", async () => {
  await using directory = await TemporaryDirectory.create();
  const path = directory.join("app.trace");
  await mkdir(path);
  const failed = { code: "UNAVAILABLE", message: /app\.trace: the trace cannot be written: EISDIR/ };
  await assert.rejects((await TraceRecording.start(path, never)).end(), failed);
  assert.deepEqual(readdirSync(directory.path), ["app.trace"]);
  const failures: string[] = [];
  await TraceRecording.start(path, { onFailure: (error) => failures.push(messageOf(error)), pollMs: 5 });
  rmSync(`${path}.lock`);
  while (failures.length === 0) await sleep(5);
  assert.match(failures[0], failed.message);
  assert.deepEqual(readdirSync(directory.path), ["app.trace"]);
});
