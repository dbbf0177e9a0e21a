import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { digestOf, parseDigest } from "../../src/oci/digest.ts";
import type { ImageStore } from "../../src/oci/image-store.ts";
import { NOT_KEPT_FILES, stored, type Difference, type KeyRows, type Replay } from "./convertor-replay-row.ts";
import {
  countRequests,
  keptDigests,
  parseDocument,
  recordedDocuments,
  recordedRequests,
  RECORDING,
  shapeOf,
  type Documents,
  type RecordedCase,
} from "./convertor-replay-shape.ts";
import type { Play, Played, Stage } from "./convertor-replay-stage.ts";

/** In rows that were made wrong on purpose. */
const GONE = /sha256:(1{64}|2{64})/;
const ARTIFACT_TYPES: Readonly<Record<Format, string>> = {
  overlaybd: "application/vnd.containerd.overlaybd.native.v1+json",
  turbo: "application/vnd.containerd.overlaybd.turbo.v1+json",
};
const BLOB_FILES: Readonly<Record<Format, string>> = { overlaybd: "overlaybd.commit", turbo: "turboOCIv1.tar.gz" };

type Format = "overlaybd" | "turbo";

/** A result that a call asks for. */
interface Output {
  readonly format: Format;
  readonly tag: string;
}

/** What a call made. */
interface Result extends Output {
  readonly digest: string;
  readonly documents: Documents;
}

/** Plays a recorded run and holds what comes of it against the recording, save for the row's differences. */
async function judge(stage: Stage, row: Replay): Promise<void> {
  const recorded = RECORDING.cases[row.name];
  const play = playOf(row, recorded);
  if (row.prepare) {
    const { status, stderr } = await stage.play({ sequence: play.sequence, behind: row.behind, args: row.prepare });
    assert.equal(status, 0, stderr);
  }
  if (row.sql !== undefined) await stage.sql(play.sequence, row.sql({ host: stage.host, sequence: play.sequence }));
  const played = row.refused ? await stage.playRefused(play) : await stage.play(play);
  const { stderr } = played;
  const status = pick(row, "exit")?.exit ?? recorded.exit;
  assert.notEqual(pick(row, "exit")?.exit, recorded.exit, "the status no longer differs");
  assert.equal(played.status, status, stderr);
  if (row.says || status !== 0) assert.match(stderr, row.says ?? /the row says nothing/);
  assert.doesNotMatch(stderr, /\n\s+at /, "no stack trace");

  const outputs = status === 0 && !play.args.includes("--no-upload") ? outputsOf(play.args) : [];
  assertTags(row, played, outputs);
  const { store } = played;
  const results: Result[] = [];
  for (const output of store ? outputs : []) results.push({ ...output, ...(await stage.documents(stored(played), output.tag)) });
  for (const result of results) {
    assertDocuments(row, recorded, result, stage.known);
    assertAnnotations(result.documents);
  }
  assertFiles(row, recorded, played, status);
  if (store && recorded.referrers && results.length > 0) await assertReferrers(row, recorded, store, results);
  if (recorded.rows) await assertRows(stage, row, recorded, play, played);
  if (recorded.requests && !row.name.startsWith("fault-") && status === 0) assertRequests(row, recorded, played, stage.known);
  await row.check?.({ stage, played, digest: results[0]?.digest, documents: results[0]?.documents });
}

type Kind = "tables" | "healed" | "exit" | "result" | "requests" | "rows" | "tags" | "referrers" | "files";

function pick<K extends Kind>(row: Replay, kind: K): Extract<Difference, Record<K, unknown>> | undefined {
  return row.differs?.find((difference): difference is Extract<Difference, Record<K, unknown>> => kind in difference);
}

function playOf(row: Replay, recorded: RecordedCase): Play {
  const args = [...(recorded.args ?? row.args ?? [])];
  for (const flag of row.without ?? []) if (args.includes(flag)) args.splice(args.indexOf(flag), 2);
  const { behind, fault, faultTimes, signal, umask, disk, environment } = row;
  const sequence = (row.sequence ?? `${row.name}${row.variant ? "-variant" : ""}`).toLowerCase();
  return { sequence, args: [...args, ...(row.extra ?? [])], behind, fault, faultTimes, signal, umask, disk, environment };
}

function outputsOf(args: readonly string[]): Output[] {
  const overlaybd = argumentOf(args, "--overlaybd") ?? argumentOf(args, "-o");
  const turbo = argumentOf(args, "--turboOCI") ?? argumentOf(args, "--fastoci");
  return [...outputOf("overlaybd", overlaybd), ...outputOf("turbo", turbo)];
}

function outputOf(format: Format, tag: string | undefined): Output[] {
  return tag === undefined ? [] : [{ format, tag }];
}

/** The tags of the results came, or had been there; no other came or went. */
function assertTags(row: Replay, { tags, tagsBefore }: Played, outputs: readonly Output[]): void {
  if (tags === undefined || tagsBefore === undefined) return;
  const more = (row.differs ?? []).flatMap((difference) => ("tags" in difference ? difference.tags : []));
  assert.deepEqual(tags, [...new Set([...tagsBefore, ...outputs.map(({ tag }) => tag), ...more])].toSorted());
}

