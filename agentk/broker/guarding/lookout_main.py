"""A lookout: `python -I -m agentk.broker.guarding.lookout_main`. Looks through what strangers wrote, for the gate.

One job at a time comes in at standard input, its answer goes out at standard output. It holds nothing, opens nothing,
and is ended by the kernel when a job takes more of the CPU than it was given: a pattern that never ends, or code made
to exhaust whoever parses it, costs this process and that call.
"""

import ctypes
import json
import os
import resource
import signal
import struct
import sys
from typing import Any

from agentk.broker.guarding import code, looking
from agentk.tools import mcp_confining

MEMORY_BYTES = 1024 * 1024 * 1024
FOUND_MAX = 20_000  # places of one job
LENGTH = struct.Struct(">I")
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4


class TooSlow(Exception):
    """The job has had its time."""


def main() -> None:
    prctl = ctypes.CDLL(None).prctl
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGPROF, _slow)
    mcp_confining.confine()
    while data := _read():
        _write(_answered(json.loads(data)))


def _answered(job: dict[str, Any]) -> dict[str, Any]:
    seconds = float(job["seconds"])
    used = resource.getrusage(resource.RUSAGE_SELF)
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    # What hears no signal in between, as a parser, the kernel ends a little later.
    resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime + seconds) + 3, hard))
    try:
        signal.setitimer(signal.ITIMER_PROF, seconds)
        try:
            return _done(job)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
    except TooSlow:
        return {"refused": "it takes too long to look through"}
    except (RecursionError, MemoryError):
        return {"refused": "it is too deep to look through"}


def _done(job: dict[str, Any]) -> dict[str, Any]:
    if job["do"] == "code":
        return {
            "problems": code.problems(
                job["language"], job["code"], job["argv"], job["stdin"], job["rules"], job["earlier"]
            )
        }
    found = looking.look(job["texts"], job["how"])
    if sum(map(len, found)) > FOUND_MAX:
        return {"refused": f"more than {FOUND_MAX} places were found in it"}
    return {"found": found}


def _slow(number: int, frame: Any) -> None:
    raise TooSlow


def _read() -> bytes:
    head = sys.stdin.buffer.read(LENGTH.size)
    return sys.stdin.buffer.read(*LENGTH.unpack(head)) if len(head) == LENGTH.size else b""


def _write(answer: dict[str, Any]) -> None:
    data = json.dumps(answer).encode()
    sys.stdout.buffer.write(LENGTH.pack(len(data)) + data)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    try:
        main()
    except (BrokenPipeError, KeyboardInterrupt):
        os._exit(0)
