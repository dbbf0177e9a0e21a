import { dirname, join } from "node:path/posix";

/** Source files by their path inside src/, with forward slashes. */
export type Sources = ReadonlyMap<string, string>;

/** Who may import whom. A room is a folder of src/; each folder of formats/ is a room of its own. */
export const ROOMS: Readonly<Record<string, readonly string[]>> = {
  bytes: [],
  native: [],
  compression: ["bytes"],
  tree: ["bytes"],
  oci: ["bytes"],
  cache: ["bytes"],
  dedup: ["bytes", "oci"],
  tar: ["bytes", "tree"],
  formats: ["bytes", "compression", "tree"],
  registry: ["bytes", "oci"],
  "image-layout": ["bytes", "oci"],
  "image-archive": ["bytes", "compression", "tree", "tar", "oci", "image-layout"],
  workers: [],
  export: ["bytes", "native"],
  device: ["bytes", "compression", "tree", "tar", "oci", "registry", "image-layout", "cache", "formats"],
  verify: ["bytes", "compression", "tree", "tar", "oci", "device", "formats"],
  convert: ["bytes", "compression", "tree", "tar", "oci", "cache", "dedup", "workers", "device", "formats"],
  daemon: ["*"],
  cli: ["*"],
};

/** Which paths may use a door to the outside. A path ends at a folder or is the start of a file's name. */
const DOORS: readonly { readonly modules: RegExp; readonly allowed: readonly string[] }[] = [
  {
    modules: /^node:fs(\/promises)?$/,
    allowed: [
      "bytes/file",
      "image-layout/",
      "image-archive/",
      "cache/",
      "native/",
      "export/",
      "device/",
      "dedup/",
      "daemon/",
      "cli/",
      "registry/credential",
      "registry/certificate-files",
      "registry/upload-journal",
      "convert/blob-spool",
      "convert/work-directory",
    ],
  },
  {
    modules: /^(node:(net|tls|http|https|http2|dns|dgram))$/,
    allowed: ["registry/", "export/", "daemon/", "cli/", "dedup/postgres-database"],
  },
  { modules: /^(node:sqlite|mysql2(\/promise)?|pg)$/, allowed: ["dedup/"] },
  // body-piece.ts asks only whether a buffer is Node's own.
  { modules: /^node:worker_threads$/, allowed: ["workers/", "export/", "device/", "registry/body-piece.ts"] },
  { modules: /^node:child_process$/, allowed: ["native/", "registry/credential", "daemon/", "cli/"] },
];

/** Rooms that must give the same answer anywhere and at any time. */
const PURE = ["bytes/", "compression/", "tree/", "tar/", "oci/", "formats/"];
const IMPURE =
  /\bprocess\.(?!getBuiltinModule)\w+|\bDate\.now\b|\bnew Date\(\)|\bperformance\.now\b|\bMath\.random\b|\bset(?:Timeout|Interval)\b/;

const MAX_LINES = 500;
const DRAWER_WORDS = new Set(["manager", "helper", "helpers", "util", "utils", "common", "impl", "misc"]);
/** "Credential helper" is the name that Docker's users know, so these files may use the word. */
const CREDENTIAL_HELPERS = "registry/credential";
const EMPTY_ENDS = new Set(["base", "context"]);

interface Import {
  readonly target: string;
  /** A worker's file is named, not imported: it is no edge of an import cycle. */
  readonly isWorker: boolean;
}

/** Everything in the sources that breaks the architecture, one sentence each. `page` is ARCHITECTURE.md, if there is one. */
export function findViolations(sources: Sources, page?: string): string[] {
  const found: string[] = [];
  const graph = new Map<string, string[]>();
  for (const [path, text] of sources) {
    const code = withoutComments(text);
    const imports = importsOf(code);
    const isTest = /\.(test|contract)\.ts$/.test(path);
    found.push(...shapeViolations(path, text, code));
    found.push(...imports.flatMap(({ target }) => importViolations(path, target, isTest)));
    if (!isTest) found.push(...impurities(path, code));
    graph.set(
      path,
      imports.flatMap((item) => (item.isWorker || !item.target.startsWith(".") ? [] : [join(dirname(path), item.target)])),
    );
  }
  return [...new Set(found), ...cycles(graph), ...(page === undefined ? [] : missingRooms(sources, page))];
}

function roomOf(path: string): string {
  const [first = "", second = ""] = path.split("/");
  if (path.endsWith(".ts") && !path.includes("/")) return "";
  return first === "formats" ? `formats/${second}` : first;
}

