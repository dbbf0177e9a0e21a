"""Prints a JSON line for each entry below a directory. Names and targets are given byte by byte as Latin-1 characters."""

import hashlib, json, os, stat, sys

BLOCK = 4096


def data_digest(path, size):
    """A digest of the blocks that are not all zeros, with their offsets, so that huge holes cost nothing."""
    digest = hashlib.sha1()
    with open(path, "rb") as file:
        offset = 0
        while offset < size:
            try:
                offset = os.lseek(file.fileno(), offset, os.SEEK_DATA) // BLOCK * BLOCK
            except OSError:
                break
            block = os.pread(file.fileno(), BLOCK, offset)
            if block.strip(b"\0"):
                digest.update(b"%d:" % offset + block)
            offset += BLOCK
    return digest.hexdigest()


def describe(path):
    info = os.lstat(path)
    values = {name: os.getxattr(path, name, follow_symlinks=False).hex() for name in os.listxattr(path, follow_symlinks=False)}
    return {
        "mode": info.st_mode, "uid": info.st_uid, "gid": info.st_gid, "inode": info.st_ino, "links": info.st_nlink,
        "size": info.st_size, "sectors": info.st_blocks,
        "times": [str(info.st_atime_ns), str(info.st_mtime_ns), str(info.st_ctime_ns)],
        "link": os.readlink(path).decode("latin-1") if stat.S_ISLNK(info.st_mode) else "",
        "device": [os.major(info.st_rdev), os.minor(info.st_rdev)],
        "xattrs": sorted([name.encode("utf-8", "surrogateescape").decode("latin-1"), value] for name, value in values.items()),
        "content": data_digest(path, info.st_size) if stat.S_ISREG(info.st_mode) else None,
    }


def walk(root, relative):
    # Not os.path.join and recursion: deep trees pass the limits of both.
    pending = [relative]
    while pending:
        relative = pending.pop()
        path = root + b"/" + relative if relative else root
        entry = describe(path)
        print(json.dumps({"path": relative.decode("latin-1"), **entry}))
        if stat.S_ISDIR(entry["mode"]):
            pending += [relative + b"/" + name if relative else name for name in os.listdir(path)]


walk(os.fsencode(sys.argv[1]), b"")
