import { execFileSync } from "node:child_process";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { markdown, plainText, type Table } from "./tables.ts";

const ROOT = join(import.meta.dirname, "../..");

export interface Report {
  /** Begins the name of the file that every figure is written to. */
  readonly name: string;
  /** Load averages (one minute) at the start and the end. */
  readonly load: readonly number[];
  /** Every figure of every round. */
  readonly figures: object;
  readonly tables: readonly Table[];
  /** Tables for a page, instead of for a terminal. */
  readonly isPage: boolean;
  readonly say: (message: string) => void;
}

/** Writes every figure of a run to a file in `directory`, and prints its tables. */
export async function reportResult(directory: string, { name, load, figures, tables, isPage, say }: Report): Promise<void> {
  const commit = execFileSync("git", ["-C", ROOT, "describe", "--always", "--dirty"], { encoding: "utf8" }).trim();
  const date = new Date().toISOString().slice(0, 19);
  const file = join(directory, `${name}-${date.replaceAll(":", "-")}.json`);
  await writeFile(file, `${JSON.stringify({ commit, date, load, ...figures }, undefined, 1)}\n`);
  say(`every figure: ${file}`);
  console.log(`\n${commit}, ${date}, load ${load.map((each) => each.toFixed(1)).join(" to ")}\n`);
  console.log(tables.map(isPage ? markdown : plainText).join("\n"));
}
