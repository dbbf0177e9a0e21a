import assert from "node:assert/strict";
import { lstat, mkdir, open, readFile, readdir, readlink, symlink, utimes, writeFile, link, chmod } from "node:fs/promises";
import { test } from "node:test";
import { execute, run } from "../../test/support/command.ts";
import { tarArchive, type TarMember } from "../../test/support/tar-builder.ts";
import { contentOf, readTar, type ReadMember } from "../../test/support/tar-events.ts";
import { TemporaryDirectory } from "../../test/support/temporary-directory.ts";

const SPARSE_SIZE = 40_000_000;
const LONG_NAME = `${"long-directory-name/".repeat(12)}${"f".repeat(120)}`;

/** A directory with all that an ordinary user can make. */
async function makeTree(root: string): Promise<void> {
  await mkdir(`${root}/d/e`, { recursive: true });
  await writeFile(`${root}/d/file`, "hello");
  await writeFile(`${root}/d/empty`, "");
  await writeFile(`${root}/d/two-blocks`, Buffer.alloc(1024, "x"));
  await link(`${root}/d/file`, `${root}/d/e/hard`);
  await symlink("../d//./file", `${root}/d/soft`);
  await symlink("t".repeat(300), `${root}/d/long-target`);
  await mkdir(`${root}/${LONG_NAME.slice(0, LONG_NAME.lastIndexOf("/"))}`, { recursive: true });
  await writeFile(`${root}/${LONG_NAME}`, "long");
  await writeFile(Buffer.from(`${root}/d/b\xe4\xff`, "latin1"), "bytes");
  await chmod(`${root}/d/file`, 0o4751);
  await utimes(`${root}/d/file`, 1.5, 1_700_000_000.25);
  await run("mkfifo", [`${root}/d/fifo`]);
  await writeSparse(`${root}/sparse`);
}

/** 60 stretches of data, more than one block of extents, and a hole at the end. */
async function writeSparse(path: string): Promise<void> {
  await using file = await open(path, "w");
  for (let at = 0; at < 60; at++) await file.write(Buffer.alloc(at % 7 === 0 ? 4096 : 5000, at + 1), 0, undefined, at * 600_000);
  await file.truncate(SPARSE_SIZE);
}

async function assertLikeTree(members: readonly ReadMember[], root: string, wholeSeconds: boolean): Promise<void> {
  const files = members.filter(({ type }) => type !== "hardlink");
  for (const member of files) {
    const path = Buffer.from(`${root}/${member.path}`, "latin1");
    const stats = await lstat(path, { bigint: true });
    assert.equal(member.mode, Number(stats.mode & 0o7777n), member.path);
    assert.deepEqual([member.uid, member.gid], [Number(stats.uid), Number(stats.gid)], member.path);
    const mtimeNs = wholeSeconds ? (stats.mtimeNs / 1_000_000_000n) * 1_000_000_000n : stats.mtimeNs;
    assert.equal(BigInt(member.mtime.seconds) * 1_000_000_000n + BigInt(member.mtime.nanoseconds), mtimeNs, member.path);
    if (member.type === "symlink") assert.equal(member.link, await readlink(path));
    if (member.type === "file") assert.ok(contentOf(member).equals(await readFile(path)), member.path);
  }
  assert.equal(members.length, 1 + (await readdir(root, { recursive: true })).length);
}

const FORMATS: [name: string, options: string[]][] = [
  ["GNU", ["--format=gnu"]],
  ["GNU with old sparse headers", ["--format=gnu", "--sparse"]],
  ["PAX", ["--format=posix"]],
  ["PAX with sparse 0.0", ["--format=posix", "--sparse-version=0.0"]],
  ["PAX with sparse 0.1", ["--format=posix", "--sparse-version=0.1"]],
  ["PAX with sparse 1.0", ["--format=posix", "--sparse-version=1.0"]],
];

test("what GNU tar packs in any of its formats is read as the tree it came from", async () => {
  await using directory = await TemporaryDirectory.create();
  const root = directory.join("root");
  await makeTree(root);
  for (const [name, options] of FORMATS) {
    const packed = await execute("tar", ["--create", "--file=-", "--numeric-owner", ...options, "--directory", root, "."]);
    assert.equal(packed.status, 0, packed.stderr);
    const members = readTar(packed.stdout, [70_000]);
    await assertLikeTree(members, root, name.startsWith("GNU"));
    const linked = members.find(({ type }) => type === "hardlink")!;
    assert.deepEqual([linked.path, linked.link].toSorted(), ["d/e/hard", "d/file"], name);
    const sparse = members.find(({ path }) => path === "sparse")!;
    if (name.includes("sparse")) assert.ok(sparse.extents.length > 21 && sparse.storedBytes < 1_000_000, name);
    else assert.equal(sparse.storedBytes, SPARSE_SIZE);
    assert.equal(members.find(({ path }) => path === LONG_NAME)?.data.toString(), "long");
    assert.equal(members.find(({ path }) => path === "d/b\xe4\xff")?.data.toString(), "bytes");
  }
});