function assertDocuments(row: Replay, recorded: RecordedCase, { documents, ...output }: Result, known: ReadonlySet<string>): void {
  const differs = pick(row, "result")?.result;
  if (differs === "checked") return;
  const expected = differs ? expectedDocuments(differs.like, { exit: 0 }, output) : expectedDocuments(row.like, recorded, output);
  if (expected === undefined) return assert.ok(row.check && row.like === "none", `nothing is known of the documents of ${row.name}`);
  const kept = keptDigests(expected, known);
  assert.deepEqual(shapeOf(documents, kept), shapeOf(expected, kept));
}

function expectedDocuments(like: string | undefined, recorded: RecordedCase, { format, tag }: Output): Documents | undefined {
  const own = recordedDocuments(recorded.refs?.[tag] ?? recorded.converted?.[tag]);
  if (own) return own;
  const { refs = {}, args = [] } = RECORDING.cases[like ?? ""] ?? {};
  return recordedDocuments(refs[outputsOf(args).find((output) => output.format === format)?.tag ?? ""]);
}

/** Sizes in annotations are those of the blobs; shapes do not tell. */
function assertAnnotations(documents: Documents): void {
  for (const [place, text] of documents) {
    if (place.endsWith(".config")) continue;
    for (const { digest, size, annotations = {} } of parseDocument(text).layers ?? []) {
      const stated = annotations["containerd.io/snapshot/overlaybd/blob-size"];
      if (stated === undefined) continue;
      assert.deepEqual([stated, annotations["containerd.io/snapshot/overlaybd/blob-digest"]], [String(size), digest]);
    }
  }
}

