import { relative, resolve } from "node:path";
import type { EventData } from "node:test";
import type { TestEvent } from "node:test/reporters";

interface Tally {
  passed: number;
  failed: number;
  skipped: number;
}

/**
 * One line a test file, every failure in full, and as the last line of all `N passed, N failed`.
 * A run in which no test passed fails: a filter or a broken set-up that selects nothing must not look like success.
 */
export default async function* report(events: AsyncIterable<TestEvent>): AsyncGenerator<string, void> {
  const total = emptyTally();
  // What a file's tests say comes together and ends with its summary. Tests that a shared suite defines name the suite's file.
  let ofFile = emptyTally();
  const failures: string[] = [];
  for await (const event of events) {
    const failure = failureOf(event);
    if (failure !== undefined) {
      failures.push(failure);
      yield `${failure}\n`;
    }
    count(event, isWholeFile(event) ? total : ofFile);
    if (event.type === "test:stderr" || event.type === "test:stdout") yield event.data.message;
    else if (event.type === "test:summary" && event.data.file !== undefined) {
      yield fileLine(ofFile, event.data.file, event.data.duration_ms);
      add(total, ofFile);
      ofFile = emptyTally();
    }
  }
  add(total, ofFile);
  if (failures.length > 1) yield `\n${failures.length} failures:\n\n${failures.join("\n")}\n`;
  if (total.passed === 0 || total.failed > 0) process.exitCode = 1;
  yield `${total.passed} passed, ${total.failed} failed${total.skipped > 0 ? `, ${total.skipped} skipped` : ""}\n`;
}

function emptyTally(): Tally {
  return { passed: 0, failed: 0, skipped: 0 };
}

function add(total: Tally, { passed, failed, skipped }: Tally): void {
  total.passed += passed;
  total.failed += failed;
  total.skipped += skipped;
}

function count(event: TestEvent, tally: Tally): void {
  if (failureOf(event) !== undefined) tally.failed++;
  if (event.type !== "test:pass" || event.data.details.type === "suite" || isWholeFile(event)) return;
  if (event.data.skip !== undefined || event.data.todo !== undefined) tally.skipped++;
  else tally.passed++;
}

/** A file that does not load fails as a whole, under its own name; one that registers no test passes as a whole. */
function isWholeFile(event: TestEvent): boolean {
  if (event.type !== "test:pass" && event.type !== "test:fail") return false;
  return event.data.file !== undefined && resolve(event.data.name) === event.data.file;
}

function failureOf(event: TestEvent): string | undefined {
  if (event.type === "test:pass" && isWholeFile(event)) return `FAILED ${event.data.name} has no test\n`;
  if (event.type !== "test:fail" || isFailureOfParts(event.data)) return undefined;
  const { file, line, name, details } = event.data;
  const where = file === undefined || isWholeFile(event) ? "" : `${relative(process.cwd(), file)}:${line ?? 0} `;
  return `FAILED ${where}${name}\n${describe(details.error).replaceAll(/^/gm, "    ")}\n`;
}

/** A suite fails with its tests, which are counted themselves; it fails on its own when a hook of it does. */
function isFailureOfParts({ details: { error } }: EventData.TestFail): boolean {
  return "failureType" in error && error.failureType === "subtestsFailed";
}

function describe({ message, cause }: Error): string {
  if (cause instanceof Error) return cause.stack ?? cause.message;
  return typeof cause === "string" ? cause : message;
}

function fileLine({ passed, failed, skipped }: Tally, file: string, durationMs: number): string {
  const notes = `${failed > 0 ? `, ${failed} FAILED` : ""}${skipped > 0 ? `, ${skipped} skipped` : ""}`;
  return `${relative(process.cwd(), file)}: ${passed} passed${notes} (${(durationMs / 1000).toFixed(1)} s)\n`;
}
