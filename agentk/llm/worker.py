"""The daemon's side of the LiteLLM worker: one child process that translates what no provider speaks itself.

It is started by the first call that needs it, replaced when it dies, and ends with the daemon. This file never imports
LiteLLM (2 s and 170 MB), never repeats a call that may have reached an upstream, and never logs what it sends: keys are
in it. They travel over a socketpair only, never in an environment or a command line.
"""

import asyncio
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from agentk.api import errors
from agentk.llm import asking, worker_wire
from agentk.llm.worker_child import Child

BACKOFF_SECONDS = 0.5  # before a new start, doubled with each death in a row after the first …
BACKOFF_SECONDS_MAX = 30.0


class Worker:
    """Every argument is optional; nothing is started before the first call or `start`."""

    def __init__(self, python: str = sys.executable) -> None:
        self._python = python
        self._child: Child | None = None
        self._starting: asyncio.Task[Child] | None = None
        self._deaths = 0  # in a row, with no answered call between
        self._not_before = 0.0  # the loop's time
        self._closed = False

    @property
    def pid(self) -> int | None:
        """The process, while there is one."""
        return self._child.pid if self._child and not self._child.gone else None

    async def start(self) -> None:
        """Have the process ready. Safe to call twice."""
        await self._ready()

    async def close(self) -> None:
        """End the process and every call in flight. Safe to call twice; nothing is started afterwards."""
        self._closed = True
        if self._starting:
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)
        if self._child:
            await self._child.end()

    async def send(
        self,
        route_key: str,
        model_list: Sequence[Mapping[str, Any]],
        router_settings: Mapping[str, Any],
        ask: asking.Ask,
    ) -> asking.Reply:
        """Ask, and return once the upstream has begun to answer. Until then every failure is raised from here."""
        message = {
            "t": "ask",
            "route": route_key,
            "models": list(model_list),
            "settings": dict(router_settings),
            "dialect": ask.dialect,
            "body": dict(ask.body),
            "stream": ask.stream,
        }
        child = await self._ready()
        try:
            reply = child.ask(message, ask, model_list[0])
        except worker_wire.TooLarge as error:
            raise errors.TooLarge(f"the request is too large to translate: {error}") from None
        try:
            await reply.begun()
        except BaseException:
            reply.stop()
            raise
        return reply

    async def _ready(self) -> Child:
        if self._closed:
            raise errors.Unavailable("the model worker is shut down")
        if self._child and not self._child.gone:
            return self._child
        if self._starting is None:
            self._starting = asyncio.create_task(self._begin(), name="llm-worker-start")
            self._starting.add_done_callback(self._started)
        # Waited for, not awaited: a caller that hangs up does not take the start from the others.
        await asyncio.wait((starting := self._starting,))
        if starting.cancelled():
            raise errors.Unavailable("the model worker is shut down")
        return starting.result()

    def _started(self, task: "asyncio.Task[Child]") -> None:
        self._starting = None
        if not task.cancelled():
            task.exception()  # every caller that still waits is told; with none left it is no error

    async def _begin(self) -> Child:
        wait = self._not_before - asyncio.get_running_loop().time()
        if wait > 0:
            raise asking.Refused(
                f"the model worker ended {self._deaths} times in a row and is given a rest",
                type="worker",
                retryable=True,
                retry_after_seconds=int(wait) + 1,
            )
        try:
            self._child = await Child.spawn(self._python, died=self._died, answered=self._answered)
        except asking.Refused:
            self._died()
            raise
        return self._child

    def _answered(self) -> None:
        self._deaths = 0

    def _died(self) -> None:
        self._deaths += 1
        if self._deaths > 1:
            wait = min(BACKOFF_SECONDS * 2 ** min(self._deaths - 2, 10), BACKOFF_SECONDS_MAX)
            self._not_before = asyncio.get_running_loop().time() + wait
