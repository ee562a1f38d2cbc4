"""Fills its workspace until the file system refuses."""

import errno
import os

block, written = os.urandom(1 << 16), 0
try:
    with open("/workspace/hoard", "wb", buffering=0) as file:
        while written < 1 << 30:
            written += file.write(block)
    print(f"wrote {written} bytes; nobody stopped me", flush=True)
except OSError as error:
    print(f"wrote {written} bytes, then {errno.errorcode[error.errno or 0]}", flush=True)
