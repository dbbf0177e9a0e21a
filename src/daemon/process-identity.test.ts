import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { test } from "node:test";
import { identityOf, isAlive } from "./process-identity.ts";

test("a process is known by its id and its start, whatever it is called, and no more when it has ended", async () => {
  // Its name is that of the program, which is this one: with a parenthesis and a blank as well.
  const child = spawn("sh", ["-c", "printf ') S 1 (' >/proc/$$/comm; echo; read line"], { stdio: ["pipe", "pipe", "inherit"] });
  await once(child.stdout, "data");
  const identity = identityOf(child.pid!);
  assert.ok(identity !== undefined && isAlive(identity));
  assert.equal(isAlive({ ...identity, startTicks: identity.startTicks + 1 }), false, "another that has its id");
  assert.ok(identityOf(process.pid)!.startTicks <= identity.startTicks);
  child.stdin.end("\n");
  await once(child, "exit");
  assert.equal(isAlive(identity), false);
  assert.equal(identityOf(child.pid!), undefined);
});

test("what has ended is not alive, although nobody has asked how", async () => {
  // The shell's child ends; the shell, which it became, never asks.
  const parent = spawn("sh", ["-c", "true & echo $!; exec sleep 30"], { stdio: ["ignore", "pipe", "inherit"] });
  const [data] = (await once(parent.stdout, "data")) as [Buffer];
  const pid = Number(data.toString());
  for (let tries = 0; identityOf(pid) !== undefined; tries++) {
    assert.ok(tries < 200, "it ends at once");
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  parent.kill("SIGKILL");
  await once(parent, "exit");
});
