"""GET …/agents/NAME/log: what an attempt wrote, and with `follow` what it goes on writing until it has ended.

Wake-ups come from the kernel (inotify) and from the agent's own changes; a look every 0.2 s is only for a folder
that does not exist yet, or when the kernel's limit of watches is reached.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol, TypeVar

from starlette.responses import Response

from agentk.api import errors, kinds
from agentk.daemon import calls, inotify, logs, streaming

_LOOK_SECONDS = 0.2
_FOLLOW_SECONDS = 10 * 365 * 86400.0
_SINCE_MAX = 10**9  # seconds; 30 years

Object = dict[str, Any]
T = TypeVar("T")
Made = TypeVar("Made", covariant=True)


class Reading(Protocol[Made]):
    """What is made of whole lines of a log: something falsy when it is nothing."""

    def feed(self, lines: bytes) -> Made: ...
    def rest(self) -> Made: ...


@dataclass(frozen=True)
class Asked:
    """The query of a log request."""

    wanted: logs.Wanted
    follow: bool
    previous: bool
    tail: int | None
    limit_bytes: int | None


async def log(call: calls.Call, wakeups: inotify.Wakeups) -> Response:
    """Of the latest attempt, or of the one before with `previous`. Raises BadRequest when there is none yet."""
    obj = await call.store.get(kinds.AGENT, call.target.namespace, call.target.name)
    asked = _asked(call)
    folder = call.services.log_folder(call.target.namespace, obj["metadata"]["uid"])
    status = obj.get("status") or {}
    attempt = int(status.get("attempt") or 0) or await asyncio.to_thread(logs.newest_attempt, folder)
    if asked.previous:
        if attempt < 2:
            raise errors.BadRequest(f'agent "{call.target.name}" has no previous attempt')
        attempt -= 1
    elif not attempt and not asked.follow:
        raise errors.BadRequest(
            f'agent "{call.target.name}" has not started yet: {status.get("phase", "Pending")}',
            hint=str(status.get("message") or "follow its log with -f"),
        )
    text = Following(call, wakeups, asked, folder, obj, attempt).pieces(logs.Joiner(asked.wanted))
    stopping = streaming.until(text, call.services.ending, _FOLLOW_SECONDS)
    return streaming.Stream(_limited(stopping, asked.limit_bytes), "text/plain; charset=utf-8")


class Following:
    """One reader of one attempt's log."""

    def __init__(
        self,
        call: calls.Call,
        wakeups: inotify.Wakeups,
        asked: Asked,
        folder: Path,
        agent: Object,
        attempt: int,
    ) -> None:
        self._call, self._wakeups, self._asked, self._folder = call, wakeups, asked, folder
        self._agent, self._attempt = agent, attempt
        self._gone = False  # the agent, or our sight of it
        self._changed = asyncio.Event()
        self.begun = asyncio.Event()  # what is written from now on is not missed

    @property
    def agent(self) -> Object:
        """As it was last seen."""
        return self._agent

    async def pieces(self, reading: Reading[T]) -> AsyncGenerator[T, None]:
        """What `reading` makes of the lines."""
        async with contextlib.AsyncExitStack() as stack:
            if self._asked.follow:
                watching = asyncio.create_task(self._watch_agent(), name="a log's agent")
                stack.push_async_callback(_ended, watching)
                while not self._attempt and not self._over():
                    self._changed.clear()
                    await self._changed.wait()
                    self._attempt = int((self._agent.get("status") or {}).get("attempt") or 0)
            reader = logs.Reader(lambda: logs.files(self._folder, self._attempt))
            stack.callback(reader.close)
            await _in_thread(lambda: self._seek(reader))
            self.begun.set()
            watched = False
            while True:
                over = self._over()  # asked before reading: what is written later cannot be missed
                self._changed.clear()
                if self._asked.follow and not watched:
                    watched = self._watch_folder(stack)
                lines, piece = await _in_thread(lambda: _step(reader, reading))
                if piece:
                    yield piece
                if lines:
                    continue
                if over:
                    break
                await self._wait(None if watched else _LOOK_SECONDS)
            if rest := reading.rest():
                yield rest

    def _seek(self, reader: logs.Reader) -> None:
        if self._asked.tail is not None:
            reader.seek_tail(self._asked.tail)
        elif self._asked.wanted.since is not None:
            reader.seek_since(self._asked.wanted.since)

    def _watch_folder(self, stack: contextlib.AsyncExitStack) -> bool:
        try:
            stack.enter_context(self._wakeups.on(self._folder, self._changed))
        except OSError:
            return False
        return True

    async def _wait(self, seconds: float | None) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()

    async def _watch_agent(self) -> None:
        """Keep the agent's object fresh; each change wakes the reader."""
        named, uid = self._agent["metadata"], self._agent["metadata"]["uid"]
        store = self._call.store
        try:
            while True:
                since = store.resource_version()
                found = await store.find(kinds.AGENT, named["namespace"], named["name"])
                if found is None or found["metadata"]["uid"] != uid:
                    return
                self._agent = found
                self._changed.set()
                only = f"metadata.name={named['name']}"
                with contextlib.suppress(errors.Expired):  # slept too long: look again
                    async for change in store.watch(kinds.AGENT, named["namespace"], since, fields=only):
                        if change.type == "DELETED" or change.obj["metadata"]["uid"] != uid:
                            return
                        self._agent = change.obj
                        self._changed.set()
                    return  # the store was closed
        finally:
            self._gone = True
            self._changed.set()

    def _over(self) -> bool:
        """Whether the attempt can write nothing more, or nobody waits for it."""
        status = self._agent.get("status") or {}
        if not self._asked.follow or self._gone or status.get("phase") in kinds.FINAL_PHASES:
            return True
        ended = int((status.get("lastTermination") or {}).get("attempt") or 0)
        return bool(self._attempt) and max(ended, int(status.get("attempt") or 0) - 1) >= self._attempt


