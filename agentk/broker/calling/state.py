"""state.*: values that an agent keeps under keys, for its attempt, for itself, or for its family."""

import sqlite3
import time
from collections.abc import Callable

from agentk.broker.calling import places
from agentk.broker.methods import Context, Done, Method, Params, parser, recording
from agentk.store import guest_keys as keys
from agentk.store import guest_rooms as rooms
from agentk.store.journal import Journal

_BOUNDS = rooms.Bounds()


def methods(
    *, journal: Journal, now: Callable[[], float] = time.time, bounds: rooms.Bounds = _BOUNDS
) -> dict[str, Method]:
    calls = _Calls(journal, now, bounds.keys)
    handlers = {
        "state.put": calls.put,
        "state.get": calls.get,
        "state.delete": calls.delete,
        "state.list": calls.list,
        "state.cas": calls.cas,
    }
    return {name: Method(name, recording(name), parser(name), handle) for name, handle in handlers.items()}


class _Calls:
    def __init__(self, journal: Journal, now: Callable[[], float], bound: rooms.Bound) -> None:
        self._journal, self._now, self._bound = journal, now, bound

    async def put(self, context: Context, params: Params) -> Done:
        write = self._write(context, params)
        return Done(await context.transact(lambda tx: {"version": keys.put(tx.conn, write, self._bound)}))

    async def get(self, context: Context, params: Params) -> Done:
        scope, now = places.scope(context.call.guest, params["scope"]), self._now()
        found = self._journal.read(lambda conn: keys.get(conn, scope, params["key"], now))
        if found is None:
            return Done({"exists": False, "version": 0})
        expires = None if found.expires_at is None else places.moment(found.expires_at)
        value = {"exists": True, "value": places.shown(found.value), "version": found.version}
        return Done({**value, **places.optional(expiresAt=expires)})

    async def delete(self, context: Context, params: Params) -> Done:
        scope, now = places.scope(context.call.guest, params["scope"]), self._now()
        return Done(
            await context.transact(lambda tx: {"deleted": keys.delete(tx.conn, scope, params["key"], now)})
        )

    async def list(self, context: Context, params: Params) -> Done:
        scope, now, limit = places.scope(context.call.guest, params["scope"]), self._now(), params["limit"]
        found = await self._journal.read_apart(
            lambda conn: keys.listed(conn, scope, params["prefix"], params["continue"], limit + 1, now)
        )
        items = [{"key": key, "version": version} for key, version in found[:limit]]
        more = items[-1]["key"] if len(found) > limit else None
        return Done({"items": items, **places.optional(**{"continue": more})})

    async def cas(self, context: Context, params: Params) -> Done:
        write = self._write(context, params)

        def work(conn: sqlite3.Connection) -> dict[str, object]:
            there = keys.swap(conn, write, params["version"], self._bound)
            if isinstance(there, int):
                return {"swapped": True, "version": there}
            if there is None:
                return {"swapped": False, "version": 0}
            return {"swapped": False, "version": there.version, "value": places.shown(there.value)}

        return Done(await context.transact(lambda tx: work(tx.conn)))

    def _write(self, context: Context, params: Params) -> keys.Write:
        now, ttl = self._now(), params.get("ttlSeconds")
        scope = places.scope(context.call.guest, params["scope"])
        expires_at = None if ttl is None else now + ttl
        return keys.Write(scope, params["key"], places.kept(params["value"]), now, expires_at)
