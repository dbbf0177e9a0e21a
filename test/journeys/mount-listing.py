"""Prints a JSON line for each entry of a tree, sorted by the bytes of its path: what stat, readlink and xattrs say, and a digest."""

import base64, hashlib, json, os, stat, sys

TYPES = {
    stat.S_IFREG: "reg", stat.S_IFDIR: "dir", stat.S_IFLNK: "symlink", stat.S_IFIFO: "fifo",
    stat.S_IFCHR: "chr", stat.S_IFBLK: "blk", stat.S_IFSOCK: "sock",
}


def text(name):
    return name.decode("utf-8", "surrogateescape")


def describe(path, relative):
    info = os.lstat(path)
    kind = TYPES[stat.S_IFMT(info.st_mode)]
    entry = {
        "path": text(relative), "type": kind, "mode": "%04o" % stat.S_IMODE(info.st_mode),
        "uid": info.st_uid, "gid": info.st_gid, "nlink": info.st_nlink, "ino": info.st_ino,
        "mtime": "%d.%09d" % divmod(info.st_mtime_ns, 10**9), "size": None if kind == "dir" else info.st_size,
    }
    if kind in ("chr", "blk"):
        entry["rdev"] = "%d:%d" % (os.major(info.st_rdev), os.minor(info.st_rdev))
    if kind == "symlink":
        entry["target"] = text(os.readlink(path))
    if kind == "reg":
        with open(path, "rb") as file:
            entry["sha256"] = hashlib.sha256(file.read()).hexdigest()
        entry["blocks"] = info.st_blocks
    values = {name: os.getxattr(path, name, follow_symlinks=False) for name in os.listxattr(path, follow_symlinks=False)}
    if values:
        entry["xattrs_b64"] = {name: base64.b64encode(value).decode() for name, value in values.items()}
    return entry


def walk(root, relative=b"."):
    path = os.path.normpath(os.path.join(root, relative))
    yield relative, describe(path, relative)
    if stat.S_ISDIR(os.lstat(path).st_mode):
        for name in os.listdir(path):
            yield from walk(root, name if relative == b"." else os.path.join(relative, name))


for _, entry in sorted(walk(sys.argv[1].encode()), key=lambda pair: pair[0]):
    print(json.dumps(entry, sort_keys=True))
