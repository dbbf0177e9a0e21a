import assert from "node:assert/strict";
import { mkdir, rm } from "node:fs/promises";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { MemorySource } from "../../bytes/source.ts";
import { messageOf } from "../../errors.ts";
import { run } from "../../../test/support/command.ts";
import { CopiedProgram } from "../../../test/support/copied-program.ts";
import type * as fuseServer from "./fuse-server.ts";

const BYTES = 1 << 20;
/** In pieces of a sector: two times as many as it takes to start workers. */
const SECTOR_BYTES = 512;
const WAIT_MS = 5_000;

const REPLACEMENTS: readonly (readonly [what: string, replace: (program: CopiedProgram) => Promise<void>, message: RegExp])[] = [
  [
    "replaced by another version",
    async (program) => await program.upgrade("99.0.0"),
    /version 99\.0\.0 is on the disk, \d+\.\d+\.\d+ runs/,
  ],
  ["removed", async (program) => await rm(program.join("src"), { recursive: true }), /Cannot find module/],
  ["replaced by one that lacks a part", async (program) => await rm(program.join("src/export/fuse/protocol.ts")), /Cannot find module/],
];

for (const [what, replace, message] of REPLACEMENTS) {
  test(`a program that was ${what} while it runs goes on serving, however much is read, and says so once`, async () => {
    assert.equal(process.geteuid?.(), 0, "this test mounts file systems: run it as root");
    await using program = await CopiedProgram.create();
    const directory = program.join("mnt");
    await mkdir(directory);
    const { FuseServer } = (await import(program.url("src/export/fuse/fuse-server.ts"))) as typeof fuseServer;
    const complaints: string[] = [];
    const server = await FuseServer.mount({
      directory,
      content: new MemorySource(Buffer.alloc(BYTES, 7)),
      workers: 2,
      stats: () => "",
      onReadFailure: (error) => complaints.push(messageOf(error)),
      onStartFailure: (error) => complaints.push(messageOf(error)),
    });
    try {
      await replace(program);
      const disk = `${directory}/disk`;
      for (let waitedMs = 0; complaints.length === 0 && waitedMs < WAIT_MS; waitedMs += 100) {
        await run("dd", [`if=${disk}`, "of=/dev/null", `bs=${SECTOR_BYTES}`, "iflag=direct", "status=none"]);
        await sleep(100);
      }
      assert.equal(await run("sh", ["-c", 'tr -d "\\007" <"$1" | wc -c', "sh", disk]), "0\n");
      await sleep(100);
      assert.equal(complaints.length, 1, complaints.join("\n"));
      assert.match(complaints[0], message);
      assert.match(complaints[0], /^fuse: a worker cannot start, the other threads do its work: /);
    } finally {
      await server.close();
    }
  });
}
