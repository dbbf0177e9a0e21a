import { commandTable, type OptionRow } from "../../src/cli/command-table.ts";
import { readEnvironment } from "../../src/cli/environment.ts";
import { createApplyTool } from "../../src/cli/tools/overlaybd-apply.ts";
import { createCommitTool } from "../../src/cli/tools/overlaybd-commit.ts";
import { createCreateTool } from "../../src/cli/tools/overlaybd-create.ts";
import { createMergeTool } from "../../src/cli/tools/overlaybd-merge.ts";
import { createResizeTool } from "../../src/cli/tools/overlaybd-resize.ts";
import { createZFileTool } from "../../src/cli/tools/overlaybd-zfile.ts";
import { createTurboApplyTool } from "../../src/cli/tools/turbo-oci-apply.ts";

const TOOLS = [
  createCreateTool,
  createCommitTool,
  createApplyTool,
  createTurboApplyTool,
  createZFileTool,
  createMergeTool,
  createResizeTool,
];
/** Every tool has them, so the page says them once. */
const SHARED = new Set(["--help", "--verbose"]);

/** What docs/tools.md says of each tool's arguments and options, as its own help does: the lines of a table. */
export function toolSections(): { readonly name: string; readonly usage: string; readonly lines: readonly string[] }[] {
  const environment = readEnvironment(new AbortController().signal);
  return TOOLS.map((create) => {
    const { name, arguments: words, options } = commandTable(create(environment));
    const usage = words.map((word) => (word.isRequired ? word.name : `[${word.name}]`));
    const rows = [
      ...words.map((word) => [`\`${word.name}\``, word.description]),
      ...options.filter(({ names }) => !names.some((known) => SHARED.has(known))).map((option) => [`\`${option.flags}\``, meaning(option)]),
    ];
    return {
      name,
      usage: [name, ...usage].join(" "),
      lines: rows.map((cells) => `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`),
    };
  });
}

function meaning({ description, defaultText }: OptionRow): string {
  return defaultText === undefined || defaultText === "" ? description : `${description}; default: \`${defaultText}\``;
}
