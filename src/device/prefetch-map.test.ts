import assert from "node:assert/strict";
import { test } from "node:test";
import { load } from "../../test/support/recorded-tree.ts";
import { manifestOf } from "../../test/support/turbo-device.ts";
import { nativeLayer, recordedTurboLayers, WatchedPlace, type StoredLayer } from "../../test/support/turbo-image.ts";
import { TARGET_LAYERS } from "../formats/trace/layout.ts";
import { TraceRecorder } from "../formats/trace/trace-recorder.ts";
import { lookupPath } from "../tree/filesystem-reader.ts";
import { openDevice } from "./open-device.ts";
import { openFilesystem } from "./open-filesystem.ts";
import { TraceMap, type TracePart } from "./prefetch-map.ts";
import { ProgramReads } from "./prefetch-reads.ts";

const nativeLayers = (): StoredLayer[] => [0, 1, 2].map((layer) => nativeLayer(load(`overlaybd/stack-layer${layer}.commit.zst`)));

const sum = (parts: readonly TracePart[]): number => parts.reduce((total, { length }) => total + length, 0);

for (const [kind, layers] of [
  ["overlaybd", nativeLayers()],
  ["turboOCI", recordedTurboLayers("mkfs")],
  ["EROFS", recordedTurboLayers("erofs")],
] as const) {
  test(`what was read of a file is known to be that file's: ${kind}`, async () => {
    const device = await openDevice(new WatchedPlace(layers), manifestOf(layers));
    const map = await TraceMap.open(device, await openFilesystem(device));
    const recorder = new TraceRecorder();
    const reads = new ProgramReads(device);
    reads.record(recorder);
    const filesystem = await openFilesystem(reads);
    const inode = await lookupPath(filesystem, "/opt/random");
    const file = await filesystem.file(inode);
    const before = recorder.records.length;
    await file.read(0, file.size);
    const parts = recorder.records.slice(before).flatMap((record) => map.partsOf(record));
    const ofFiles = parts.filter((part) => part.kind === "file");
    assert.deepEqual([...new Set(ofFiles.map((part) => part.file))], [{ path: "/opt/random", size: file.size }]);
    assert.equal(sum(ofFiles), Math.ceil(file.size / 512) * 512);
    const [extent] = await filesystem.extents(inode);
    assert.equal(ofFiles[0].deviceOffset, extent.deviceOffset);
    assert.equal(map.placeOf(0), 0);
    const place = map.placeOf(extent.deviceOffset);
    assert.ok(place > 0 && place + extent.length <= map.usedBytes, `${place}`);
    assert.equal(map.placeOf(extent.deviceOffset + 512), place + 512);
    assert.equal(map.placeOf(device.size), map.usedBytes);
    await device.close();
  });
}

test("the parts of a record follow each other, and have its length, whatever it names", async () => {
  const layers = nativeLayers();
  const device = await openDevice(new WatchedPlace(layers), manifestOf(layers));
  const map = await TraceMap.open(device, await openFilesystem(device));
  const kinds = new Set<string>();
  for (const [layer, { files }] of device.layers.entries()) {
    const length = files[0].size + 12_345;
    const parts = map.partsOf({ op: "read", layer, offset: 0, length });
    assert.equal(sum(parts), length);
    assert.equal(parts[0].kind, "hidden", "a layer begins with its header");
    for (const { kind } of parts) kinds.add(kind);
  }
  assert.deepEqual([...kinds].toSorted(), ["file", "hidden", "metadata"]);
  for (const layer of [3, TARGET_LAYERS]) {
    assert.deepEqual(map.partsOf({ op: "read", layer, offset: 512, length: 1024 }), [{ kind: "hidden", length: 1024 }]);
  }
  await device.close();
});
