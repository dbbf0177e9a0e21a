import assert from "node:assert/strict";
import { Writable } from "node:stream";
import { describe, it } from "node:test";
import { Screen } from "../../../test/support/screen.ts";
import { digestOf } from "../../oci/digest.ts";
import { byteText, durationText } from "./byte-text.ts";
import { totalLine } from "./conversion-lines.ts";
import { ConversionProgress } from "./conversion-progress.ts";
import { ConversionTally } from "./conversion-tally.ts";
import { PlainDisplay } from "./plain-display.ts";
import type { ProgressMode } from "./progress-display.ts";
import { TerminalDisplay } from "./terminal-display.ts";

const ESCAPE = "\u001b";
const MB = 1_000_000;
const DIGESTS = Array.from({ length: 40 }, (_, number) => digestOf(Buffer.from(`layer ${number}`)));
const short = (number: number): string => DIGESTS[number].slice(7, 19);

/** An image of layers of these sizes has been begun. */
function started(tally: ConversionTally, sizes: readonly number[], image = 0, platform = "amd64"): void {
  const layers = sizes.map((bytes, number) => ({ digest: DIGESTS[number], bytes }));
  tally.imageStarted({ image, name: `image ${image}`, platform: { os: "linux", architecture: platform }, layers, results: 1 });
}

const tallyOf = (sizes: readonly number[], uploads = true): ConversionTally => {
  const tally = new ConversionTally({ uploads, blobBytesPerStoredByte: 1.6 }, () => {});
  started(tally, sizes);
  return tally;
};

describe("a conversion's tally", () => {
  it("adds up what was read, converted, sent and found", () => {
    const tally = tallyOf([100, 50, 30]);
    tally.layerRead({ image: 0, layer: 0 }, 100);
    tally.layerConverted({ image: 0, layer: 0 }, 160);
    tally.layerSent({ image: 0, layer: 0 }, 160);
    tally.layerSent({ image: 0, layer: 0 }, 40); // once more
    tally.layerDone({ image: 0, layer: 0 }, "uploaded", 160);
    tally.layerDone({ image: 0, layer: 1 }, "reused", 70);
    assert.deepEqual(tally.bytes, { read: 100, converted: 160, sent: 160, reused: 70 });
    assert.deepEqual(tally.totals(), { layers: 3, layersDone: 2, bytes: 180, readBytes: 150, work: 180 + 160 + 70 + 48, workDone: 380 });
    tally.imageDone(0, "converted", DIGESTS[0]);
    const { layersDone, layers, work, workDone } = tally.totals();
    assert.deepEqual([layersDone, workDone], [layers, work]);
  });

  it("expects nothing to be sent when nothing is pushed, and takes no news of layers that it does not know", () => {
    const tally = tallyOf([100], false);
    assert.equal(tally.totals().work, 100);
    tally.layerRead({ image: 3, layer: 0 }, 5);
    tally.layerDone({ image: 0, layer: 9 }, "kept", 5);
    tally.imageDone(7, "copied", DIGESTS[0]);
    assert.equal(tally.totals().readBytes, 0);
  });
});

