"""Which call a client repeats: by the key it gives, else because its SDK says that it sends the same body once more.

Clients of models send no idempotency key of their own; but after a connection that broke they send the same body with
a count of retries. Such a repetition must find the call that is under way, or that nobody knows the outcome of, and
must never make a second one. A repetition of a call whose error the client was told is a new call: it asks for one.
"""

import hashlib
import itertools
import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterable

from agentk.broker.dialects.asked import Asked

# uid, attempt, start of the key → keys of the guest's calls that nobody knows the outcome of.
UnknownOf = Callable[[str, int, str], Iterable[str]]

_ERRORS_KEPT = (
    256  # of one guest; forgetting one makes its retry look for a call that is not there, and then anew
)


class Retries:
    """Of one guest."""

    def __init__(self, unknown: UnknownOf) -> None:
        self._unknown = unknown
        self._mark = f"{secrets.token_hex(8)}-"  # no key of an earlier process comes again
        self._numbers = itertools.count()
        self._flying: dict[str, list[str]] = {}  # keys by what was asked
        self._failed: OrderedDict[str, int] = (
            OrderedDict()
        )  # errors told and not yet repeated, by what was asked

    def begin(self, asked: Asked, body: bytes, uid: str, attempt: int) -> tuple[str, bool]:
        """The key for the gate, and whether it was made just now; give it back with `end`. `body` is the request's as
        it came."""
        if asked.key:
            return asked.key, False
        what = _what(asked.dialect, body)
        if asked.retried and not self._take_failure(what):
            flying = self._flying.get(what)
            if flying:
                flying.append(flying[0])
                return flying[0], False
            if left := next(iter(self._unknown(uid, attempt, what)), ""):
                return left, False
        key = what + self._mark + str(next(self._numbers))
        self._flying.setdefault(what, []).append(key)
        return key, True

    def end(self, asked: Asked, key: str, *, failed: bool) -> None:
        if asked.key:
            return
        what = key[:_WHAT_CHARS]
        flying = self._flying.get(what, [])
        if key in flying:
            flying.remove(key)
        if not flying:
            self._flying.pop(what, None)
        if failed:
            self._failed[what] = self._failed.get(what, 0) + 1
            self._failed.move_to_end(what)
            while len(self._failed) > _ERRORS_KEPT:
                self._failed.popitem(last=False)

    def _take_failure(self, what: str) -> bool:
        count = self._failed.pop(what, 0)
        if count > 1:
            self._failed[what] = count - 1
        return count > 0


_WHAT_CHARS = 4 + 32 + 1


def _what(dialect: str, body: bytes) -> str:
    return f"sdk-{hashlib.sha256(dialect.encode() + body).hexdigest()[:32]}-"
