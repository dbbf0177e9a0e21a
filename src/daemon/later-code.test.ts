import assert from "node:assert/strict";
import { test } from "node:test";
import { CopiedProgram } from "../../test/support/copied-program.ts";
import type * as laterCode from "./later-code.ts";

const WHY = "device app: takes no snapshot: the program was replaced or removed while the device ran";

test("what is loaded later is loaded while the program is as it was, and else there is an error that says what to do", async () => {
  await using program = await CopiedProgram.create();
  const { loadLater } = (await import(program.url("src/daemon/later-code.ts"))) as typeof laterCode;
  const load = async (part = "src/bytes/source.ts"): Promise<unknown> =>
    await loadLater("device app: takes no snapshot", async (): Promise<unknown> => await import(program.url(part)));
  assert.ok(await load());
  const failure = (reason: string): object => ({
    code: "UNAVAILABLE",
    message: new RegExp(`^${WHY} \\(${reason}.*\\); remove the device and create it again$`, "s"),
  });
  await assert.rejects(load("src/gone.ts"), failure("Cannot find module"));
  await program.upgrade("99.0.0");
  await assert.rejects(load(), failure("it is version 99\\.0\\.0 now, and \\d+\\.\\d+\\.\\d+ runs"));
});
