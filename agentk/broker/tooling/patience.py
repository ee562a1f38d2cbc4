"""How long a tool that could not say what it offers is left alone: a little, then longer each time.

Agents ask as often as they list their tools, and asking may start a box, a server or packages. So for that long they
get the answer of the last time. A person who asks is never kept waiting by it.
"""

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from agentk.api import errors
from agentk.broker.tooling.kinds import NotYet

BEGIN_SECONDS = 1.0
MOST_SECONDS = 60.0


@dataclass(frozen=True)
class _Failure:
    fingerprint: str
    error: errors.AgentkError
    not_before: float
    wait: float


class Patience:
    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._failures: dict[str, _Failure] = {}  # by uid of the Tool

    def failed(self, uid: str, fingerprint: str, error: errors.AgentkError) -> float:
        """Seconds from now on in which nobody need ask again: none for what is only not there yet."""
        before = self._failures.get(uid)
        wait = 0.0 if isinstance(error, NotYet) else BEGIN_SECONDS
        if wait and before is not None and before.fingerprint == fingerprint:
            wait = min(max(before.wait * 2, BEGIN_SECONDS), MOST_SECONDS)
        self._failures[uid] = _Failure(fingerprint, error, self._now() + wait, wait)
        return wait

    def refusal(self, uid: str, fingerprint: str) -> errors.AgentkError | None:
        """The error of the last time, while it is too early to ask one that is made of the same."""
        failure = self._failures.get(uid)
        if failure is None or failure.fingerprint != fingerprint:
            return None
        seconds = math.ceil(failure.not_before - self._now())
        if seconds <= 0:
            return None
        again = copy.copy(failure.error)
        again.message = f"{again.message} (it is not asked again for {seconds} s)"
        again.retry_after_seconds = seconds
        return again

    def has_failed(self, uid: str) -> bool:
        """Whether that is what came of asking it last."""
        return uid in self._failures

    def forget(self, uid: str) -> None:
        self._failures.pop(uid, None)
