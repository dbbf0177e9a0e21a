import type { ErrorCode } from "../../src/errors.ts";
import type { Fault } from "./hostile-registry.ts";

/** What a request is about, as far as it matters for how a failure of it ends. Configs are read as documents are: whole. */
export type RequestKind =
  | "read document"
  | "read layer"
  | "look for blob"
  | "look for tags"
  | "start upload"
  | "send content"
  | "send digest"
  | "upload"
  | "store document";

/** How a conversion must end. An error has this code and says the cause; `isStored` if what was asked for has happened nevertheless. */
export type Outcome = "right" | { readonly code: ErrorCode; readonly cause: RegExp; readonly isStored?: boolean };

export interface FaultRow {
  readonly name: string;
  readonly fault: Fault;
  /** What comes of it when it happens once, and when it happens again and again. A kind that is missing cannot fail in this way. */
  readonly outcomes: Partial<Record<RequestKind, readonly [once: Outcome, always?: Outcome]>>;
  /** One of its sort, for moments at which not every fault is tried. */
  readonly isTypical?: boolean;
  /** Nothing but a time limit ends the request. */
  readonly isSilent?: boolean;
  /** The least pause that the registry asks for. */
  readonly pauseMs?: number;
}

const READS = ["read document", "read layer"] as const;
const WRITES = ["start upload", "send content", "send digest", "upload", "store document"] as const;
const ALL = [...READS, "look for blob", ...WRITES] as const;

function each(kinds: readonly RequestKind[], once: Outcome, always?: Outcome): FaultRow["outcomes"] {
  const outcomes = kinds.map((kind) => [kind, always === undefined ? [once] : [once, always]] as const);
  // A repository of which nobody says that it has no tags is taken for one that has some.
  return Object.fromEntries(kinds === ALL ? [...outcomes, ["look for tags", ["right", "right"]] as const] : outcomes);
}

function unavailable(cause: RegExp): Outcome {
  return { code: "UNAVAILABLE", cause };
}

/** Tried again, and given up when it does not end. */
function passing(cause: RegExp, kinds: readonly RequestKind[] = ALL): FaultRow["outcomes"] {
  return each(kinds, "right", unavailable(cause));
}

/** Not tried again: happening again makes no difference. */
function final(code: ErrorCode, cause: RegExp, kinds: readonly RequestKind[] = ALL): FaultRow["outcomes"] {
  return each(kinds, { code, cause });
}

function answer(status: number, headers: Record<string, string> = {}): Fault {
  return { kind: "answer", status, headers };
}

/** What the documents of an image must hold for a fault that leaves them well-formed. */
export const FREE_TEXT = "enjoy";

const BROKEN = /connection failed/;

export const FAULT_ROWS: readonly FaultRow[] = [
  {
    name: "401",
    fault: answer(401),
    // An upload may have outlived its token: it starts over.
    outcomes: {
      ...final("DENIED", /401.*log in/),
      ...each(["send content", "send digest", "upload"], "right", { code: "DENIED", cause: /401.*log in/ }),
    },
  },
  { name: "403", isTypical: true, fault: answer(403), outcomes: final("DENIED", /403.*not allowed/) },
  {
    name: "404",
    fault: answer(404),
    outcomes: {
      ...final("NOT_FOUND", /404.*check the name/),
      "look for blob": ["right", "right"],
      // Registries that know no pieces get one body.
      "send content": ["right", "right"],
      ...each(["send digest", "upload"], "right", unavailable(/404/)),
    },
  },
  { name: "408", fault: answer(408), outcomes: passing(/408/) },
  { name: "429 with Retry-After: 0", fault: answer(429, { "retry-after": "0" }), outcomes: passing(/429.*limits the rate/) },
  { name: "429 with Retry-After: 1", fault: answer(429, { "retry-after": "1" }), pauseMs: 1000, outcomes: each(ALL, "right") },
  { name: "429 with Retry-After: 3600", fault: answer(429, { "retry-after": "3600" }), outcomes: final("UNAVAILABLE", /429/) },
  { name: "500", isTypical: true, fault: answer(500), outcomes: passing(/500/) },
  { name: "503", fault: answer(503), outcomes: passing(/503/) },
  { name: "a reset", isTypical: true, fault: { kind: "reset" }, outcomes: passing(BROKEN) },
  { name: "silence", fault: { kind: "hang" }, isSilent: true, outcomes: passing(/stalled/) },
  { name: "a stall in the answer", fault: { kind: "stall", afterBytes: 100 }, isSilent: true, outcomes: passing(/stalled/, READS) },
  { name: "a cut answer", isTypical: true, fault: { kind: "truncate", afterBytes: 100 }, outcomes: passing(BROKEN, READS) },
  {
    name: "an answer that ends early",
    fault: { kind: "shorten", toBytes: 100 },
    outcomes: { ...final("CORRUPT", /expected|JSON/, ["read document"]), ...passing(/body ends after \d+ of \d+ bytes/, ["read layer"]) },
  },
  {
    name: "a damaged answer",
    isTypical: true,
    fault: { kind: "corrupt", at: 40 },
    outcomes: final("CORRUPT", /digest|mediaType|data is broken/, READS),
  },
  {
    name: "an answer damaged where anything may stand",
    isTypical: true,
    fault: { kind: "corrupt", at: FREE_TEXT },
    outcomes: final("CORRUPT", /content has digest sha256:[0-9a-f]{64}, expected sha256:/, ["read document"]),
  },
  {
    name: "a length that is not the blob's",
    fault: { kind: "headers", headers: { "content-length": "1" } },
    outcomes: each(["look for blob"], "right", "right"),
  },
  {
    name: "a lost answer",
    isTypical: true,
    fault: { kind: "loseAnswer" },
    outcomes: {
      ...passing(BROKEN, ["start upload", "send content", "send digest", "upload"]),
      "store document": ["right", { code: "UNAVAILABLE", cause: BROKEN, isStored: true }],
    },
  },
  {
    name: "a reset in the middle of the body",
    isTypical: true,
    fault: { kind: "resetUpload", afterBytes: 100 },
    outcomes: passing(BROKEN, ["send content", "upload", "store document"]),
  },
  {
    name: "a body damaged on its way",
    isTypical: true,
    fault: { kind: "corruptUpload", at: 0 },
    outcomes: {
      ...final("CORRUPT", /400 (?:DIGEST|MANIFEST)_INVALID/, ["upload", "store document"]),
      // Whoever hashed it on its way out notices nothing: the registry does.
      "send content": [{ code: "CORRUPT", cause: /400 DIGEST_INVALID/ }],
    },
  },
];
