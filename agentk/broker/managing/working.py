"""Where long conversations are worked on: in threads of their own, one piece at a time for an agent and all it spawned.

What others wait for, the gate's loop and the daemon's other threads, is not held up by how much one of them says.
"""

import asyncio
import functools
import weakref
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from agentk.memory.messages import Request

T = TypeVar("T")
_THREADS = 2
_MESSAGES, _VALUES, _LETTERS = 64, 500, 64 * 1024  # of which one is much


class Working:
    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="context")
        self._turns: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    async def apart(self, whose: str, much: bool, work: Callable[..., T], *given: Any) -> T:
        """Here, when it is little. `whose`: the account of who is worked for."""
        if not much:
            return work(*given)
        async with self._turns.setdefault(whose, asyncio.Lock()):
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, functools.partial(work, *given))

    def close(self) -> None:
        """Repeatable."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def many(request: Request) -> bool:
    return len(request.said) >= _MESSAGES or sum(said.size for said in request.said) > _LETTERS


def much(body: Any) -> bool:
    """Looks at no more of it than it must."""
    waiting, values, letters = [body], 0, 0
    while waiting:
        value = waiting.pop()
        values += 1
        if isinstance(value, str):
            letters += len(value)
        elif isinstance(value, Mapping):
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
        if len(waiting) > _VALUES or values > _VALUES or letters > _LETTERS:
            return True
    return False
