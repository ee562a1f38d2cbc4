"""lock.*: named locks, held for a while, given to who waited longest."""

from functools import partial

from agentk.broker.calling import places
from agentk.broker.calling.waiting import Waiting, nothing_more
from agentk.broker.methods import Context, Done, Method, Params, parser, recording
from agentk.store import guest_locks as locks
from agentk.store import guest_rooms as rooms
from agentk.store import writer
from agentk.store.journal import Journal

_BOUNDS = rooms.Bounds()


def methods(*, journal: Journal, waiting: Waiting, bounds: rooms.Bounds = _BOUNDS) -> dict[str, Method]:
    calls = _Calls(journal, waiting, bounds.locks)
    handlers = {"lock.acquire": calls.acquire, "lock.release": calls.release}
    return {name: Method(name, recording(name), parser(name), handle) for name, handle in handlers.items()}


class _Held(Exception):
    """Somebody has it: nothing is to be written."""


class _Calls:
    def __init__(self, journal: Journal, waiting: Waiting, bound: rooms.Bound) -> None:
        self._journal, self._waiting, self._bound = journal, waiting, bound

    async def acquire(self, context: Context, params: Params) -> Done:
        if "token" in params:
            return Done(await self._renew(context, params) or {"acquired": False})
        line = _line(context, params)
        look = partial(self._look, context, params)
        return Done(
            await self._waiting.served(line, params["waitSeconds"], look, strict=True) or {"acquired": False}
        )

    async def release(self, context: Context, params: Params) -> Done:
        line, now = _line(context, params), self._waiting.now()

        def work(tx: writer.Tx) -> dict[str, bool]:
            return {"released": locks.release(tx.conn, *line, params["token"], now)}

        return Done(
            await self._waiting.written(context.transact(work), lambda told: self._waiting.ring(line))
        )

    async def _renew(self, context: Context, params: Params) -> dict[str, object] | None:
        def work(tx: writer.Tx) -> dict[str, object]:
            grant = locks.renew(tx.conn, self._wish(context, params, params["token"]))
            if grant is None:
                raise _Held
            return _told(grant)

        def then(told: object) -> None:  # a shorter lease than before ends earlier than those who wait expect
            self._waiting.ring(_line(context, params))

        try:
            return await self._waiting.written(context.transact(work), then)
        except _Held:
            return None

    async def _look(self, context: Context, params: Params) -> tuple[dict[str, object] | None, float | None]:
        line, now = _line(context, params), self._waiting.now()
        until = self._journal.read(lambda conn: locks.held_until(conn, *line, now))
        if until:
            return None, until
        token = places.new_id()

        def work(tx: writer.Tx) -> dict[str, object]:
            grant = locks.acquire(tx.conn, self._wish(context, params, token), self._bound)
            if grant is None:
                raise _Held
            return _told(grant)

        # Who will come again with its key gets the token then; another's would be lost, and the lock with it.
        unheard = None if context.call.key else partial(self._give_back, line, token)
        try:
            return await self._waiting.written(context.transact(work), nothing_more, unheard), None
        except _Held:
            return None, now

    async def _give_back(self, line: tuple[str, str], token: str, told: object) -> None:
        now = self._waiting.now()
        await self._journal.write(lambda tx: locks.release(tx.conn, *line, token, now))
        self._waiting.ring(line)

    def _wish(self, context: Context, params: Params, token: str) -> locks.Wish:
        now = self._waiting.now()
        return locks.Wish(
            *_line(context, params), token, context.call.guest.uid, now, now + params["leaseSeconds"]
        )


def _line(context: Context, params: Params) -> tuple[str, str]:
    """Scope and name: what identifies a lock, and whom one waits with."""
    return places.scope(context.call.guest, params["scope"]), params["name"]


def _told(grant: locks.Grant) -> dict[str, object]:
    return {
        "acquired": True,
        "token": grant.token,
        "fence": grant.fence,
        "expiresAt": places.moment(grant.expires_at),
    }
