import assert from "node:assert/strict";
import { mkdir, readFile, truncate, writeFile } from "node:fs/promises";
import { after, before, test } from "node:test";
import { lazylayerInProcess } from "../../test/support/in-process.ts";
import { TemporaryDirectory } from "../../test/support/temporary-directory.ts";
import { TARGET_LAYERS, type TraceRecord } from "../formats/trace/layout.ts";
import { parseTrace } from "../formats/trace/trace-reader.ts";
import { encodeTrace } from "../formats/trace/trace-writer.ts";
import { tracePage } from "./trace-page.ts";
import { readTimes, writeTimes } from "./trace-times.ts";

const read = (layer: number, offset: number, length: number): TraceRecord => ({ op: "read", layer, offset, length });

let scratch: TemporaryDirectory;
before(async () => {
  scratch = await TemporaryDirectory.create();
  const records: TraceRecord[] = [read(2, 8192, 4096), read(TARGET_LAYERS + 1, 0, 512), { op: "write", layer: 0, offset: 1, length: 2 }];
  await writeFile(scratch.join("app.trace"), encodeTrace(records));
  await writeFile(scratch.join("app.list"), "usr/bin/app\n/etc/\n*\nodd\tname\u202e\n");
});
after(async () => await scratch[Symbol.asyncDispose]());

async function trace(...args: string[]): Promise<[status: number | null, stdout: string, stderr: string]> {
  const { status, stdout, stderr } = await lazylayerInProcess(["trace", ...args]);
  return [status, stdout.toString(), stderr];
}

test("a trace is printed a record a line, a list a path a line", async () => {
  const records = "0\t2\t8192\t4096\n1\t1.data\t0\t512\n2\t0\t1\t2\twrite\n";
  assert.deepEqual(await trace("show", scratch.join("app.trace")), [0, records, ""]);
  const paths = "/usr/bin/app\n/etc/\n/\n/odd\\u{9}name\\u{202e}\n";
  assert.deepEqual(await trace("show", scratch.join("app.list")), [0, paths, ""]);
});

test("an optimised trace may take the place of its source", async () => {
  const path = scratch.join("long.trace");
  await writeFile(path, encodeTrace([read(0, 0, 100), read(1, 0, 5), read(0, 40_000, 100), read(0, 0, 50)]));
  assert.deepEqual(await trace("optimize", path, "-o", path), [0, "", "4 records became 3\n"]);
  assert.deepEqual(parseTrace(await readFile(path), "long"), [read(0, 0, 100), read(1, 0, 5), read(0, 40_000, 100)]);
  assert.deepEqual(await trace("optimize", "--gap", "64", path, "-o", path), [0, "", "3 records became 2\n"]);
  assert.deepEqual(parseTrace(await readFile(path), "long"), [read(0, 0, 40_100), read(1, 0, 5)]);
});

test("what cannot be done is said before anything is", async () => {
  const [app, list] = [scratch.join("app.trace"), scratch.join("app.list")];
  await mkdir(scratch.join("directory"));
  await writeFile(scratch.join("huge"), "");
  await truncate(scratch.join("huge"), 2 ** 40);
  await writeFile(scratch.join("wrong.list"), "fine\n\nnot/*/fine\n");
  const rows: readonly (readonly [args: string[], status: number, expected: RegExp])[] = [
    [["show", "--html", scratch.join("x.html"), app], 2, /--html needs the image that the trace was recorded of/],
    [["show", "--times", app, app], 2, /--times is for the page that --html writes/],
    [["show", list, "oci:/nonexistent"], 2, /app\.list: is a list of paths: what it names is known without the image/],
    [["show", scratch.join("none")], 1, /none: ENOENT/],
    [["show", scratch.join("directory")], 1, /directory: is not a regular file/],
    [["show", scratch.join("huge")], 1, /huge: 1099511627776 bytes, expected a trace or a list of paths of at most/],
    [["show", scratch.join("wrong.list")], 1, /wrong\.list:3: "not\/\*\/fine": a \* may only stand/],
    [["show", app, "oci:/nonexistent"], 1, /nonexistent/],
    [["optimize", app], 2, /required option '-o, --output <file>' not specified/],
    [["optimize", "--gap", "1.5", app, "-o", app], 2, /a whole number of KiB from 0 to 1024/],
    [["optimize", list, "-o", scratch.join("x")], 2, /app\.list: is a list of paths; this is for traces/],
    [["optimize", app, "-o", scratch.join("none/x")], 2, /none\/x: no file can be written there: ENOENT/],
    [["optimize", app, "-o", scratch.join("directory")], 2, /directory: no file can be written there: is not a regular file/],
    [["record", "oci:/nonexistent", "--", "true"], 2, /required option '-o, --output <file>' not specified/],
    [["record", "-o", scratch.join("x"), "oci:/nonexistent"], 2, /missing required argument 'command'/],
    [["record", "-o", scratch.join("x"), "--time", "0", "oci:/nonexistent", "--", "true"], 2, /expected seconds, up to 86400/],
  ];
  for (const [args, status, expected] of rows) {
    const [found, stdout, stderr] = await trace(...args);
    assert.match(stderr, expected);
    assert.deepEqual([found, stdout], [status, ""], args.join(" "));
  }
});