describe("progress on a terminal", () => {
  it("is a line for each layer and one for all, written over the ones before", () => {
    const screen = new Screen();
    const tally = tallyOf([40 * MB, 20 * MB, 10 * MB]);
    const display = new TerminalDisplay(screen, tally, { color: false });
    display.draw(0);
    tally.layerRead({ image: 0, layer: 0 }, 10 * MB);
    tally.layerRead({ image: 0, layer: 1 }, 20 * MB);
    display.draw(1000);
    tally.layerRead({ image: 0, layer: 0 }, 10 * MB);
    tally.layerDone({ image: 0, layer: 2 }, "exists", 17 * MB);
    display.draw(2000);
    assert.deepEqual(screen.lines, [
      `${short(0)}  reading     20.0 MB of 40.0 MB  10.0 MB/s`,
      `${short(1)}  converting  20.0 MB`,
      `${short(2)}  was there   17.0 MB`,
      "converting: 1 of 3 layers, 50 of 70 MB, 25 MB/s, about 3 s left",
    ]);
    display.stop();
    assert.deepEqual(screen.lines, [], "nothing of it stays");
  });

  it("keeps notes above, and names platforms if there are several", () => {
    const screen = new Screen();
    const tally = tallyOf([MB]);
    started(tally, [MB], 1, "arm64");
    const display = new TerminalDisplay(screen, tally, { color: false });
    display.draw(0);
    display.note("warning", "look at this");
    display.draw(200);
    assert.deepEqual(screen.lines, [
      "warning: look at this",
      `linux/amd64  ${short(0)}  waiting     1.0 MB`,
      `linux/arm64  ${short(0)}  waiting     1.0 MB`,
      "converting: 0 of 2 layers, 0 of 2 MB",
    ]);
    display.stop();
    assert.deepEqual(screen.lines, ["warning: look at this"]);
  });

  it("never takes more lines or columns than there are", () => {
    for (const rows of [1, 2, 3, 5, 10, 39, 40, 41, 42, 60]) {
      const screen = new Screen(rows, 30);
      const tally = tallyOf(DIGESTS.map(() => MB));
      const display = new TerminalDisplay(screen, tally, { color: true });
      for (let layer = 0; layer < 40; layer++) {
        tally.layerRead({ image: 0, layer }, layer % 2 === 0 ? MB / 2 : MB);
        if (layer % 3 === 0) tally.layerDone({ image: 0, layer }, "uploaded", MB);
        display.draw(layer * 1000);
        assert.ok(screen.lines.length <= Math.max(1, rows - 1), `${rows} rows`);
        for (const line of screen.lines) assert.ok(line.length < 30, line);
      }
      display.stop();
    }
  });

  it("collapses layers that are done or waiting when there is not enough room", () => {
    const screen = new Screen(6);
    const tally = tallyOf(DIGESTS.map(() => MB));
    const display = new TerminalDisplay(screen, tally, { color: false });
    for (const layer of [0, 1, 2]) tally.layerDone({ image: 0, layer }, "uploaded", MB);
    tally.layerRead({ image: 0, layer: 4 }, 1);
    display.draw(0);
    assert.deepEqual(screen.lines.slice(0, 3), ["3 layers done", `${short(4)}  reading     1 B of 1.0 MB`, "36 more layers"]);
    display.stop();
  });

  it("has no colors when they are not wanted", () => {
    for (const color of [true, false]) {
      const screen = new Screen();
      const display = new TerminalDisplay(screen, tallyOf([MB]), { color });
      display.draw(0);
      display.stop();
      assert.equal(screen.text.includes(`${ESCAPE}[2m`), color);
    }
  });
});

