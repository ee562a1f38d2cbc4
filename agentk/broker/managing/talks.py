"""Which calls of the journal have words of which conversation, so that who forgets a page forgets those, too.

A call is noted when its provider is asked, for its record has its words by then, whatever becomes of it: also one that
was asked before there was a window, that failed, or that wrote a note. Nobody waits for that.
"""

import asyncio
import contextlib
import weakref
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from agentk.broker.managing.saving import Place
from agentk.broker.methods import Context
from agentk.memory import contexts
from agentk.memory.driver import Conn


@dataclass(frozen=True)
class Talk:
    place: Place
    root: bytes  # chain of its first message


class Writing(Protocol):
    def __call__(self, work: Callable[[Conn], None]) -> Coroutine[Any, Any, None]: ...


class Talks:
    def __init__(self, write: Writing, now: Callable[[], float]) -> None:
        self._write, self._now = write, now
        self._of: weakref.WeakKeyDictionary[Context, Talk] = weakref.WeakKeyDictionary()
        self._folds: dict[tuple[str, str], Talk] = {}  # that are being written: by agent and key
        self._tasks: set[asyncio.Task[None]] = set()

    def begins(self, context: Context, talk: Talk) -> None:
        self._of[context] = talk

    @contextlib.contextmanager
    def folding(self, talk: Talk, agent: str, key: str) -> Iterator[None]:
        """While a call of this agent with this key writes a note of it."""
        self._folds[agent, key] = talk
        try:
            yield
        finally:
            del self._folds[agent, key]

    def asked(self, context: Context) -> None:
        talk = self._of.pop(context, None) or self._folds.get((context.call.guest.uid, context.call.key))
        if talk is not None:
            self.has(talk, context.effect)

    def has(self, talk: Talk, effect: str) -> None:
        """A call has words of it."""
        place = talk.place

        self.later(
            lambda conn: contexts.told_to(conn, place.memory, place.owner, talk.root, effect, self._now())
        )

    def later(self, work: Callable[[Conn], None]) -> None:
        """Written behind the back of who is answered."""
        task = asyncio.get_running_loop().create_task(self._write(work), name="context: what a call has")
        self._tasks.add(task)
        task.add_done_callback(self._done)

    async def close(self) -> None:
        """Writes what is still to be written. Repeatable."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # a full disk, say: the next turn hears of it