function importViolations(path: string, target: string, isTest: boolean): string[] {
  if (!target.startsWith(".")) return isTest ? [] : doorViolations(path, target);
  const from = roomOf(path);
  const full = join(dirname(path), target);
  if (full.startsWith("../"))
    return isTest || (from === "cli" && full === "../package.json") ? [] : [`${path} imports ${target}, which is outside of src`];
  const to = roomOf(full);
  if (to === "cli" && from !== "cli") return [`${path} imports ${full}: nothing imports cli`];
  if (isTest || from === to || full === "errors.ts" || path === "index.ts") return [];
  if (to === "") return [`${path} imports ${full}: only errors.ts is for everybody`];
  if (path === "errors.ts") return [`${path} imports ${full}: errors.ts imports nothing`];
  const allowed = ROOMS[from.split("/", 1)[0]];
  if (allowed === undefined) return [`${from}/ is a room that the table of rooms does not know`];
  const name = to.split("/", 1)[0];
  const isAllowed = allowed.includes("*") || allowed.includes(name);
  return isAllowed ? [] : [`${path} imports ${full}: ${from} may import ${allowed.join(", ") || "nothing"}`];
}

function doorViolations(path: string, target: string): string[] {
  return DOORS.filter(({ modules, allowed }) => modules.test(target) && !allowed.some((start) => path.startsWith(start))).map(
    ({ allowed }) => `${path} imports ${target}, which is for ${allowed.join(", ")}`,
  );
}

function impurities(path: string, code: string): string[] {
  const impure = PURE.some((start) => path.startsWith(start)) ? IMPURE.exec(code) : null;
  if (impure !== null) return [`${path} uses ${impure[0]}: its room knows no clock, chance or environment`];
  const reads = path.startsWith("cli/") ? null : /\bprocess\.(?:env|argv)\b/.exec(code);
  return reads === null ? [] : [`${path} reads ${reads[0]}, which only cli does`];
}

function shapeViolations(path: string, text: string, code: string): string[] {
  const found: string[] = [];
  const lines = text.split("\n").length - 1;
  if (lines > MAX_LINES) found.push(`${path} has ${lines} lines, more than ${MAX_LINES}`);
  if (!path.split("/").every((part) => /^[a-z0-9]+(-[a-z0-9]+)*(\.(test|contract))?(\.ts)?$/.test(part)))
    found.push(`${path} is not kebab-case`);
  if (/^\s*export\s*\*/m.test(code)) found.push(`${path} has an export *`);
  if (path.startsWith(CREDENTIAL_HELPERS)) return found;
  const fileName = path.slice(path.lastIndexOf("/") + 1).replace(/(\.(test|contract))?\.ts$/, "");
  if (isEmptyName(fileName.split("-"), false)) found.push(`${path}: its name says nothing`);
  for (const [, kind, name] of withoutStrings(code).matchAll(/\b(class|interface|type|function)\s+([A-Za-z]\w*)/g)) {
    const words = name.split(/(?<=[a-z0-9])(?=[A-Z])/).map((word) => word.toLowerCase());
    if (isEmptyName(words, kind !== "function")) found.push(`${path}: the name ${name} says nothing`);
  }
  return found;
}

/** A base layer is a thing of its own in overlaybd; other names that start with "base" are of classes to inherit from. */
function isEmptyName(words: readonly string[], isType: boolean): boolean {
  if (words.some((word) => DRAWER_WORDS.has(word))) return true;
  return EMPTY_ENDS.has(words.at(-1)!) || (isType && words[0] === "base" && words[1] !== "layer");
}

function cycles(graph: ReadonlyMap<string, readonly string[]>): string[] {
  const found: string[] = [];
  const done = new Set<string>();
  const trail: string[] = [];
  const visit = (path: string): void => {
    const start = trail.indexOf(path);
    if (start >= 0) found.push(`import cycle: ${[...trail.slice(start), path].join(" → ")}`);
    if (start >= 0 || done.has(path)) return;
    trail.push(path);
    for (const next of graph.get(path) ?? []) visit(next);
    trail.pop();
    done.add(path);
  };
  for (const path of graph.keys()) visit(path);
  return found;
}

function missingRooms(sources: Sources, page: string): string[] {
  const rooms = new Set([...sources.keys()].map((path) => roomOf(path).split("/").at(-1)!).filter((room) => room !== ""));
  return [...rooms].filter((room) => !new RegExp(`\\b${room}/`).test(page)).map((room) => `ARCHITECTURE.md does not mention ${room}/`);
}

/** Blanks comments; strings stay. */
function withoutComments(text: string): string {
  const token = /\/\*[\s\S]*?\*\/|\/\/[^\n]*|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|`(?:\\.|[^`\\])*`/g;
  return text.replace(token, (part) => (part.startsWith("/") ? " " : part));
}

function withoutStrings(code: string): string {
  return code.replace(/"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|`(?:\\.|[^`\\])*`/g, '""');
}

function importsOf(code: string): Import[] {
  const statement = /(?:^|[;}\n])\s*(?:import|export)\b(?:[^"'`;]*?\bfrom)?\s*["']([^"'\n]+)["']/g;
  const dynamic = /\bimport\(\s*["']([^"'\n]+)["']/g;
  const worker = /\bnew URL\(\s*["'](\.[^"'\n]+\.ts)["']\s*,\s*import\.meta\.url/g;
  const targets = (pattern: RegExp, isWorker: boolean): Import[] => [...code.matchAll(pattern)].map(([, target]) => ({ target, isWorker }));
  return [...targets(statement, false), ...targets(dynamic, false), ...targets(worker, true)];
}
