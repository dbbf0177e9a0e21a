"""measure.py COMMAND...: runs a command and prints what the kernel counted, as one line of JSON on standard error's end.

Fields: wall and cpu in seconds, peak resident memory of the largest process in bytes, exit status.
"""

import json
import resource
import subprocess
import sys
import time

start = time.monotonic()
status = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
wall = time.monotonic() - start
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps({"wall": wall, "cpu": usage.ru_utime + usage.ru_stime, "rss": usage.ru_maxrss * 1024, "status": status}))
