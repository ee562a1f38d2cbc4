"""One process apart that is kept: started by whoever needs it first, started again after it died, ended with us.

There is never a second beside it: before another one is started, everybody was told of the end of the one before.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from agentk.apart.child import Child, NotStarted, Role
from agentk.apart.frames import Message
from agentk.api import errors

BACKOFF_SECONDS = 0.5  # before a new start, doubled with each death in a row after the first …
BACKOFF_SECONDS_MAX = 30.0


class Kept:
    """`hear` is given what the process says, `died` is told each time one ended. `rest` is asked to pass the seconds
    until one may be started again; it may raise instead."""

    def __init__(
        self,
        role: Role,
        hear: Callable[[Message], None],
        died: Callable[[str], None],
        rest: Callable[[float], Awaitable[Any]] = asyncio.sleep,
        python: str = sys.executable,
    ) -> None:
        self.deaths = 0  # in a row, starts that failed among them
        self._role, self._python = role, python
        self._hear, self._tell_died, self._rest = hear, died, rest
        self._child: Child | None = None
        self._starting: asyncio.Task[Child] | None = None
        self._not_before = 0.0  # the loop's time
        self._closed = False

    @property
    def now(self) -> Child | None:
        """The process, while there is one."""
        return self._child if self._child and not self._child.gone else None

    async def ready(self) -> Child:
        """Raises NotStarted; Unavailable once closed; what `rest` raises."""
        if self._closed:
            raise self._shut()
        if child := self.now:
            return child
        if self._starting is None:
            self._starting = asyncio.create_task(self._begin(), name=f"start {self._role.module}")
            self._starting.add_done_callback(self._started)
        # Waited for, not awaited: a caller that hangs up does not take the start from the others.
        await asyncio.wait((starting := self._starting,))
        if starting.cancelled():
            raise self._shut()
        return starting.result()

    def served(self) -> None:
        """It did what it is for: the deaths before are no row."""
        self.deaths = 0

    async def close(self) -> None:
        """End the process and all that is under way. Safe to call twice; nothing is started afterwards."""
        self._closed = True
        if self._starting:
            self._starting.cancel()
            await asyncio.wait((self._starting,))
        if self._child:
            await self._child.end()

    def _started(self, task: "asyncio.Task[Child]") -> None:
        self._starting = None
        if not task.cancelled():
            task.exception()  # every caller that still waits is told; with none left it is no error

    async def _begin(self) -> Child:
        if self._child:
            await self._child.told()
        if (seconds := self._not_before - asyncio.get_running_loop().time()) > 0:
            await self._rest(seconds)
        try:
            self._child = await Child.spawn(self._role, self._python)
        except NotStarted:
            self._count()
            raise
        self._child.listen(self._hear, self._died)
        return self._child

    def _died(self, how: str) -> None:
        if not self._closed:
            self._count()
        self._tell_died(how)

    def _count(self) -> None:
        self.deaths += 1
        if self.deaths > 1:
            seconds = min(BACKOFF_SECONDS * 2 ** min(self.deaths - 2, 10), BACKOFF_SECONDS_MAX)
            self._not_before = asyncio.get_running_loop().time() + seconds

    def _shut(self) -> errors.Unavailable:
        return errors.Unavailable(f"{self._role.title} is shut down")