test("v7 and ustar archives of GNU tar are read", async () => {
  await using directory = await TemporaryDirectory.create();
  await mkdir(directory.join("root", "d"), { recursive: true });
  await writeFile(directory.join("root", "d", "f"), "hello");
  for (const format of ["v7", "ustar", "oldgnu"]) {
    const packed = await execute("tar", ["--create", "--file=-", `--format=${format}`, "--directory", directory.join("root"), "."]);
    await assertLikeTree(readTar(packed.stdout), directory.join("root"), true);
  }
});

const MEMBERS: TarMember[] = [
  { name: "d/", mode: 0o1750, uid: 3_000_000, gid: 5, mtime: { seconds: -2, nanoseconds: 500_000_000 } },
  { name: `d/${"n".repeat(200)}`, data: "hello", mtime: { seconds: 1_700_000_000, nanoseconds: 1 } },
  { name: "d/s", type: "symlink", link: "t".repeat(150) },
  { name: "d/h", type: "hardlink", link: `d/${"n".repeat(200)}` },
  { name: "d/c", type: "character", major: 5, minor: 300 },
  { name: "d/b", type: "block", major: 8, minor: 1 },
  { name: "d/p", type: "fifo", mode: 0o600 },
  { name: "d/sparse", data: "ab", sparse: { size: 5000, extents: [{ offset: 10, length: 1 }, { offset: 4999, length: 1 }] } }, // prettier-ignore
];

test("GNU tar lists hand-made archives as we read them", async () => {
  const archive = tarArchive(MEMBERS);
  const listing = await run("tar", ["--list", "--verbose", "--numeric-owner", "--full-time", "--utc", "--file=-"], { input: archive });
  const lines = listing.trimEnd().split("\n");
  const members = readTar(archive);
  assert.equal(lines.length, members.length);
  const letters = { file: "-", directory: "d", symlink: "l", hardlink: "h", character: "c", block: "b", fifo: "p" };
  for (const [at, member] of members.entries()) {
    const [mode, owner, size, , , name] = lines[at].split(/\s+/);
    assert.equal(mode.charAt(0), letters[member.type], lines[at]);
    assert.equal(owner, `${member.uid}/${member.gid}`);
    const expectedSize = member.major > 0 ? `${member.major},${member.minor}` : String(member.size);
    assert.equal(size, expectedSize, lines[at]);
    assert.equal(name.replace(/\/$/, ""), member.path);
    if (member.link !== "") assert.ok(lines[at].endsWith(member.link));
  }
});

test("GNU tar extracts times before 1970 as we read them", async () => {
  await using directory = await TemporaryDirectory.create();
  const times = ["-1.5", "-0.000000001", "-3", "-2.9999999990"];
  const archive = tarArchive(times.map((time, at) => ({ name: `f${at}`, pax: [["mtime", time]] })));
  await run("tar", ["--extract", "--file=-", "--directory", directory.path], { input: archive });
  for (const { path, mtime } of readTar(archive)) {
    const { mtimeNs } = await lstat(directory.join(path), { bigint: true });
    assert.equal(BigInt(mtime.seconds) * 1_000_000_000n + BigInt(mtime.nanoseconds), mtimeNs, path);
  }
});

test("GNU tar and we agree on where an archive ends too early", async () => {
  const archive = tarArchive(
    [
      { name: "a", data: "x".repeat(600) },
      { name: "b", data: "y" },
    ],
    { endBlocks: 0 },
  );
  for (let length = 512; length <= archive.length; length += 512) {
    const { status } = await execute("tar", ["--list", "--file=-", "--record-size=512"], { input: archive.subarray(0, length) });
    const isRead = refusal(archive.subarray(0, length)) === undefined;
    assert.equal(isRead, status === 0, `${length} bytes`);
  }
});

function refusal(archive: Uint8Array): unknown {
  try {
    readTar(archive);
    return undefined;
  } catch (error) {
    return error;
  }
}
