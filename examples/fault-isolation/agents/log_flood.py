"""Prints as fast as it can for some seconds."""

import os
import sys
import time

line = b"x" * 1000 + b"\n"
end, lines = time.monotonic() + float(os.environ.get("SECONDS", "5")), 0
while time.monotonic() < end:
    os.write(1, line)
    lines += 1
print(f"printed {lines} lines", file=sys.stderr, flush=True)
