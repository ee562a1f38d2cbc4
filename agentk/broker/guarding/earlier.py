"""The code that an agent's session had before, so that a piece is looked at as the end of the program that it is.

A piece alone says little: what it calls `o` may be a module that another imported under that name. So it is looked at
behind all that the session of its box was given, and all that was looked at and may yet run there. Where that is more
than can be looked at, or is by now not allowed itself, the session ends: the next one begins with nothing.
"""

import weakref
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from agentk.api import errors
from agentk.broker.words import Guest

MOST_LETTERS = 256 * 1024

# Raises Denied for a piece behind others.
Look = Callable[[str, Sequence[str]], Awaitable[None]]


class Stays(Protocol):
    """As `sessions.Sessions`."""

    def had(self, box_id: str) -> Sequence[str] | None:
        """The pieces that the session of a box was given; None when they are more than it holds."""

    def retire(self, box_id: str) -> None:
        """It ends when nothing runs in it."""


class NoSessions:
    def had(self, box_id: str) -> Sequence[str] | None:
        return ()

    def retire(self, box_id: str) -> None:
        """There is none."""


class Earlier:
    def __init__(self, stays: Stays) -> None:
        self._stays = stays
        # By the calls that are under way: their box and their piece. A call that is over is no more in it.
        self._coming: weakref.WeakKeyDictionary[object, tuple[str, str]] = weakref.WeakKeyDictionary()

    async def look(self, call: object, guest: Guest, code: str, look: Look) -> None:
        """Raises Denied, and Conflict when the session had to end, of which nothing ran then."""
        if len(code) > MOST_LETTERS:
            raise errors.Denied(f"guardrails: more than {MOST_LETTERS} letters of code are not looked at")
        had = self._stays.had(guest.box_id)
        coming = [one for box_id, one in self._coming.values() if box_id == guest.box_id]
        others = [one for one in dict.fromkeys([*(had or ()), *coming]) if one != code]
        if had is None or sum(map(len, others)) + len(code) > MOST_LETTERS:
            raise self._over(guest, f"its session has had {MOST_LETTERS} letters of code")
        self._coming[call] = guest.box_id, code
        try:
            await look(code, others)
        except errors.Denied:
            del self._coming[call]
            await self._excuse(guest, others, look)
            raise
        except BaseException:
            del self._coming[call]
            raise

    async def _excuse(self, guest: Guest, others: Sequence[str], look: Look) -> None:
        """Raises Conflict when it was not this piece that is not allowed, but what came before it."""
        try:
            await look("", others)
        except errors.Denied as denied:
            raise self._over(
                guest, f"code that its session had is not allowed by now ({denied.message})"
            ) from None

    def _over(self, guest: Guest, why: str) -> errors.Conflict:
        self._stays.retire(guest.box_id)
        told = "it ends, and what it made is gone. Nothing of this piece ran: the next begins another session"
        return errors.Conflict(f"guardrails: {why}: {told}")
