"""How a box ended, from what is known of it: the keeper's wait status, else its log, else our intent, else a counter.

Pure: reads text and numbers, answers a `box.Exit`. An exit code alone proves no reason: 137 is not an OOM.
"""

import os
import re
import signal

from agentk.runtime import box as words

_EXITED = re.compile(r"pid=\d+ \(.*\) exited with status: (\d+)")
_KILLED = re.compile(r"pid=\d+ \(.*\) terminated with signal: \S+ \((\d+)\)")
_COMPLAINT = re.compile(r"^\[([WEF])\]\[[^]]*\](?:\[\d+\])? ?(?:[A-Za-z_]\w*\(\):\d+ )?(.*)$")
_REFUSED = 255  # nsjail's own code when it could not make the jail
_WORDS_MAX = 600


def judge(
    status: int | None,
    log: str,
    intent: words.Intent | None,
    counters: words.Counters,
    finished_at: str,
    message: str = "",
    told: int | None = None,
) -> words.Exit:
    """`status` is waitpid's, None when somebody else reaped it; `log` the text of the keeper's log; `told` the code
    that Podman's own keeper noted."""

    def ended(code: int | None, number: int | None, source: str, said: str = message) -> words.Exit:
        return words.Exit(code, number, source, finished_at, counters, intent, said)  # type: ignore[arg-type]

    logged = exit_in(log) if told is None else told
    if status is not None:
        code = os.waitstatus_to_exitcode(status)
        if code < 0:
            return ended(None, -code, "wait", message or "the keeper of the box was killed")
        if code == _REFUSED and logged is None:
            return ended(code, None, "wait", complaints(log) or "nsjail refused")
        return ended(code, signal_of(code), "wait")
    if logged is not None:
        return ended(logged, signal_of(logged), "log")
    if intent is not None:
        return ended(None, None, "intent")
    if counters.oom_kills:
        return ended(None, int(signal.SIGKILL), "counter")
    return ended(None, None, "none")


def exit_in(log: str) -> int | None:
    """The exit code in the last words of a keeper's log, 128+N for a signal; None when it has none."""
    for line in reversed(log.splitlines()):
        if found := _EXITED.search(line):
            return int(found[1])
        if found := _KILLED.search(line):
            return 128 + int(found[1])
    return None


def signal_of(code: int) -> int | None:
    """The signal that 128+N means, as shells have it."""
    number = code - 128
    return number if number in signal.valid_signals() else None


def complaints(log: str) -> str:
    """What nsjail complained of, in its own words and in their order."""
    said = [found[2].strip() for line in log.splitlines() if (found := _COMPLAINT.match(line))]
    return "; ".join(dict.fromkeys(word for word in said if word))[:_WORDS_MAX]