def _step(reader: logs.Reader, reading: Reading[T]) -> tuple[bool, T]:
    lines = reader.read()
    return bool(lines), reading.feed(lines)


async def _in_thread(work: Callable[[], T]) -> T:
    """As asyncio.to_thread, but a cancelled caller waits: what the thread uses is closed afterwards."""
    running = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait({running})
        raise


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task})


async def _limited(text: AsyncGenerator[bytes, None], limit_bytes: int | None) -> AsyncGenerator[bytes, None]:
    left = limit_bytes
    async with contextlib.aclosing(text) as pieces:
        async for piece in pieces:
            if left is None:
                yield piece
                continue
            if left > 0:
                yield piece[:left]
            left -= len(piece)
            if left <= 0:
                return


def _asked(call: calls.Call) -> Asked:
    seconds, since = calls.whole(call, "sinceSeconds", _SINCE_MAX), calls.moment(call, "sinceTime")
    if seconds is not None and since is not None:
        raise errors.BadRequest("sinceSeconds and sinceTime cannot both be given")
    if seconds is not None:
        since = datetime.now(UTC) - timedelta(seconds=seconds)
    stream = call.query.get("stream") or "All"
    if stream.lower() not in ("all", "stdout", "stderr"):
        raise errors.BadRequest(f'stream: "{stream[:50]}" is not supported', hint="use All, stdout or stderr")
    wanted = logs.Wanted(
        timestamps=calls.flag(call, "timestamps"),
        since=since,
        stream="" if stream.lower() == "all" else stream.lower(),
    )
    return Asked(
        wanted=wanted,
        follow=calls.flag(call, "follow"),
        previous=calls.flag(call, "previous"),
        tail=calls.whole(call, "tailLines", 10**9),
        limit_bytes=calls.whole(call, "limitBytes"),
    )
