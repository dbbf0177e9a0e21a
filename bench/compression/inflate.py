"""inflate.py FILE: decodes a gzip file with C zlib, fed 1 MiB at a time, and prints the bytes of content and the seconds of CPU time.

Decodes twice and counts the second time: in the first one the kernel is still giving the process its memory.
"""

import sys
import time
import zlib

with open(sys.argv[1], "rb") as file:
    stored = file.read()
for _ in range(2):
    start = time.process_time()
    inflate = zlib.decompressobj(31)
    total = 0
    for at in range(0, len(stored), 1 << 20):
        total += len(inflate.decompress(stored[at : at + (1 << 20)]))
    seconds = time.process_time() - start
print(total, seconds)
