"""The code that an agent's session was given before, so that a piece is looked at as the end of the program that it is.

A piece alone says little: what it calls `o` may be a module that another imported under that name. So each is held here
from the moment it is looked at, in the order in which they came, until its agent's box is gone; a session that ends is
not forgotten, for nobody could tell which pieces another that begins then had before.
"""

import contextlib
from collections.abc import Iterator, Sequence

from agentk.api import errors
from agentk.broker.words import Guest

MOST_LETTERS = 256 * 1024  # of one box


class Earlier:
    def __init__(self) -> None:
        self._held: dict[tuple[str, str], list[str]] = {}  # by the agent's uid and its box

    @contextlib.contextmanager
    def before(self, guest: Guest, code: str) -> Iterator[list[str]]:
        """The pieces before this one, which is another from now on, unless the block raises. Raises Denied."""
        held = self._held.setdefault((guest.uid, guest.box_id), [])
        others = [one for one in held if one != code]
        if sum(map(len, others)) + len(code) > MOST_LETTERS:
            raise errors.Denied(
                f"guardrails: its session had {MOST_LETTERS} letters of code, and no more is looked at",
                hint="exec without session, or in another attempt of the agent",
            )
        known = len(others) < len(held)
        if not known:
            held.append(code)
        try:
            yield others
        except BaseException:
            if not known:
                held.remove(code)
            raise

    def keep(self, uids: Sequence[str]) -> None:
        there = set(uids)
        self._held = {key: held for key, held in self._held.items() if key[0] in there}
