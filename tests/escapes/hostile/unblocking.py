"""Turns its outputs to blocking, so that whoever shares the open file would wait in them."""

import fcntl
import os

from attempts import report

before = []
for fd in (1, 2):
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    before.append(bool(flags & os.O_NONBLOCK))
    fcntl.fcntl(fd, fcntl.F_SETFL, flags & ~os.O_NONBLOCK)
report(before=before)
