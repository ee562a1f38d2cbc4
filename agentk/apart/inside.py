"""What a process apart does first: it leaves no trace of itself, and does not outlive the daemon."""

import ctypes
import logging
import resource
import signal
import socket
import sys

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4


def begin(memory_bytes: int = resource.RLIM_INFINITY) -> list[socket.socket]:
    """No core file, no log, no reader of its memory but root, no life without the daemon. Gives the sockets to it."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if memory_bytes != resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    logging.disable(logging.CRITICAL)  # what libraries log quotes keys, and what strangers said
    return [socket.socket(fileno=int(number)) for number in sys.argv[1:]]
