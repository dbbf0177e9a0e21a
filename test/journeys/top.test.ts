import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { run } from "../support/command.ts";
import { DaemonBench } from "../support/daemon-bench.ts";
import { CLEAN_ENVIRONMENT, LAZYLAYER, lazylayer } from "../support/programs.ts";
import { requireProgram } from "../support/server-process.ts";
import { Screen } from "../support/screen.ts";

const PATIENCE_MS = 20_000;

/** `lazylayer top` on a terminal of 80 columns and so many rows. */
class TopOnTerminal {
  readonly #child;
  readonly #screen = new Screen();

  constructor(socket: string, rows: number) {
    const command = `stty rows ${rows} cols 80; exec "$LAZYLAYER" top --socket "$SOCKET"`;
    const env = { ...process.env, ...CLEAN_ENVIRONMENT, TERM: "xterm", LAZYLAYER, SOCKET: socket };
    this.#child = spawn("script", ["--quiet", "--return", "--command", command, "/dev/null"], { env, stdio: ["pipe", "pipe", "inherit"] });
    this.#child.stdout.on("data", (data: Buffer) => this.#screen.write(data.toString().replaceAll("\r\n", "\n")));
  }

  get lines(): string[] {
    return this.#screen.lines;
  }

  async shows(isWanted: (lines: string[]) => boolean): Promise<void> {
    for (let waitedMs = 0; !isWanted(this.lines); waitedMs += 50) {
      assert.ok(waitedMs < PATIENCE_MS, this.lines.join("\n"));
      await sleep(50);
    }
  }

  /** Presses Control-C, and answers the status. */
  async interrupt(): Promise<unknown> {
    const exit = once(this.#child, "exit");
    this.#child.stdin.write("\u0003");
    const [status] = (await exit) as unknown[];
    return status;
  }
}

test("top shows on a terminal what devices do, while they come and go, and leaves the terminal as it was", async () => {
  await requireProgram("script", "bsdutils");
  await using bench = await DaemonBench.start();
  const config = await bench.stackConfig();
  const { access } = await bench.create({ id: "busy", config });
  await bench.create({ id: "idle", config, expose: { kind: "nbd" } });
  assert.ok(access?.kind === "fuse");
  const top = new TopOnTerminal(bench.socket, 6);
  await top.shows((lines) => lines.length === 4 && /^DEVICE STATE +AS /.test(lines[1]));
  const reading = run("sh", [
    "-c",
    'for i in 1 2 3 4 5 6; do dd if="$1" of=/dev/null bs=1M count=16 status=none; sleep 0.5; done',
    "sh",
    access.path,
  ]);
  await top.shows((lines) => /^busy +running fuse +\d\S* +[1-9]\d* +\d+\.\d /m.test(lines.join("\n")));
  await reading;
  for (const id of ["more", "and-more"]) await bench.create({ id, config });
  await top.shows((lines) => lines.at(-1) === "and 2 more");
  assert.equal(top.lines.length, 5, "one row is the cursor's");
  for (const id of ["more", "and-more", "idle"]) await bench.remove(id);
  await top.shows((lines) => lines.length === 3);

  // A daemon that goes away may come back.
  await bench.endDaemon("SIGTERM");
  await top.shows((lines) => /nobody listens there/.test(lines[0]));
  await bench.startDaemon();
  await top.shows((lines) => lines[0].startsWith("1 device "));
  assert.equal(await top.interrupt(), 0);
  assert.deepEqual(top.lines, []);
  await bench.remove("busy");
  await bench.allGone();
});

test("where there is no terminal, top prints one table; without a daemon it fails", async () => {
  await using bench = await DaemonBench.start();
  await bench.create({ id: "app", config: await bench.stackConfig(), expose: { kind: "loop" } });
  const { status, stdout, stderr } = await lazylayer(["top", "--socket", bench.socket]);
  assert.deepEqual([status, stderr], [0, ""]);
  assert.match(stdout.toString(), /^1 device +0 reads\/s .*\nDEVICE STATE .*\napp +running loop +\S+ +0 +0\.0 +- +0\.0 +\S+ +\S+ +0\n$/);
  const failed = await lazylayer(["top", "--once", "--socket", bench.join("none.sock")]);
  assert.deepEqual([failed.status, failed.stdout.toString()], [1, ""]);
  assert.match(failed.stderr, /none\.sock: nobody listens there/);
  await bench.remove("app");
  await bench.allGone();
});