test("a page says what there is of each file, the most read first, and of what is none", () => {
  const file = { path: "/a<b\x07\u00c3\u00a9", size: 1000 };
  const page = tracePage({
    image: "host/<app>:1",
    layers: 2,
    map: { placeOf: (offset) => offset, usedBytes: 8192 },
    records: [read(0, 0, 2048), read(1, 0, 3072)],
    parts: [
      [
        { kind: "hidden", length: 512 },
        { kind: "file", file, deviceOffset: 0, length: 1024 },
        { kind: "metadata", deviceOffset: 4096, length: 512 },
      ],
      [{ kind: "metadata", deviceOffset: 4608, length: 3072 }],
    ],
  });
  assert.match(page, /<title>host\/&#60;app&#62;:1: what was read<\/title>/);
  const rows = [...page.matchAll(/<tr><td>(.*)<\/td><\/tr>/g)].map(([, cells]) => cells.split("</td><td>"));
  assert.deepEqual(rows, [
    ["3.6 kB", "70.0 %", "", "1.5 kB", "<i>the file system's own</i>"],
    ["1.0 kB", "20.0 %", "100.0 %", "512 B", "/a&#60;b\\u{7}é"],
    ["512 B", "10.0 %", "", "0 B", "<i>not shown by the device</i>"],
  ]);
  assert.equal([...page.matchAll(/<path fill="hsl/g)].length, 2, "each layer has its colour");
  assert.match(page, /d="M100 0h200v53h-200zM300 210h100v27h-100z"/);
  assert.match(page, /d="M400 236h600v158h-600z"/);
});

test("a page with times shows when reads began", () => {
  const part = { kind: "metadata", deviceOffset: 0, length: 4096 } as const;
  const page = tracePage({
    image: "app",
    layers: 1,
    map: { placeOf: (offset) => offset, usedBytes: 8192 },
    records: [read(0, 0, 4096), read(0, 8192, 4096), read(0, 16384, 4096)],
    parts: [[part], [part], [{ kind: "hidden", length: 4096 }]],
    timesMs: [500, 1000, 2000],
  });
  assert.match(page, /d="M250 0h4v210h-4zM500 0h4v210h-4z"/);
  assert.match(page, /since the mount began \(0 to 2\.000 s\)/);
  assert.match(page, /<td>0\.500 s<\/td><td><i>the file system's own/);
  assert.match(page, /<td>2\.000 s<\/td><td><i>not shown/);
});

test("times are those of the trace, or refused", async () => {
  const path = scratch.join("times");
  await writeTimes(path, [0, 1.4, 1.6, 99_999]);
  assert.deepEqual(await readTimes(path, 4), [0, 1, 2, 99_999]);
  await assert.rejects(readTimes(path, 3), {
    code: "USAGE",
    message: /has the times of 4 records, the trace has 3: it is of another trace/,
  });
  for (const [text, message] of [
    ["1\n0\n", /times:2: "0", expected milliseconds, not less than the line before/],
    ["1\n-2\n", /times:2: "-2"/],
    ["0x1\n2\n", /times:1: "0x1"/],
    ["1\n1e9\n", /times:2: "1e9"/],
    ["1\n\n", /times:2: ""/],
  ] as const) {
    await writeFile(path, text);
    await assert.rejects(readTimes(path, 2), { code: "USAGE", message });
  }
  await truncate(path, 2 ** 40);
  await assert.rejects(readTimes(path, 2), { code: "USAGE", message: /1099511627776 bytes are more than any trace has times/ });
  await assert.rejects(readTimes(scratch.join("no-times"), 2), { code: "USAGE", message: /the times cannot be read: ENOENT/ });
});

test("a page of nothing is a page", () => {
  const page = tracePage({ image: "a", layers: 0, map: { placeOf: () => 0, usedBytes: 0 }, records: [], parts: [] });
  assert.match(page, /<p>0 reads of 0 B/);
  assert.doesNotMatch(page, /NaN|Infinity/);
});
