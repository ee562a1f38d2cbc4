"""A lookout: `python -I -m agentk.broker.guarding.lookout_main FD`. Looks through what strangers wrote, for the gate.

One job at a time comes in at its socket, and its answer goes out there. It holds nothing, opens nothing,
and is ended by the kernel when a job takes more of the CPU than it was given: a pattern that never ends, or code made
to exhaust whoever parses it, costs this process and that call.
"""

import os
import resource
import signal
from typing import Any

from agentk.apart import confining, frames, inside
from agentk.broker.guarding import code, looking

MEMORY_BYTES = 1024 * 1024 * 1024
FOUND_MAX = 20_000  # places of one job


class TooSlow(Exception):
    """The job has had its time."""


def main() -> None:
    (ours,) = inside.begin(MEMORY_BYTES)
    signal.signal(signal.SIGPROF, _slow)
    try:
        confining.confine()
    except OSError as error:
        ours.sendall(frames.failed(error))
        return
    ours.sendall(frames.pack(frames.READY))
    with ours.makefile("rb") as jobs:
        while job := frames.read_waiting(jobs):
            ours.sendall(frames.pack(_answered(job)))


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


if __name__ == "__main__":
    try:
        main()
    except (BrokenPipeError, KeyboardInterrupt):
        os._exit(0)