describe("progress elsewhere", () => {
  it("is one line now and then, and none when nothing has happened", () => {
    const screen = new Screen();
    const display: PlainDisplay[] = [];
    const tally = new ConversionTally({ uploads: true, blobBytesPerStoredByte: 1.6 }, () => display[0].changed());
    display.push(new PlainDisplay(screen, tally));
    display[0].report(0);
    started(tally, [MB]);
    display[0].report(100);
    display[0].report(200);
    tally.layerRead({ image: 0, layer: 0 }, MB);
    display[0].report(300);
    display[0].stop();
    assert.deepEqual(screen.lines, ["converting: 0 of 1 layers, 0 of 1 MB", "converting: 0 of 1 layers, 1 of 1 MB"]);
  });

  const told = (mode: ProgressMode, { quiet = false, verbose = false, interactive = false } = {}): string[] => {
    const screen = new Screen();
    const stderr = new Writable({
      decodeStrings: false,
      write: (text: string, _encoding, done) => {
        screen.write(text);
        done();
      },
    });
    const progress = new ConversionProgress(
      { stderr, terminal: { interactive, color: false } },
      { mode, quiet, verbose, uploads: true, formats: ["overlaybd"] },
    );
    const { observer } = progress;
    observer.imageStarted?.({ image: 0, name: "image", results: 1, platform: undefined, layers: [{ digest: DIGESTS[0], bytes: MB }] });
    observer.layerRead?.({ image: 0, layer: 0 }, MB);
    observer.layerConverted?.({ image: 0, layer: 0 }, 2 * MB);
    observer.warning?.("careful");
    progress.note("notice", "trying again");
    observer.layerSent?.({ image: 0, layer: 0 }, 2 * MB);
    observer.layerDone?.({ image: 0, layer: 0 }, "uploaded", 2 * MB);
    observer.imageDone?.(0, "converted", DIGESTS[1]);
    progress.stop();
    progress.stop();
    progress.note("summary", "done");
    return screen.lines;
  };

  it("tells programs in JSON what happens", () => {
    const events = told("json").map((line): unknown => JSON.parse(line));
    const layer = { event: "layer", image: 0, layer: 0, digest: DIGESTS[0] };
    const totals = events.find((event) => event instanceof Object && "event" in event && event.event === "totals");
    assert.ok(totals instanceof Object && "seconds" in totals && typeof totals.seconds === "number");
    assert.deepEqual(events, [
      { event: "image", image: 0, name: "image", platform: null, layers: [{ digest: DIGESTS[0], size: MB }] },
      { ...layer, stage: "converting" },
      { ...layer, stage: "converted", size: 2 * MB },
      { event: "warning", message: "careful" },
      { event: "notice", message: "trying again" },
      { ...layer, stage: "sending", size: 2 * MB },
      { ...layer, stage: "done", outcome: "uploaded", size: 2 * MB },
      { event: "image-done", image: 0, outcome: "converted", digest: DIGESTS[1] },
      {
        event: "totals",
        layers: 1,
        layersDone: 1,
        bytes: { total: MB, read: MB, converted: 2 * MB, sent: 2 * MB, reused: 0 },
        seconds: totals.seconds,
      },
      { event: "summary", message: "done" },
    ]);
  });

  it("is as much as was asked for", () => {
    assert.deepEqual(told("auto"), ["warning: careful", "trying again", "done"]);
    assert.deepEqual(told("plain", { interactive: true }), ["warning: careful", "trying again", "done"]);
    assert.deepEqual(told("none"), ["warning: careful"]);
    assert.deepEqual(told("auto", { quiet: true, verbose: true }), []);
    assert.deepEqual(told("plain", { verbose: true }), [
      "converting image: 1 layers, 1000000 bytes",
      "layer 0 converted, 2000000 bytes",
      "warning: careful",
      "trying again",
      "layer 0 uploaded",
      "done",
    ]);
  });
});

describe("figures for people", () => {
  it("are short", () => {
    const rows: [bytes: number, text: string][] = [
      [0, "0 B"],
      [999, "999 B"],
      [1000, "1.0 kB"],
      [999_949, "999.9 kB"],
      [999_950, "1.0 MB"],
      [1_343_000_000, "1.3 GB"],
      [5e15, "5000.0 TB"],
    ];
    for (const [bytes, text] of rows) assert.equal(byteText(bytes), text);
    assert.deepEqual([0.2, 59.4, 59.6, 3599, 3600, 7300].map(durationText), [
      "1 s",
      "59 s",
      "1 min 0 s",
      "59 min 59 s",
      "1 h 0 min",
      "2 h 1 min",
    ]);
  });

  it("tell how far it is", () => {
    const totals = { layers: 7, layersDone: 3, bytes: 1343 * MB, readBytes: 812 * MB, work: 3000 * MB, workDone: 1200 * MB };
    assert.equal(
      totalLine(totals, { read: 95 * MB, work: 300 * MB }),
      "converting: 3 of 7 layers, 812 of 1,343 MB, 95 MB/s, about 6 s left",
    );
    assert.equal(totalLine(totals, { read: 0, work: 0 }), "converting: 3 of 7 layers, 812 of 1,343 MB");
  });
});
