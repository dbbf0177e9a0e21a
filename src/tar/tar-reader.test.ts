import assert from "node:assert/strict";
import { test } from "node:test";
import {
  base256,
  tarArchive,
  tarHeader,
  tarLongName,
  tarMember,
  tarPax,
  type RawFields,
  type TarMember,
} from "../../test/support/tar-builder.ts";
import { readTar, type ReadMember } from "../../test/support/tar-events.ts";
import { TarReader } from "./tar-reader.ts";

const BLOCK = 512;
const END = new Uint8Array(2 * BLOCK);

function one(member: TarMember): ReadMember {
  const members = readTar(tarArchive([member]));
  assert.equal(members.length, 1);
  return members[0];
}

function withPax(...records: [string, string][]): ReadMember {
  return one({ name: "f", data: "abc", pax: records });
}

function refused(archive: Uint8Array, message: RegExp, code = "CORRUPT"): void {
  assert.throws(() => readTar(archive), { name: "LazyError", code, message });
}

function refusedRaw(raw: RawFields, message: RegExp, code = "CORRUPT"): void {
  refused(tarArchive([{ name: "f", raw }]), message, code);
}

test("a file's fields and place are read", () => {
  const [, file] = readTar(
    tarArchive([
      { name: "d/", mode: 0o1777 },
      { name: "./d/f", data: "hello", mode: 0o4755, uid: 1000, gid: 100, mtime: 1_700_000_000 },
    ]),
  );
  const { data, xattrs, ...rest } = file;
  const time = { seconds: 1_700_000_000, nanoseconds: 0 };
  assert.deepEqual(rest, {
    path: "d/f",
    type: "file",
    mode: 0o4755,
    uid: 1000,
    gid: 100,
    mtime: time,
    atime: time,
    ctime: time,
    size: 5,
    link: "",
    major: 0,
    minor: 0,
    extents: [{ offset: 0, length: 5 }],
    headerOffset: BLOCK,
    dataOffset: 2 * BLOCK,
    storedBytes: 5,
  });
  assert.deepEqual([data.toString(), xattrs.size], ["hello", 0]);
});

test("every type has its own fields", () => {
  assert.deepEqual([one({ name: "d/" }).type, one({ name: "d/" }).path], ["directory", "d"]);
  const symlink = one({ name: "s", type: "symlink", link: "./a//../b/", mode: 0o644 });
  assert.deepEqual([symlink.type, symlink.link, symlink.mode, symlink.size], ["symlink", "./a//../b/", 0o777, 0]);
  assert.equal(one({ name: "h", type: "hardlink", link: "/a//../b" }).link, "b");
  const device = one({ name: "c", type: "character", major: 4095, minor: 1048575 });
  assert.deepEqual([device.type, device.major, device.minor], ["character", 4095, 1048575]);
  assert.equal(one({ name: "b", type: "block", major: 8, minor: 1 }).type, "block");
  assert.equal(one({ name: "p", type: "fifo", major: 8 }).major, 0);
  assert.equal(one({ name: "f", data: "x", raw: { typeflag: "7" } }).type, "file");
  assert.equal(one({ name: "f", data: "x", raw: { typeflag: "\0", magic: "" } }).type, "file");
  assert.equal(one({ name: "f/", type: "file", raw: { typeflag: "\0", magic: "" } }).type, "directory");
  assert.equal(one({ name: "f", raw: { mode: "0100644\0" } }).mode, 0o644);
});

