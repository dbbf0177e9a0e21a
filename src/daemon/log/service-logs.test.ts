import assert from "node:assert/strict";
import { mkdirSync, readdirSync, readFileSync, rmdirSync, statSync, writeFileSync, appendFileSync } from "node:fs";
import { test } from "node:test";
import { TemporaryDirectory } from "../../../test/support/temporary-directory.ts";
import { parseServiceConfig } from "../config/service-config.ts";
import { asideOf, boundLog } from "./bounded-log.ts";
import { unrepeated } from "./log.ts";
import { openServiceLogs } from "./service-logs.ts";

const PREFIX = String.raw`\d{4}/\d\d/\d\d \d\d:\d\d:\d\d\.\d{6}`;

function configOf(keys: object): ReturnType<typeof parseServiceConfig>["config"] {
  return parseServiceConfig(JSON.stringify(keys), "service").config;
}

test("lines have the form of overlaybd's log, stay one line each, and the level decides which there are", async () => {
  await using directory = await TemporaryDirectory.create();
  const config = configOf({ logConfig: { logPath: directory.join("log"), logLevel: 2 }, enableAudit: false });
  const logs = openServiceLogs(config, "device app", (line) => assert.fail(line));
  logs.log("info", "is of no concern");
  logs.log("warn", "first\nsecond \u001b[31m\n");
  logs.log("error", "third");
  logs.close();
  assert.equal(logs.audit, undefined);
  const expected = `^${PREFIX}\\|WARN \\|th=${process.pid}\\|device app\\|first\\\\nsecond \\\\u001b\\[31m\n${PREFIX}\\|ERROR\\|th=\\d+\\|device app\\|third\n$`;
  assert.match(readFileSync(directory.join("log"), "utf8"), new RegExp(expected));
});

test("the audit log names operation, blob, range and microseconds", async () => {
  await using directory = await TemporaryDirectory.create();
  const config = configOf({ logPath: directory.join("log"), auditPath: directory.join("audit") });
  const { audit, close } = openServiceLogs(config, "daemon", (line) => assert.fail(line));
  audit?.read("bk_download", { pathname: "/https://host/v2/a/blobs/sha256:ab", offset: 4096, size: 512, milliseconds: 1.5 });
  audit?.eviction({ bytes: 300, usedBytes: 700 });
  close();
  const expected = [
    String.raw`bk_download\[pathname=/https://host/v2/a/blobs/sha256:ab\]\[offset=4096\]\[size=512\]\[latency=1500\]`,
    String.raw`eviction\[actualEvict=300\]\[evictByCache=300\]\[evictByDisk=0\]\[totalUsed=700\]`,
  ].map((line) => `${PREFIX}\\|AUDIT\\|th=\\d+\\|${line}\n`);
  assert.match(readFileSync(directory.join("audit"), "utf8"), new RegExp(`^${expected.join("")}$`));
});

test("what cannot be written to a log is said elsewhere, and why, once; and the log again as soon as that is possible", async () => {
  await using directory = await TemporaryDirectory.create();
  const path = directory.join("log");
  mkdirSync(path);
  const said: string[] = [];
  const config = configOf({ logPath: path, auditPath: directory.join("missing", "audit") });
  const { log, audit, close } = openServiceLogs(config, "daemon", (line) => said.push(line.trimEnd().split("|").at(-1) ?? ""));
  log("info", "one");
  log("info", "two");
  assert.deepEqual([said.length, said[1], said[2]], [3, "one", "two"]);
  assert.match(said[0], /^the log cannot be written, and goes on here: EISDIR/);
  rmdirSync(path);
  audit?.eviction({ bytes: 1, usedBytes: 1 });
  audit?.eviction({ bytes: 1, usedBytes: 1 });
  log("info", "three");
  close();
  const lines = readFileSync(path, "utf8").trimEnd().split("\n");
  assert.deepEqual([lines.length, said.length], [2, 3]);
  assert.match(lines[0], /the audit log cannot be written: ENOENT/);
  assert.match(lines[1], /\|three$/);
});

test("without a configuration everything from level info on goes to standard error, and nothing is audited", () => {
  const said: string[] = [];
  const { log, audit } = openServiceLogs(undefined, "daemon", (line) => said.push(line));
  log("debug", "no");
  log("info", "yes");
  assert.equal(audit, undefined);
  assert.deepEqual(
    said.map((line) => line.split("|").at(-1)),
    ["yes\n"],
  );
});

test("the log of a device's directory is emptied in its place when it is long, and there once more", async () => {
  await using directory = await TemporaryDirectory.create();
  const path = directory.join("device.log");
  boundLog(path, 100);
  writeFileSync(path, "x".repeat(100));
  const { ino } = statSync(path);
  boundLog(path, 100);
  assert.deepEqual(readdirSync(directory.path), ["device.log"]);
  for (const letter of ["y", "z"]) {
    appendFileSync(path, letter.repeat(101));
    boundLog(path, 100);
  }
  assert.deepEqual([statSync(path).size, statSync(path).ino], [0, ino]);
  assert.equal(readFileSync(asideOf(path), "utf8"), "z".repeat(101));
});

test("what is said again and again is said once", () => {
  const said: string[] = [];
  const say = unrepeated((message) => said.push(message));
  for (const message of ["a", "a", "b", "a"]) say(message);
  assert.deepEqual(said, ["a", "b", "a"]);
});
