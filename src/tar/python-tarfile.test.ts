import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";
import { readTar } from "../../test/support/tar-events.ts";

/** Writes an archive in the format named by its argument to stdout, and what is in it as JSON to stderr. */
const PROGRAM = `
import io, json, sys, tarfile
members = []
out = io.BytesIO()
tar = tarfile.open(fileobj=out, mode="w", format=getattr(tarfile, sys.argv[1]), encoding="utf-8")
def add(name, type=tarfile.REGTYPE, data=b"", pax=None, **fields):
    info = tarfile.TarInfo(name)
    info.type, info.size, info.pax_headers = type, len(data), pax or {}
    for key, value in fields.items(): setattr(info, key, value)
    tar.addfile(info, io.BytesIO(data))
    members.append(dict(path=name, data=data.decode(), mode=info.mode, uid=info.uid, gid=info.gid, link=info.linkname, mtime=info.mtime, major=info.devmajor, minor=info.devminor))
long = "ustar" not in sys.argv[1].lower()
add("d", tarfile.DIRTYPE, mode=0o1755, mtime=1700000000)
add("d/file", data=b"hello" * 300, mode=0o4711, uid=1000, gid=100, mtime=5)
add("d/" + "p" * 90 + "/" + "n" * 90, data=b"x")
add("d/sym", tarfile.SYMTYPE, linkname="../x//y", mode=0o777)
add("d/hard", tarfile.LNKTYPE, linkname="d/file")
add("d/char", tarfile.CHRTYPE, devmajor=10, devminor=229)
add("d/block", tarfile.BLKTYPE, devmajor=8, devminor=16)
add("d/fifo", tarfile.FIFOTYPE)
add("d/contiguous", tarfile.CONTTYPE, data=b"c" * 512)
if long:
    add("long/" * 60 + "name", data=b"y", uid=3000000, gid=2**32 - 2)
    add("d/long-target", tarfile.SYMTYPE, linkname="t/" * 150 + "t", mode=0o777)
    add("d/negative", mtime=-7)
    add("d/\\u00e4\\u20ac", data=b"utf-8")
tar.close()
sys.stdout.buffer.write(out.getvalue())
sys.stderr.write(json.dumps(members))
`;

const hasPython = spawnSync("python3", ["-c", "import tarfile"]).status === 0;

for (const format of ["PAX_FORMAT", "GNU_FORMAT", "USTAR_FORMAT"]) {
  test(
    `what Python's tarfile writes as ${format} is read as it was meant`,
    { skip: hasPython ? false : "python3 is not installed" },
    () => {
      const { stdout, stderr, status } = spawnSync("python3", ["-c", PROGRAM, format]);
      assert.equal(status, 0, stderr.toString());
      const read = readTar(stdout).map(({ path, data, mode, uid, gid, link, mtime, major, minor }) => ({
        path: Buffer.from(path, "latin1").toString(),
        data: data.toString(),
        mode,
        uid,
        gid,
        link,
        mtime: mtime.seconds,
        major,
        minor,
      }));
      assert.deepEqual(read, JSON.parse(stderr.toString()));
    },
  );
}
