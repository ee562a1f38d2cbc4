"""Tools of kind `mcp`: what a server lists, held against its pins, and calls of it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

from agentk.api import errors
from agentk.broker.tooling import kinds as words
from agentk.broker.tooling import mcp_pins as pins
from agentk.broker.tooling.kinds import Calling, Object
from agentk.broker.tooling.mcp_servers import BACKOFF_SECONDS, Servers, Spoken
from agentk.broker.words import Guest
from agentk.store import store as stores
from agentk.tools.mcp_worker import Listing, Unasked
from agentk.tools.offers import Offered, Outcome

_REFUSED_TOLD = 20
_WHY_CHARS = 500

SetStatus = Callable[[Object, dict[str, Any]], Awaitable[None]]


class Mcps:
    def __init__(self, servers: Servers, set_status: SetStatus, now: Callable[[Object], Object]) -> None:
        """`now`: the Tool as it is by now."""
        self._servers, self._set_status, self._now = servers, set_status, now
        self._pinned: dict[str, tuple[str, Mapping[str, str]]] = {}  # by uid; the status is written after it
        self._first = asyncio.Lock()
        self._telling: set[asyncio.Task[None]] = set()
        servers.changed = self._heard

    def names(self, tool: Object) -> Sequence[str] | None:
        return None  # the server alone knows

    async def fingerprint(self, tool: Object) -> str:
        """The same as long as all that is spoken with lists what is pinned, or nothing is spoken with. Where every
        listing is allowed, what was listed last is what is pinned."""
        pinned = self._pins(tool)
        told = [
            pins.subject(tool)[:16],
            (tool["metadata"].get("annotations") or {}).get(pins.ACCEPTED, "")[:16],
        ]
        listed = {
            pins.listing(one.tools)
            for one in self._servers.listings(tool)
            if pinned is not None and (pins.allows(tool) or pins.judged(tool, one.tools, pinned).drift)
        }
        if pinned is not None and pins.allows(tool):
            listed.add(pins.digest(pinned))
        return "-".join(told + [one[:16] for one in sorted(listed)])

    async def discover(self, tool: Object, guest: Guest | None) -> Sequence[Offered]:
        async with self._servers.spoken(tool, guest) as spoken:
            listing = spoken.session.listing
            judged = await self._judged(self._now(tool), listing.tools)
            await self._set_status(tool, _status(tool, listing, judged) | _package(tool, spoken))
            return judged.shown

    async def call(self, tool: Object, calling: Calling) -> Outcome:
        try:
            return await self._call(tool, calling)
        except Unasked:  # it ended before it heard: another is started
            return await self._call(tool, calling)

    async def _call(self, tool: Object, calling: Calling) -> Outcome:
        async with self._spoken(tool, calling.guest) as spoken:
            name, session = calling.offered.name, spoken.session
            judged = await self._judged(self._now(tool), session.listing.tools)
            if refusal := pins.refusal(tool, name, judged.drift):
                raise refusal
            if name not in {one.name for one in session.listing.tools}:
                raise errors.NotFound(
                    f'the server of Tool "{words.name(tool)}" offers no "{name}" any more',
                    hint="tool.list says what it offers by now",
                )
            progress = _Progress(calling)
            try:
                return await session.call(
                    name,
                    calling.arguments,
                    calling.seconds,
                    progress.tell if calling.progress else None,
                    calling.key if words.is_keyed(tool) else "",
                )
            finally:
                await progress.end()

    @contextlib.asynccontextmanager
    async def _spoken(self, tool: Object, guest: Guest | None) -> AsyncIterator[Spoken]:
        """The server of a tool whose listing is known. That it does not start is told in the status, and that it does
        by now."""
        before = str((self._now(tool).get("status") or {}).get("lastError") or "")
        async with contextlib.AsyncExitStack() as held:
            try:
                spoken = await held.enter_async_context(self._servers.spoken(tool, guest))
            except words.NotYet:
                raise
            except errors.Unavailable as error:
                if error.message[:_WHY_CHARS] != before:
                    again = stores.now_text(error.retry_after_seconds or BACKOFF_SECONDS)
                    await self._note(tool, error.message[:_WHY_CHARS], again)
                raise
            if before:
                await self._note(tool, "", None)
            yield spoken

    async def _note(self, tool: Object, why: str, again: str | None) -> None:
        with contextlib.suppress(errors.AgentkError):
            await self._set_status(tool, {"lastError": why, "nextTryTime": again})

    async def _judged(self, tool: Object, told: Sequence[Offered]) -> pins.Judged:
        async with self._first:  # of two first listings one is pinned
            judged = pins.judged(tool, told, self._pins(tool))
            self._pinned[words.uid(tool)] = pins.subject(tool), judged.pins
            return judged

    def _pins(self, tool: Object) -> Mapping[str, str] | None:
        kept = self._pinned.get(words.uid(tool))
        if kept is not None and kept[0] == pins.subject(tool) and pins.of_manifest(tool) is None:
            return kept[1]
        return pins.known(tool)

    def _heard(self, tool: Object, listing: Listing) -> None:
        """A server lists something else than before: people are told at once, agents when they next ask."""
        task = asyncio.create_task(self._told(tool, listing), name=f"drift of {words.name(tool)}")
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _told(self, tool: Object, listing: Listing) -> None:
        judged = await self._judged(self._now(tool), listing.tools)
        with contextlib.suppress(errors.AgentkError):
            await self._set_status(tool, _status(tool, listing, judged))

    async def close(self) -> None:
        await self._servers.close()
        await asyncio.gather(*self._telling, return_exceptions=True)

    def hurry(self, tool_uid: str) -> None:
        """Somebody asks who is not kept waiting."""
        self._servers.hurry(tool_uid)

    def forget(self, tool_uid: str) -> None:
        """The Tool is gone."""
        self._pinned.pop(tool_uid, None)
        self._servers.forget(tool_uid)


class _Progress:
    """Words of the worker, in order, into the caller's stream; one that reads slowly misses some."""

    def __init__(self, calling: Calling) -> None:
        self._calling = calling
        self._task: asyncio.Task[None] | None = None

    def tell(self, done: float, total: float | None, text: str) -> None:
        if self._calling.progress is not None and (self._task is None or self._task.done()):
            told = self._calling.progress(done, total, text)
            self._task = asyncio.ensure_future(_quietly(told))

    async def end(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


async def _quietly(told: Awaitable[None]) -> None:
    try:
        await told
    except (ConnectionError, errors.AgentkError):
        pass  # nobody listens any more: the call itself hears of it


def _status(tool: Object, listing: Listing, judged: pins.Judged) -> dict[str, Any]:
    return {
        "pinned": pins.subject(tool),
        "pins": dict(judged.pins),
        "drift": pins.of_status(listing.tools, judged.drift),
        "listing": pins.listing(listing.tools),
        "refused": list(listing.refused[:_REFUSED_TOLD]),
    }


def _package(tool: Object, spoken: Spoken) -> dict[str, Any]:
    """What the box's packages came to, when the server is one."""
    package = (words.spec(tool)["mcp"].get("stdio") or {}).get("package")
    if not package or spoken.agent is None:
        return {}
    made = (spoken.agent.get("status") or {}).get("environment") or {}
    return {"package": dict(made.get("node" if "npm" in package else "python") or {})}
