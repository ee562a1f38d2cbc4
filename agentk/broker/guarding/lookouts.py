"""The gate's way to the processes that look through texts and code for it: few, started when first needed.

Must never wait on the gate's loop for a text, and never let something pass that was not looked through: who takes too
long, or dies of it, has refused it. One agent has one of them at a time, so that none of them is all an agent's.
"""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from agentk.apart.child import Child, NotStarted, Role
from agentk.apart.frames import Message, pack
from agentk.api import errors

ROLE = Role("a lookout", "agentk.broker.guarding.lookout_main", said_bytes_max=8 * 1024 * 1024)
PROCESSES = 2
SECONDS = 2.0  # of the CPU, for one job …
_SECONDS_EACH = 10e-6  # … and for each letter of it; ordinary ones take a fifth of that
_WALL_SECONDS = 120.0  # beyond any CPU time: the machine may be busy
_APART_LETTERS = 64 * 1024


class Lookouts:
    def __init__(self, python: str = sys.executable, seconds: float = SECONDS) -> None:
        self._python, self._seconds = python, seconds
        self._idle: list[Child] = []
        self._room = asyncio.Semaphore(PROCESSES)
        self._agents: dict[str, tuple[asyncio.Lock, int]] = {}
        self._closed = False

    async def close(self) -> None:
        """Safe to call twice."""
        self._closed = True
        while self._idle:
            await self._idle.pop().end()

    async def look(
        self, uid: str, texts: Sequence[str], how: Mapping[str, Any]
    ) -> list[list[tuple[int, int, str]]]:
        """For each text where something was found. Raises Denied when it could not be looked through."""
        answer = await self._ask(uid, {"do": "look", "texts": list(texts), "how": how}, sum(map(len, texts)))
        return [[(int(a), int(b), str(kind)) for a, b, kind in spans] for spans in answer["found"]]

    async def code(
        self,
        uid: str,
        language: str,
        code: str,
        argv: Sequence[str],
        stdin: str,
        rules: Mapping[str, Any],
        earlier: Sequence[str] = (),
    ) -> list[str]:
        """Why it may not run. Raises Denied when it could not be looked through."""
        job = {
            "do": "code",
            "language": language,
            "code": code,
            "argv": list(argv),
            "stdin": stdin,
            "rules": rules,
            "earlier": list(earlier),
        }
        answer = await self._ask(uid, job, len(code) + len(stdin) + sum(map(len, earlier)))
        return [str(one) for one in answer["problems"]]

    async def _ask(self, uid: str, job: dict[str, Any], letters: int) -> Mapping[str, Any]:
        job["seconds"] = self._seconds + _SECONDS_EACH * letters
        try:
            frame = await asyncio.to_thread(pack, job) if letters > _APART_LETTERS else pack(job)
            async with self._alone(uid), self._room, asyncio.timeout(_WALL_SECONDS + 10 * job["seconds"]):
                answer = await self._exchange(frame)
        except (TimeoutError, EOFError, ValueError):
            raise errors.Denied(
                "guardrails: it could not be looked through", hint="make it smaller, or simpler"
            ) from None
        except NotStarted as error:
            told = f"guardrails: nobody can look through it: {error.message}"
            raise errors.Denied(told, hint="agentk doctor, on the machine") from None
        if "refused" in answer:
            raise errors.Denied(f"guardrails: {answer['refused']}", hint="make it smaller, or simpler")
        return answer

    async def _exchange(self, frame: bytes) -> Message:
        while self._idle and self._idle[-1].gone:
            await self._idle.pop().end()  # it died of age, or of a person
        lookout = self._idle.pop() if self._idle else await self._start()
        whole = False
        try:
            lookout.tell(frame)
            await lookout.flush()
            answer = await lookout.hear()
            if answer is None:
                raise EOFError
            whole = True
            return answer
        finally:
            if whole and not self._closed:
                self._idle.append(lookout)
            else:  # who is in the middle of something is of no more use
                await asyncio.shield(lookout.end(0))

    async def _start(self) -> Child:
        if self._closed:
            raise EOFError
        return await Child.spawn(ROLE, self._python)

    @contextlib.asynccontextmanager
    async def _alone(self, uid: str) -> AsyncIterator[None]:
        lock, count = self._agents.get(uid, (asyncio.Lock(), 0))
        self._agents[uid] = lock, count + 1
        try:
            async with lock:
                yield
        finally:
            _, count = self._agents[uid]
            if count == 1:
                del self._agents[uid]
            else:
                self._agents[uid] = lock, count - 1
