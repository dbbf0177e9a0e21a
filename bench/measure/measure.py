"""measure.py DIRECTORY COMMAND...: runs a command and prints what the kernel counted, as one line of JSON.

wall, cpu: seconds; the processor time is that of the command and of the processes it waited for.
rss: the largest amount of memory that one process had, in bytes.
written: bytes that the command itself, not what it started, wrote into files, whether or not they were deleted later.
scratch: the most that was on disk at once, in bytes, in DIRECTORY and in deleted files that the command had open from there. It is
looked at every 100 ms.
status: the exit status. The command's standard output is thrown away, its standard error is ours.
"""

import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time

INTERVAL_SECONDS = 0.1


def sizes_below(directory, found):
    try:
        entries = list(os.scandir(directory))
    except OSError:
        return
    for entry in entries:
        try:
            if entry.is_dir(follow_symlinks=False):
                sizes_below(entry.path, found)
            else:
                status = entry.stat(follow_symlinks=False)
                found[status.st_ino] = status.st_blocks * 512
        except OSError:
            pass


def sizes_of_deleted(pid, directory, found):
    descriptors = f"/proc/{pid}/fd"
    try:
        names = os.listdir(descriptors)
    except OSError:
        return
    for name in names:
        try:
            target = os.readlink(f"{descriptors}/{name}")
            if target.startswith(directory) and target.endswith(" (deleted)"):
                status = os.stat(f"{descriptors}/{name}")
                if stat.S_ISREG(status.st_mode):
                    found[status.st_ino] = status.st_blocks * 512
        except OSError:
            pass


directory = os.path.realpath(sys.argv[1])
peak = 0
done = threading.Event()


def watch(pid):
    global peak
    while not done.wait(INTERVAL_SECONDS):
        found = {}
        sizes_below(directory, found)
        sizes_of_deleted(pid, directory, found)
        peak = max(peak, sum(found.values()))


start = time.monotonic()
child = subprocess.Popen(sys.argv[2:], stdout=subprocess.DEVNULL)
# Who stops this wants the command stopped; it cleans up after itself, and its end is waited for as always.
signal.signal(signal.SIGTERM, lambda *_: child.terminate())
# A terminal tells the command as well.
signal.signal(signal.SIGINT, lambda *_: None)
watcher = threading.Thread(target=watch, args=(child.pid,))
watcher.start()
os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
wall = time.monotonic() - start
done.set()
with open(f"/proc/{child.pid}/io") as counters:
    counts = dict(line.split(": ") for line in counters)
_, status, usage = os.wait4(child.pid, 0)
watcher.join()
figures = {
    "wall": wall,
    "cpu": usage.ru_utime + usage.ru_stime,
    "rss": usage.ru_maxrss * 1024,
    "written": int(counts["write_bytes"]),
    "scratch": peak,
    "status": os.waitstatus_to_exitcode(status),
}
print(json.dumps(figures))
