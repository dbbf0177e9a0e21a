import { relative, resolve } from "node:path";
import type { EventData } from "node:test";
import type { TestEvent } from "node:test/reporters";

interface FileTally {
  passed: number;
  failed: number;
  skipped: number;
}

/**
 * One line a test file, every failure in full, and as the last line of all `N passed, N failed`.
 * A run in which no test passed fails: a filter or a broken set-up that selects nothing must not look like success.
 */
export default async function* report(events: AsyncIterable<TestEvent>): AsyncGenerator<string, void> {
  const files = new Map<string, FileTally>();
  const failures: string[] = [];
  for await (const event of events) {
    if (event.type === "test:pass" && isEmptyFile(event.data)) {
      tallyOf(files, event.data.file).failed++;
      yield `FAILED ${event.data.name} has no test\n`;
    } else if (event.type === "test:pass") countPass(tallyOf(files, event.data.file), event.data);
    else if (event.type === "test:fail" && isOwnFailure(event.data)) {
      tallyOf(files, event.data.file).failed++;
      const text = describeFailure(event.data);
      failures.push(text);
      yield `${text}\n`;
    } else if (event.type === "test:stderr" || event.type === "test:stdout") yield event.data.message;
    else if (event.type === "test:summary" && event.data.file !== undefined) yield fileLine(files, event.data.file, event.data.duration_ms);
  }
  if (failures.length > 1) yield `\n${failures.length} failures:\n\n${failures.join("\n")}\n`;
  const total = { passed: 0, failed: 0, skipped: 0 };
  for (const tally of files.values()) {
    total.passed += tally.passed;
    total.failed += tally.failed;
    total.skipped += tally.skipped;
  }
  if (total.passed === 0 || total.failed > 0) process.exitCode = 1;
  yield `${total.passed} passed, ${total.failed} failed${total.skipped > 0 ? `, ${total.skipped} skipped` : ""}\n`;
}

function tallyOf(files: Map<string, FileTally>, file = "(no file)"): FileTally {
  let tally = files.get(file);
  if (tally === undefined) files.set(file, (tally = { passed: 0, failed: 0, skipped: 0 }));
  return tally;
}

function countPass(tally: FileTally, data: EventData.TestPass): void {
  if (data.skip !== undefined || data.todo !== undefined) tally.skipped++;
  else if (data.details.type !== "suite") tally.passed++;
}

/** A file that registers no test passes as a whole, under its own name. */
function isEmptyFile(data: EventData.TestPass): boolean {
  return data.file !== undefined && resolve(data.name) === data.file;
}

/** A suite fails with its tests, which are counted themselves; it fails on its own when a hook of it does. */
function isOwnFailure(data: EventData.TestFail): boolean {
  const { error } = data.details;
  return !("failureType" in error && error.failureType === "subtestsFailed");
}

function describeFailure(data: EventData.TestFail): string {
  const where = data.file === undefined ? "" : `${relative(process.cwd(), data.file)}:${data.line ?? 0} `;
  const { error } = data.details;
  const cause = error.cause instanceof Error ? (error.cause.stack ?? error.cause.message) : String(error.cause ?? error.message);
  return `FAILED ${where}${data.name}\n${cause.replaceAll(/^/gm, "    ")}\n`;
}

function fileLine(files: Map<string, FileTally>, file: string, durationMs: number): string {
  const { passed, failed, skipped } = tallyOf(files, file);
  const notes = `${failed > 0 ? `, ${failed} FAILED` : ""}${skipped > 0 ? `, ${skipped} skipped` : ""}`;
  return `${relative(process.cwd(), file)}: ${passed} passed${notes} (${(durationMs / 1000).toFixed(1)} s)\n`;
}
