"""queue.*: items that any of a family may put, and one of them takes, at least once each."""

from functools import partial
from typing import Any

from agentk.broker.calling import places
from agentk.broker.calling.waiting import Waiting, nothing_more
from agentk.broker.methods import Context, Done, Method, Params, parser, recording
from agentk.store import guest_items as items
from agentk.store import guest_rooms as rooms
from agentk.store import writer
from agentk.store.journal import Journal

ANSWER_BYTES = 4 * 1024 * 1024
ANSWER_VALUES = 20_000  # of JSON: read in some 4 ms, while everybody else waits
_BOUNDS = rooms.Bounds()


def methods(*, journal: Journal, waiting: Waiting, bounds: rooms.Bounds = _BOUNDS) -> dict[str, Method]:
    calls = _Calls(journal, waiting, bounds.queued)
    handlers = {"queue.put": calls.put, "queue.get": calls.get, "queue.ack": calls.ack}
    return {name: Method(name, recording(name), parser(name), handle) for name, handle in handlers.items()}


class _Empty(Exception):
    """Another was quicker: nothing is to be written."""


class _Calls:
    def __init__(self, journal: Journal, waiting: Waiting, bound: rooms.Bound) -> None:
        self._journal, self._waiting, self._bound = journal, waiting, bound

    async def put(self, context: Context, params: Params) -> Done:
        line, now, delay = _line(context, params), self._waiting.now(), params["delaySeconds"]
        item = items.Put(
            *line, places.new_id(), context.call.guest.uid, places.kept(params["item"]), now,
            now + delay if delay else 0.0,
        )  # fmt: skip

        def work(tx: writer.Tx) -> dict[str, str]:
            broken = items.put(tx.conn, item, self._bound)
            if broken:
                raise rooms.full("the queues are full", broken, "take items, and queue.ack what is done")
            return {"id": item.id}

        return Done(
            await self._waiting.written(context.transact(work), lambda told: self._waiting.ring(line))
        )

    async def get(self, context: Context, params: Params) -> Done:
        line = _line(context, params)
        look = partial(self._look, context, params, line)
        return Done(await self._waiting.served(line, params["waitSeconds"], look) or {"items": []})

    async def ack(self, context: Context, params: Params) -> Done:
        line = _line(context, params)
        return Done(
            await context.transact(
                lambda tx: {"acknowledged": items.acknowledge(tx.conn, *line, params["ids"])}
            )
        )

    async def _look(
        self, context: Context, params: Params, line: tuple[str, str]
    ) -> tuple[dict[str, Any] | None, float | None]:
        at, now = self._journal.read(lambda conn: items.next_at(conn, *line)), self._waiting.now()
        if at is None or at > now:
            return None, at
        take = items.Take(
            *line, params["max"], ANSWER_BYTES, ANSWER_VALUES, now, now + params["leaseSeconds"]
        )

        def work(tx: writer.Tx) -> dict[str, Any]:
            taken = items.take(tx.conn, take)
            if not taken:
                raise _Empty
            return {"items": [_told(item) for item in taken]}

        # Who will come again with its key gets the same items then.
        unheard = None if context.call.key else partial(self._give_back, take)
        try:
            return await self._waiting.written(context.transact(work), nothing_more, unheard), None
        except _Empty:
            return None, now

    async def _give_back(self, take: items.Take, told: dict[str, Any]) -> None:
        ids = [item["id"] for item in told["items"]]
        await self._journal.write(lambda tx: items.give_back(tx.conn, take, ids))
        self._waiting.ring((take.scope, take.name))


def _line(context: Context, params: Params) -> tuple[str, str]:
    """Scope and name: what identifies a queue, and whom one waits with."""
    return places.scope(context.call.guest, params["scope"]), params["queue"]


def _told(item: items.Item) -> dict[str, Any]:
    return {
        "id": item.id,
        "item": places.shown(item.body),
        "putAt": places.moment(item.put_at),
        "deliveries": item.deliveries,
    }
