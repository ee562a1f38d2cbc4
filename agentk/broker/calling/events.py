"""event.*: what agents tell of themselves, and what agentk tells of them, to those above them.

An event is heard by the agent that it is of and by the agents that spawned it, nobody else; the newest of each family
are kept for who listens later. Who listens too slowly is told that it missed some, and holds up nobody.
"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from agentk.api import errors
from agentk.broker import policy_globs
from agentk.broker.calling import places
from agentk.broker.calling.waiting import Waiting
from agentk.broker.guests import Guests
from agentk.broker.methods import Context, Done, Method, Params, parser, recording
from agentk.broker.words import Guest
from agentk.store import guest_events as stored
from agentk.store import guest_rooms as rooms
from agentk.store import writer
from agentk.store.journal import Journal

_BOUNDS = rooms.Bounds()
_SUBSCRIPTIONS = 8  # of one agent at once: each looks whenever something happens
_READ_AT_ONCE = 50  # events of at most 64 KiB each
_SHORT_BYTES = (
    1024  # what is longer may take milliseconds to read and write: others have their turn in between
)

Object = Mapping[str, Any]


def methods(*, journal: Journal, waiting: Waiting, bounds: rooms.Bounds = _BOUNDS) -> dict[str, Method]:
    calls = _Calls(journal, waiting, bounds)
    handlers = {"event.emit": calls.emit, "event.subscribe": calls.subscribe}
    return {name: Method(name, recording(name), parser(name), handle) for name, handle in handlers.items()}


def of_agent(guests: Guests, agent: Object, type: str, data: Any, now: float) -> stored.Happened:
    """An event of agentk's own about an agent."""
    metadata = agent["metadata"]
    uid = str(metadata["uid"])
    above = guests.parents(uid)
    source = f"{metadata.get('namespace') or ''}/{metadata['name']}"
    return stored.Happened(places.family(uid, above), uid, above, source, type, places.kept(data), now)


def write(tx: writer.Tx, event: stored.Happened, bounds: rooms.Bounds = _BOUNDS) -> int:
    """Part of a transaction; after its commit `Waiting.toll` for (uid, *above)."""
    return stored.add(tx.conn, event, bounds.events)


class _Calls:
    def __init__(self, journal: Journal, waiting: Waiting, bounds: rooms.Bounds) -> None:
        self._journal, self._waiting, self._bounds = journal, waiting, bounds

    async def emit(self, context: Context, params: Params) -> Done:
        guest, data = context.call.guest, places.kept(params.get("data"))
        event = stored.Happened(
            places.scope(guest, "family"), guest.uid, guest.parents, f"{guest.namespace}/{guest.name}",
            params["type"], data, self._waiting.now(),
        )  # fmt: skip

        def work(tx: writer.Tx) -> dict[str, int]:
            return {"id": write(tx, event, self._bounds)}

        def then(told: object) -> None:
            self._waiting.toll((guest.uid, *guest.parents))

        return Done(await self._waiting.written(context.transact(work), then))

    async def subscribe(self, context: Context, params: Params) -> Done:
        if self._waiting.listeners(context.call.guest.uid) >= _SUBSCRIPTIONS:
            raise errors.TooManyRequests(
                f"this agent listens {_SUBSCRIPTIONS} times already",
                hint="let one subscription serve them all",
            )
        guest, seconds, most = context.call.guest, params.get("waitSeconds"), params.get("max")
        globs = [policy_globs.glob(text) for text in params["types"]]
        scope = places.scope(guest, "family")
        last = params.get("after")
        told: dict[str, int] = {"delivered": 0}
        clock = asyncio.get_running_loop().time
        since = clock()
        with self._waiting.listening(guest.uid) as heard:
            if last is None:
                last = self._journal.read(lambda conn: stored.newest(conn, scope))
            while True:
                heard.clear()
                found, looked = self._read(guest, scope, last)
                for event in found:
                    if any(glob.matches(event.type) for glob in globs):
                        await context.emit(_shown(event))
                        if len(event.data) > _SHORT_BYTES:
                            await asyncio.sleep(0)
                        told, since = {"delivered": told["delivered"] + 1, "lastId": event.id}, clock()
                        if told["delivered"] == most:
                            return Done(told)
                if looked > last:
                    last = looked
                    await asyncio.sleep(0)  # one with much to hear must not have the loop to itself
                elif not await _rung(heard, None if seconds is None else since + seconds):
                    return Done(told)

    def _read(self, guest: Guest, scope: str, last: int) -> tuple[list[stored.Event], int]:
        return self._journal.read(lambda conn: stored.after(conn, scope, guest.uid, last, _READ_AT_ONCE))


async def _rung(heard: asyncio.Event, deadline: float | None) -> bool:
    """False when nothing came in time."""
    with suppress(TimeoutError):
        async with asyncio.timeout_at(deadline):
            await heard.wait()
            return True
    return False


def _shown(event: stored.Event) -> dict[str, Any]:
    return {
        "id": event.id,
        "type": event.type,
        "source": event.source,
        "data": places.shown(event.data),
        "time": places.moment(event.at),
    }