test("types that are no part of a file tree are refused by their letter", () => {
  for (const typeflag of ["D", "M", "N", "V", "A", "X", "Z", "8", "z", "\xff"]) {
    refusedRaw({ typeflag }, /^layer: tar header at 0: member "f" has type "/, "UNSUPPORTED");
  }
  refusedRaw({ typeflag: "V" }, /type "V" \(a GNU volume label\)/, "UNSUPPORTED");
});

test("only files have data, whatever the size field of another type says", () => {
  for (const type of ["directory", "symlink", "hardlink", "fifo", "character"] as const) {
    const [first, second] = readTar(tarArchive([{ name: "a", type, link: "x", raw: { size: 700 } }, { name: "b" }]));
    assert.deepEqual([first.type, first.size, first.storedBytes, second.path], [type, 0, 0, "b"]);
  }
});

test("data that a PAX record says a hard link has is skipped", () => {
  const [link, after] = readTar(
    tarArchive([{ name: "h", type: "hardlink", link: "f", data: "x".repeat(700), pax: [["size", "700"]] }, { name: "b" }]),
  );
  assert.deepEqual([link.data.length, link.size, after.path], [0, 0, "b"]);
});

test("names come from prefix, long name or PAX record, in rising order of weight", () => {
  const prefix = "p".repeat(155);
  assert.equal(one({ name: "n".repeat(100), raw: { prefix } }).path, `${prefix}/${"n".repeat(100)}`);
  assert.equal(one({ name: "f", raw: { prefix, magic: "" } }).path, "f", "v7 has no prefix");
  const gnuTimes: RawFields = { magic: "ustar  \0", patches: [[345, "00000000012\0"]] };
  assert.equal(one({ name: "f", raw: gnuTimes }).path, "f", "GNU has times there");
  assert.equal(one({ name: "f", raw: { prefix, magic: "ustar  \0" } }).path, `${prefix}/f`, "unless they are no numbers");
  assert.equal(
    one({
      name: "f",
      raw: {
        prefix,
        patches: [
          [476, "\0".repeat(24)],
          [508, "tar\0"],
        ],
      },
    }).path,
    `${"p".repeat(131)}/f`,
  );
  const long = `${"long/".repeat(60)}name`;
  const gnu = Buffer.concat([
    tarLongName("L", long),
    tarLongName("K", `${long}2`),
    tarMember({ name: "f", type: "symlink", link: "x", raw: { prefix, magic: "ustar\x0000" } }),
    tarMember({ name: "g" }),
  ]);
  assert.deepEqual(
    readTar(gnu).map(({ path, link }) => [path, link]),
    [
      [long, `${long}2`],
      ["g", ""],
    ],
  );
  assert.equal(readTar(Buffer.concat([tarLongName("L", long), tarMember({ name: "f", pax: [["path", "pax"]] })]))[0].path, "pax");
  assert.equal(one({ name: "\xe4\xff\x01 b" }).path, "\xe4\xff\x01 b");
});

test("names that no Linux tree can hold are refused", () => {
  refused(tarArchive([{ name: `d/${"n".repeat(256)}` }]), /"n+\.\.\." is 256 bytes long/, "UNSUPPORTED");
  refused(tarArchive([{ name: "n/".repeat(2049) + "n" }]), /4099 bytes long/, "UNSUPPORTED");
  refused(tarArchive([{ name: "f", pax: [["path", "a\0b"]] }]), /NUL/);
  refused(tarArchive([{ name: "s", type: "symlink" }]), /symlink "s" has no target/);
  refused(tarArchive([{ name: "h", type: "hardlink" }]), /hardlink "h" has no target/);
  refused(tarArchive([{ name: "s", type: "symlink", link: "x", pax: [["linkpath", "a\0b"]] }]), /NUL/);
  assert.equal(one({ name: "s", type: "symlink", link: "t".repeat(4095) }).link.length, 4095);
  refused(tarArchive([{ name: "s", type: "symlink", link: "t".repeat(4096) }]), /4096 bytes long/, "UNSUPPORTED");
});

test("numbers are octal or base-256, positive and negative", () => {
  assert.equal(one({ name: "f", raw: { uid: " 17 \0\0\0\0" } }).uid, 0o17);
  assert.equal(one({ name: "f", raw: { uid: "\0\0\0\0\0\0\0\0" } }).uid, 0);
  assert.equal(one({ name: "f", raw: { uid: "00000777" } }).uid, 0o777, "no terminator");
  assert.equal(one({ name: "f", raw: { uid: base256(4_000_000_000n, 8), gid: base256(2n ** 32n - 2n, 8) } }).uid, 4_000_000_000);
  assert.equal(one({ name: "f", raw: { mtime: base256(-5n, 12) } }).mtime.seconds, -5);
  assert.equal(one({ name: "f", raw: { mtime: base256(-(2n ** 40n), 12) } }).mtime.seconds, -(2 ** 40));
  assert.equal(one({ name: "f", raw: { mtime: base256(2n ** 53n - 1n, 12) } }).mtime.seconds, 2 ** 53 - 1);
  refusedRaw({ uid: "12x\0\0\0\0\0" }, /uid is "12x.*expected an octal number/);
  refusedRaw({ uid: "-1\0\0\0\0\0\0" }, /uid/);
  refusedRaw({ uid: base256(2n ** 32n - 1n, 8) }, /uid is 4294967295/, "UNSUPPORTED");
  refusedRaw({ gid: base256(-1n, 8) }, /gid is -1/, "UNSUPPORTED");
  refusedRaw({ mode: base256(-1n, 8) }, /mode is -1/);
  refusedRaw({ mtime: base256(2n ** 53n, 12) }, /beyond 2\^53/);
  refusedRaw({ size: base256(-512n, 12) }, /size is -512/);
  refusedRaw({ size: base256(2n ** 60n, 12) }, /beyond 2\^53/);
  refusedRaw({ size: base256(2n ** 53n - 1n, 12) }, /beyond 2\^53/);
  for (const typeflag of ["x", "L"]) refusedRaw({ typeflag, size: base256(-1n, 12) }, /size of -1/);
  refused(tarArchive([{ name: "c", type: "character", major: 4096 }]), /major device number is 4096/, "UNSUPPORTED");
  refused(tarArchive([{ name: "c", type: "block", minor: 1048576 }]), /minor device number is 1048576/, "UNSUPPORTED");
});

test("checksums count unsigned or signed bytes", () => {
  const block = Buffer.from(tarHeader({ name: "\xff\xfe" }, 0));
  const stored = Number.parseInt(block.toString("latin1", 148, 154), 8);
  const signed = (stored - 512).toString(8).padStart(6, "0");
  assert.equal(one({ name: "\xff\xfe", raw: { checksum: `${signed}\0 ` } }).path, "\xff\xfe");
  refusedRaw({ checksum: "000000\0 " }, /^layer: tar header at 0: header checksum is \d+, the header says 0; this may be no tar archive/);
  refused(Buffer.from("x".repeat(1024)), /tar header at 0: checksum is "xxxxxxxx"/);
});

test("PAX times are exact and fractions count forward", () => {
  const rows: [string, number, number][] = [
    ["5", 5, 0],
    ["5.", 5, 0],
    ["1700000000.123456789", 1_700_000_000, 123_456_789],
    ["1.5", 1, 500_000_000],
    ["0.000000001", 0, 1],
    ["1.9999999999", 1, 999_999_999],
    ["-1.5", -2, 500_000_000],
    ["-1", -1, 0],
    ["-0", 0, 0],
    ["-0.000000001", -1, 999_999_999],
    ["-3.0", -3, 0],
  ];
  for (const [text, seconds, nanoseconds] of rows) assert.deepEqual(withPax(["mtime", text]).mtime, { seconds, nanoseconds }, text);
  const all = withPax(["mtime", "1"], ["atime", "2.5"], ["ctime", "3"]);
  assert.deepEqual([all.mtime.seconds, all.atime, all.ctime.seconds], [1, { seconds: 2, nanoseconds: 500_000_000 }, 3]);
  assert.deepEqual(withPax(["mtime", "7.25"]).atime, { seconds: 7, nanoseconds: 250_000_000 }, "absent times are the mtime");
  for (const text of ["x", "1e3", "--1", "1.5x", ".5", "9007199254740993"])
    assert.throws(() => withPax(["mtime", text]), { code: "CORRUPT" }, text);
});

test("GNU and star headers have access and change times", () => {
  const gnu = one({
    name: "f",
    mtime: 9,
    raw: {
      magic: "ustar  \0",
      patches: [
        [345, "00000000012\0"],
        [357, "00000000013\0"],
      ],
    },
  });
  assert.deepEqual([gnu.mtime.seconds, gnu.atime.seconds, gnu.ctime.seconds], [9, 10, 11]);
  const star = one({
    name: "f",
    raw: {
      patches: [
        [476, "00000000012\0"],
        [488, "00000000013\0"],
        [508, "tar\0"],
      ],
    },
  });
  assert.deepEqual([star.atime.seconds, star.ctime.seconds], [10, 11]);
});

test("PAX records override the header", () => {
  const member = withPax(
    ["path", "p/q"],
    ["uid", "4294967294"],
    ["gid", "3000000"],
    ["uname", "root"],
    ["comment", "x"],
    ["hdrcharset", "BINARY"],
    ["SCHILY.dev", "5"],
  );
  assert.deepEqual([member.path, member.uid, member.gid], ["p/q", 4_294_967_294, 3_000_000]);
  assert.equal(one({ name: "s", type: "symlink", link: "x", pax: [["linkpath", "/y"]] }).link, "/y");
  const sized = readTar(tarArchive([{ name: "f", data: "x".repeat(600), pax: [["size", "600"]], raw: { size: 1 } }, { name: "g" }]));
  assert.deepEqual([sized[0].size, sized[0].data.length, sized[1].path], [600, 600, "g"]);
  assert.equal(withPax(["uid", "9"], ["uid", "10"]).uid, 10, "the last record of a key counts");
  for (const value of ["-1", "1.5", "0x10", "9007199254740992", "999999999999999999999"]) {
    assert.throws(() => withPax(["size", value]), { code: "CORRUPT" }, value);
  }
  assert.throws(() => withPax(["uid", "4294967295"]), { code: "UNSUPPORTED" });
});

test("global records apply to all that follows, until overridden or taken back", () => {
  const archive = Buffer.concat([
    tarMember({ name: "before", uid: 1 }),
    tarPax("g", [
      ["uid", "7"],
      ["mtime", "5.5"],
      ["comment", "abc"],
    ]),
    tarMember({ name: "a", uid: 1 }),
    tarMember({ name: "b", uid: 1, pax: [["uid", "8"]] }),
    tarMember({ name: "c", uid: 1, pax: [["uid", ""]] }),
    tarPax("g", [["uid", "9"]]),
    tarMember({ name: "d", uid: 1 }),
    END,
  ]);
  assert.deepEqual(
    readTar(archive).map(({ path, uid, mtime }) => [path, uid, mtime.seconds]),
    [
      ["before", 1, 0],
      ["a", 7, 5],
      ["b", 8, 5],
      ["c", 1, 5],
      ["d", 9, 5],
    ],
  );
  refused(tarArchive([], { globalPax: [["GNU.sparse.map", "0,1"]] }), /describes one file/);
  refused(tarArchive([], { globalPax: [["GNU.volume.filename", "f"]] }), /one volume of several/, "UNSUPPORTED");
});

test("xattrs are read in both spellings, sorted, byte for byte", () => {
  const value = Buffer.from([0, 10, 255, 61]);
  const member = one({
    name: "f",
    xattrs: { "user.b": value, "security.capability": "x", "user.empty": "" },
    pax: [["LIBARCHIVE.xattr.user.a%3D%25", "AAEC"]],
  });
  assert.deepEqual([...member.xattrs.keys()], ["security.capability", "user.a=%", "user.b", "user.empty"]);
  assert.deepEqual(member.xattrs.get("user.b"), value);
  assert.deepEqual(member.xattrs.get("user.a=%"), Buffer.from([0, 1, 2]));
  assert.equal(
    one({ name: "f", xattrs: { "user.a": "schily" }, pax: [["LIBARCHIVE.xattr.user.a", "AAEC"]] }).xattrs.get("user.a")!.length,
    6,
  );
  assert.equal(one({ name: "f", pax: [["SCHILY.acl.access", "user::rw-"]] }).xattrs.size, 0);
  assert.equal(one({ name: "f", xattrs: { "user.a": Buffer.alloc(65_536) } }).xattrs.get("user.a")!.length, 65_536);
  refused(tarArchive([{ name: "f", xattrs: { "user.a": Buffer.alloc(65_537) } }]), /"user.a" is 65537 bytes long/, "UNSUPPORTED");
  refused(tarArchive([{ name: "f", pax: [["LIBARCHIVE.xattr.user.a", "%%"]] }]), /not in base64/);
  refused(tarArchive([{ name: "f", pax: [["SCHILY.xattr.", "x"]] }]), /is no name/);
});

test("broken extended headers are refused", () => {
  const bodies = [
    "x",
    "5 a=b\n",
    "7 a=b\n",
    "6 a=b\nx",
    "6 a=bc",
    "5 =b\n",
    "6 abc\n",
    "-6 a=b\n",
    "99999999 a=b\n",
    "5 ab\n",
    "6 a=b\n\0",
  ];
  for (const body of bodies) {
    const bytes = Buffer.alloc(BLOCK);
    bytes.write(body, "latin1");
    const archive = Buffer.concat([tarHeader({ name: "x", raw: { typeflag: "x" } }, body.length), bytes, tarMember({ name: "f" }), END]);
    refused(archive, /^layer: tar extended header that ends at \d+: extended header record at \d+ of its body/);
  }
  refused(tarHeader({ name: "x", raw: { typeflag: "x", size: 1_048_577 } }, 0), /1048577 bytes long/, "UNSUPPORTED");
  refused(tarHeader({ name: "x", raw: { typeflag: "L", size: 1_048_577 } }, 0), /1048577 bytes long/, "UNSUPPORTED");
  refused(Buffer.concat([tarPax("x", [["path", "a"]]), END]), /member that the extended header before it describes is missing/);
  refused(Buffer.concat([tarPax("x", [["path", "a"]])]), /stops in the middle, after 1024 bytes/);
  refused(tarLongName("L", "a"), /stops in the middle/);
  assert.equal(readTar(Buffer.concat([tarPax("x", []), tarMember({ name: "f" })]))[0].path, "f");
});

test("global records without end are refused", () => {
  const many = (from: number): Uint8Array =>
    tarPax(
      "g",
      Array.from({ length: 40_000 }, (_, at) => [`k${from + at}`, "v"]),
    );
  assert.deepEqual(readTar(Buffer.concat([many(0), many(0), tarMember({ name: "f" })])).length, 1);
  refused(Buffer.concat([many(0), many(40_000)]), /more than 65536 records/, "UNSUPPORTED");
});

test("data can be passed over without being read, and nothing else", () => {
  const archive = Buffer.concat([
    tarArchive([
      { name: "a", data: "x".repeat(1300), pax: [["comment", "y"]] },
      { name: "h", type: "hardlink", link: "a", data: "x".repeat(700), pax: [["size", "700"]] },
      { name: "s", data: "abc", sparse: { size: 9000, extents: [{ offset: 7, length: 3 }] } },
      { name: "e" },
    ]),
    Buffer.alloc(5000, "junk"),
  ]);
  const whole = readTar(archive).map(({ path, dataOffset, storedBytes }) => [path, dataOffset, storedBytes]);
  const seen: unknown[] = [];
  let [open, read] = [0, 0];
  const reader = new TarReader(
    {
      entry: ({ path, dataOffset, storedBytes }) => void (open++, seen.push([path, dataOffset, storedBytes])),
      data: () => assert.fail("data was read"),
      entryEnd: () => void open--,
    },
    "archive",
  );
  while (reader.position < archive.length) {
    if (reader.skip(archive.length - reader.position) > 0) continue;
    reader.write(archive.subarray(reader.position, reader.position + BLOCK));
    read += BLOCK;
  }
  reader.close();
  assert.deepEqual([seen, open, read], [whole, 0, (3 + 3 + 4 + 1 + 2) * BLOCK]);
});

test("an archive that ends in data that was passed over stops in the middle", () => {
  for (const [available, stops] of [
    [1299, true],
    [1300, true],
    [1535, true],
    [1536, false],
  ] as const) {
    const reader = new TarReader({ entry: () => {}, data: () => {}, entryEnd: () => {} }, "archive");
    reader.write(tarHeader({ name: "a" }, 1300));
    assert.equal(reader.skip(available), available);
    if (stops) assert.throws(() => reader.close(), { code: "CORRUPT", message: /stops in the middle, after/ });
    else reader.close();
    assert.equal(reader.skip(0), 0);
  }
});

test("two blocks of zeros or the end of the input end an archive", () => {
  assert.deepEqual(readTar(new Uint8Array(0)), []);
  assert.deepEqual(readTar(END), []);
  const member = tarMember({ name: "f", data: "x" });
  for (const end of [0, BLOCK, 2 * BLOCK, 10 * BLOCK, 3 * BLOCK + 5]) {
    assert.equal(readTar(Buffer.concat([member, new Uint8Array(end)])).length, 1, `${end}`);
  }
  assert.equal(readTar(Buffer.concat([member, END, Buffer.from("trailing bytes of any kind")])).length, 1);
  refused(Buffer.concat([member, new Uint8Array(BLOCK), member]), /tar header at 1536: it follows a lone block of zeros/);
  const reader = new TarReader({ entry() {}, data() {}, entryEnd() {} }, "layer");
  reader.write(Buffer.concat([member, END, new Uint8Array(77)]));
  assert.equal(reader.position, 4 * BLOCK + 77);
});

test("an archive that stops anywhere but after a member is refused", () => {
  const archive = Buffer.concat([tarMember({ name: "f", data: "x".repeat(600), pax: [["mtime", "1.5"]] })]);
  for (let length = 1; length < archive.length; length += 97) {
    refused(archive.subarray(0, length), new RegExp(`^layer: the tar archive stops in the middle, after ${length} bytes`));
  }
  refused(tarMember({ name: "f", data: "x" }).subarray(0, 2 * BLOCK - 1), /stops in the middle/);
});
