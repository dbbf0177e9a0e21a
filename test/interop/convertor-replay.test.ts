import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { CALL_REPLAYS } from "./convertor-replay-calls.ts";
import { DATABASE_REPLAYS } from "./convertor-replay-database.ts";
import { IMAGE_REPLAYS } from "./convertor-replay-images.ts";
import { NOT_PLAYED, REGISTRY_REPLAYS, SAME } from "./convertor-replay-registry.ts";
import { TURBO_REPLAYS } from "./convertor-replay-turbo.ts";
import { WHY } from "./convertor-replay-row.ts";
import { RECORDING, type RecordedCase } from "./convertor-replay-shape.ts";
import { convertor } from "../support/programs.ts";

const REPLAYS = [...CALL_REPLAYS, ...IMAGE_REPLAYS, ...TURBO_REPLAYS, ...REGISTRY_REPLAYS, ...DATABASE_REPLAYS];

test("every recorded case is played, or listed with why it is not", () => {
  const played = REPLAYS.map(({ name }) => name);
  assert.deepEqual(
    [...new Set([...played, ...Object.keys(NOT_PLAYED), ...Object.keys(SAME), "help"])].toSorted(),
    Object.keys(RECORDING.cases).toSorted(),
  );
  for (const name of Object.keys(NOT_PLAYED)) assert.ok(!played.includes(name), name);
});

test("recorded cases that are not played because another is the same are the same", () => {
  for (const [name, other] of Object.entries(SAME)) {
    const [one, two] = [RECORDING.cases[name], RECORDING.cases[other]];
    const isTag = (flag: string | undefined): boolean => flag === "-o" || flag === "--turboOCI";
    const call = ({ args = [] }: RecordedCase): string =>
      args
        .filter((_, at) => !isTag(args[at - 1]))
        .join(" ")
        .replace("{distribution3}", "{zot}");
    assert.deepEqual([call(one), one.exit], [call(two), two.exit], name);
    if (one.converted) assert.deepEqual(Object.values(one.converted), Object.values(two.converted ?? {}), name);
    assert.ok(REPLAYS.some((row) => row.name === other));
  }
});

test("help: every flag of the standalone convertor is a flag here", async () => {
  const { status, stdout } = await convertor(["--help"]);
  assert.equal(status, RECORDING.cases["help"].exit);
  for (const flag of RECORDING.cases["help"].flags ?? []) assert.match(stdout.toString(), new RegExp(`--${flag}\\b`));
});

const PAGE = readFileSync(new URL("../../docs/migrating.md", import.meta.url), "utf8");

test("docs/migrating.md names every flag of convertor", async () => {
  const { stdout } = await convertor(["--help"]);
  const flags = [...stdout.toString().matchAll(/^ +(?:-\w, )?(--[\w-]+)/gm)].map(([, flag]) => flag);
  assert.ok(flags.length > 28);
  for (const flag of flags) assert.match(PAGE, new RegExp(`\`${flag}[\` =]`), flag);
});

test("docs/migrating.md has a row for everything in which we mean to differ, and each of them is played", () => {
  const differences = REPLAYS.flatMap(({ differs = [] }) => differs.map(({ reason }) => reason));
  for (const reason of Object.values(WHY)) {
    assert.ok(PAGE.includes(`\n| ${reason} | `), reason);
    assert.ok(differences.includes(reason), reason);
  }
});