/** Files by name, without what depends on the image and on which one was first. */
function assertFiles(row: Replay, recorded: RecordedCase, { files }: Played, status: number): void {
  const keeps = recorded.args?.includes("--reserve") === true && recorded.files === undefined && status === 0;
  if (keeps) {
    const blobs = outputsOf(recorded.args ?? []).map(({ format }) => BLOB_FILES[format]);
    return assert.ok(blobs.every((blob) => files.some((file) => file.endsWith(`/${blob}`))));
  }
  const kept = (recorded.files ?? []).filter((file) => !NOT_KEPT_FILES.test(file));
  const expected = status === 0 ? (pick(row, "files")?.files(kept) ?? kept) : [];
  const plain = (file: string): string => file.replace(/^tmp_conv\//, "").replace(/^\d+-/, "N-");
  assert.deepEqual(files.map(plain).toSorted(), expected.map(plain).toSorted());
}

async function assertReferrers(row: Replay, recorded: RecordedCase, store: ImageStore, results: readonly Result[]): Promise<void> {
  const asked = results.map(({ format }) => ARTIFACT_TYPES[format]);
  const texts = results.flatMap(({ documents }) => [...documents.values()]);
  for (const [subject, answer] of Object.entries(recorded.referrers ?? {})) {
    const found = await store.referrers(parseDigest(subject, "recording"));
    const listed = pick(row, "referrers") ? asked : [];
    // Other runs of the recording may have left more of the same.
    const expected = typeof answer === "number" ? listed : asked.filter((type) => answer.some(({ artifactType }) => artifactType === type));
    assert.equal(found.length, expected.length, subject);
    assert.deepEqual(new Set(found.map(({ artifactType }) => artifactType)), new Set(expected), subject);
    for (const { digest } of found) {
      const document = texts.filter((text) => digestOf(Buffer.from(text)) === digest);
      assert.equal(document.length, 1, `${digest} is a document of the result`);
      assert.ok(document[0].includes(`"digest":"${subject}"`));
    }
  }
}

/**
 * What the database knows of images made with default options, by key: the convertor's two tables and ours together. Rows of ours name
 * blobs and manifests that are there.
 */
async function assertRows(stage: Stage, row: Replay, { rows }: RecordedCase, play: Play, played: Played): Promise<void> {
  const ours = `from lazylayer_conversions where fingerprint like '%,vsize=68719476736,mkfs,%' and fingerprint not like '%,referrer'`;
  const layers = "select host, repo, chain_id, data_digest from overlaybd_layers";
  const ourLayers = `select host, repo, source_digest, converted_digest, converted_size ${ours} and kind = 'layer'`;
  const manifests = "select host, repo, src_digest, mediatype from overlaybd_manifests";
  const ourManifests = `select host, repo, source_digest, media_type, converted_digest, converted_size ${ours} and kind = 'manifest'`;
  const [theirLayers, ownLayers, theirManifests, ownManifests] = await Promise.all(
    [layers, ourLayers, manifests, ourManifests].map(async (statement) => await stage.sql(play.sequence, statement)),
  );
  const plain = (repository: string): string => repository.slice(play.sequence.length + 1);
  const recorded: KeyRows = {
    layers: (rows?.layers ?? []).map(([repository, chainId]) => [repository, chainId]),
    manifests: (rows?.manifests ?? []).map(([repository, source, , , mediaType]) => [repository, source, mediaType]),
  };
  const differs = pick(row, "rows");
  const expected = differs?.rows(recorded) ?? recorded;
  if (differs) assert.notDeepEqual(keysOf(expected), keysOf(recorded), "the rows no longer differ");
  const found: KeyRows = {
    layers: [...theirLayers, ...ownLayers].map(([, repository, chainId]) => [plain(repository), chainId]),
    manifests: [...theirManifests, ...ownManifests].map(([, repository, source, mediaType]) => [plain(repository), source, mediaType]),
  };
  assert.deepEqual(keysOf(found), keysOf(expected));
  if (pick(row, "tables")) assert.deepEqual([theirLayers, theirManifests], [[], []], "the convertor's tables are the convertor's");
  if (pick(row, "healed")) assert.ok(theirLayers.filter(([, , , digest]) => GONE.test(digest)).length < (rows?.layers.length ?? 0));
  for (const [host, repository, chainId, digest, size] of ownLayers) {
    assert.equal(host, played.host);
    assert.ok(await stage.hasBlob(repository, digest, Number(size)), `${repository}: ${chainId} is ${digest}, which is not there`);
  }
  for (const [, repository, source, , digest, size] of ownManifests)
    assert.ok(await stage.hasManifest(repository, digest, Number(size)), `${repository}: ${source} is ${digest}, which is not there`);
}

function keysOf({ layers, manifests }: KeyRows): { layers: string[]; manifests: string[] } {
  return { layers: [...new Set(sorted(layers))], manifests: [...new Set(sorted(manifests))] };
}

function sorted<T extends readonly string[]>(rows: readonly T[]): string[] {
  return rows.map((columns) => columns.join(" ")).toSorted();
}

/**
 * Requests as often as they were recorded, except for what differs always: a source is asked for with one GET, where the other
 * tool asks HEAD and GET; a result's manifest is written without asking for it first; blobs that are known are not read but in parts.
 */
function assertRequests(row: Replay, recorded: RecordedCase, { requests }: Played, known: ReadonlySet<string>): void {
  const expected = translateRequests(recorded, known);
  const differs = pick(row, "requests");
  const wanted = differs?.requests(expected) ?? expected;
  if (differs) assert.notDeepEqual(countRequests(wanted), countRequests(expected), "the requests no longer differ");
  const isPartOfNew = (request: string): boolean => /^GET \S+ blobs\/NEW range$/.test(request);
  assert.deepEqual(countRequests(requests.filter((request) => !isPartOfNew(request))), countRequests(wanted));
}

function translateRequests(recorded: RecordedCase, known: ReadonlySet<string>): string[] {
  const { args = [] } = recorded;
  const source = argumentOf(args, "-i");
  const results = outputsOf(args).map(({ tag }) => `manifests/${tag}`);
  const requests = recordedRequests(recorded, known);
  const texts = requests.map(({ text }) => text);
  const translated: string[] = [];
  for (const [at, { text, status }] of requests.entries()) {
    const [method, repository, what] = text.split(" ");
    const isOfSource = what === `manifests/${source}`;
    if (method === "HEAD" && isOfSource) {
      translated.push(`GET ${repository} ${what}`);
      // The GET by digest that follows.
      if (status === "200") texts[texts.findIndex((other, index) => index > at && other.startsWith(`GET ${repository} manifests/`))] = "";
    } else if (method === "HEAD" && what.startsWith("manifests/")) {
      if (status === "200" && results.includes(what)) translated.push(`PUT ${repository} ${what}`);
      if (status === "200" && what === "manifests/NEW") translated.push(`PUT ${repository} ${what}`);
    } else if (texts[at] !== "" && text !== `GET ${repository} blobs/NEW`) {
      translated.push(text);
    }
  }
  return translated;
}

function argumentOf(args: readonly string[], flag: string): string | undefined {
  return args.includes(flag) ? args[args.indexOf(flag) + 1] : undefined;
}

function nameOf({ name, variant, differs }: Replay): string {
  const reasons = [...new Set(differs?.map(({ reason }) => reason))];
  return `${name}${variant ? `, ${variant}` : ""}${reasons.length > 0 ? `, which differs: ${reasons.join("; ")}` : ""}`;
}

/** A test for each replay; those of a sequence follow each other. */
export function describeReplays(rows: readonly Replay[], stage: () => Stage): void {
  describe("a recorded run of the standalone convertor, played with ours", { concurrency: 2 }, () => {
    for (const row of rows.filter(({ sequence }) => sequence === undefined)) it(nameOf(row), async () => await judge(stage(), row));
    for (const sequence of new Set(rows.map((row) => row.sequence).filter((name) => name !== undefined))) {
      describe(`the sequence ${sequence}`, { concurrency: 1 }, () => {
        for (const row of rows.filter((other) => other.sequence === sequence)) it(nameOf(row), async () => await judge(stage(), row));
      });
    }
  });
}
