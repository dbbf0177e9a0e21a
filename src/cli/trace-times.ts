import { readFile, stat, writeFile } from "node:fs/promises";
import { LazyError, messageOf } from "../errors.ts";
import { MAX_TRACE_RECORDS } from "../formats/trace/layout.ts";

/** Of a line: 12 digits are 31 years. */
const MAX_LINE_BYTES = 14;

/** Writes a line for each record of a trace: whole milliseconds. */
export async function writeTimes(path: string, times: readonly number[]): Promise<void> {
  await writeFile(path, times.map((time) => `${Math.round(time)}\n`).join(""));
}

/** When the records of a trace were read, in milliseconds. Throws `USAGE` for what is no such file, or is not of this trace. */
export async function readTimes(path: string, recordCount: number): Promise<number[]> {
  const lines = await readLines(path);
  if (lines.length !== recordCount) {
    throw new LazyError("USAGE", `${path}: has the times of ${lines.length} records, the trace has ${recordCount}: it is of another trace`);
  }
  let last = 0;
  return lines.map((line, index) => {
    const time = Number(line);
    if (!/^\d{1,12}$/.test(line) || time < last) {
      throw new LazyError(
        "USAGE",
        `${path}:${index + 1}: ${JSON.stringify(line.slice(0, 20))}, expected milliseconds, not less than the line before`,
      );
    }
    last = time;
    return time;
  });
}

async function readLines(path: string): Promise<string[]> {
  try {
    const { size } = await stat(path);
    if (size > MAX_TRACE_RECORDS * MAX_LINE_BYTES) throw new Error(`${size} bytes are more than any trace has times`);
    return (await readFile(path, "latin1")).split("\n").slice(0, -1);
  } catch (cause) {
    throw new LazyError("USAGE", `${path}: the times cannot be read: ${messageOf(cause)}`, { cause });
  }
}
