"""Mailbox, queue, lock and values against the simplest model there is, over a real journal that is closed and opened
in between. Two agents of one family; time moves only here.
"""

import asyncio
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from agentk.api import errors
from agentk.store import guest_rooms as rooms
from tests.broker import tenants

WHO = st.sampled_from(["a", "b"])
NAMES = st.sampled_from(["x", "y", "é\x00"])
SECONDS = st.integers(1, 20)
BOUNDS = rooms.Bounds(
    keys=rooms.Bound(3, 60),
    locks=rooms.Bound(2, 1),
    mail=rooms.Bound(6, 4000),
    mail_from_one=rooms.Bound(4, 4000),
    queued=rooms.Bound(5, 120),
)
HOLDINGS_ARE_TRUE = """
    SELECT scope, what, items, bytes FROM holdings WHERE items <> 0 EXCEPT SELECT * FROM (
      SELECT scope, 'keys', count(*), sum(length(CAST(key AS BLOB)) + length(value)) FROM kv GROUP BY scope
      UNION ALL SELECT scope, 'locks', count(*), 0 FROM locks GROUP BY scope
      UNION ALL SELECT scope, 'items', count(*), sum(length(body)) FROM items GROUP BY scope
      UNION ALL SELECT scope, 'from/' || sender, count(*), sum(length(body)) FROM items GROUP BY scope, sender
      UNION ALL SELECT scope, 'events', count(*), sum(length(data) + length(above)) FROM events GROUP BY scope)
"""


class Items:
    """A mailbox, or a queue: (body, id, sender, visible from, deliveries) in order."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def put(self, id: str, body: Any, now: float, visible: float = 0.0) -> None:
        self.rows.append({"id": id, "body": body, "visible": visible, "deliveries": 0})

    def take(self, most: int, now: float, lease: float) -> list[tuple[str, Any, int]]:
        taken = [row for row in self.rows if row["visible"] <= now][:most]
        for row in taken:
            row["visible"], row["deliveries"] = now + lease, row["deliveries"] + 1
        return [(row["id"], row["body"], row["deliveries"]) for row in taken]

    def ack(self, ids: list[str]) -> int:
        before = len(self.rows)
        self.rows = [row for row in self.rows if row["id"] not in ids]
        return before - len(self.rows)


class State(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="agentk-model-"))
        self.runner = asyncio.Runner()
        self.there: tenants.Tenants
        self.values: dict[
            tuple[str, str], tuple[Any, int, float]
        ] = {}  # scope, key → value, version, expires
        self.versions: dict[str, int] = {}
        self.locks: dict[str, tuple[str, float]] = {}
        self.fence = 0
        self.queues: dict[str, Items] = {}
        self.mail = {"a": Items(), "b": Items()}

    @initialize()
    def open(self) -> None:
        self.runner.run(self._open(1_700_000_000.0))

    async def _open(self, now: float) -> None:
        self.there = tenants.Tenants(self.folder, bounds=BOUNDS)
        self.there.now = now
        self.there.hear(tenants.agent("a"))
        self.there.hear(tenants.agent("b", "a"))

    def call(self, who: str, method: str, **params: Any) -> Any:
        return self.runner.run(self.there.call(who, method, **params))

    def teardown(self) -> None:
        self.runner.run(self.there.aclose())
        self.runner.close()
        shutil.rmtree(self.folder)

    @rule()
    def reopen(self) -> None:
        self.runner.run(self.there.aclose())
        self.runner.run(self._open(self.there.now))

    @rule(seconds=SECONDS)
    def later(self, seconds: int) -> None:
        self.there.now += seconds

    # values

    def value(self, scope: str, key: str) -> tuple[Any, int, float] | None:
        found = self.values.get((scope, key))
        return found if found and found[2] > self.there.now else None

    @rule(
        who=WHO,
        key=NAMES,
        family=st.booleans(),
        size=st.integers(0, 50),
        ttl=st.none() | SECONDS,
        version=st.none() | st.integers(0, 4),
    )
    def put(self, who: str, key: str, family: bool, size: int, ttl: int | None, version: int | None) -> None:
        scope = "family" if family else who
        value, now = "v" * size, self.there.now
        params: dict[str, Any] = {"key": key, "value": value, "scope": "family" if family else "agent"}
        params |= {"ttlSeconds": ttl} if ttl else {}
        there = self.value(scope, key)
        had = there[1] if there else 0
        if version is not None:
            params["version"] = version
            if version != had:
                lost = self.call(who, "state.cas", **params)
                assert (lost["swapped"], lost["version"]) == (False, had)
                assert lost.get("value") == (there[0] if there else None)
                return
        alive = [k for s, k in self.values if s == scope and k != key and self.value(s, k)]
        used = sum(len(k.encode()) + len(self.values[scope, k][0]) + 2 for k in alive)
        there_at_all = self.values.get((scope, key))
        grows = there_at_all is None or len(value) > len(there_at_all[0])
        full = (there_at_all is None and len(alive) >= 3) or (
            grows and used + len(key.encode()) + size + 2 > 60
        )
        try:
            told = self.call(who, "state.put" if version is None else "state.cas", **params)
        except errors.TooManyRequests:
            assert full
            return
        assert not full
        assert told["version"] > self.versions.get(scope, 0)
        self.versions[scope] = told["version"]
        self.values[scope, key] = (value, told["version"], now + ttl if ttl else float("inf"))

    @rule(who=WHO, key=NAMES, family=st.booleans())
    def delete(self, who: str, key: str, family: bool) -> None:
        scope = "family" if family else who
        told = self.call(who, "state.delete", key=key, scope="family" if family else "agent")
        assert told == {"deleted": self.value(scope, key) is not None}
        self.values.pop((scope, key), None)

    @rule(who=WHO, key=NAMES, family=st.booleans())
    def get(self, who: str, key: str, family: bool) -> None:
        there = self.value("family" if family else who, key)
        told = self.call(who, "state.get", key=key, scope="family" if family else "agent")
        assert (told["exists"], told["version"]) == (there is not None, there[1] if there else 0)
        assert told.get("value") == (there[0] if there else None)

    # locks, of the family

    @rule(who=WHO, name=NAMES, lease=SECONDS)
    def acquire(self, who: str, name: str, lease: int) -> None:
        now = self.there.now
        held = {lock for lock, (_, until) in self.locks.items() if until > now}
        try:
            told = self.call(who, "lock.acquire", name=name, leaseSeconds=lease)
        except errors.TooManyRequests:
            assert name not in held and len(held) == 2
            return
        assert told["acquired"] == (name not in held)
        if told["acquired"]:
            assert told["fence"] > self.fence and len(held) < 2
            self.fence = told["fence"]
            self.locks[name] = (told["token"], now + lease)

    @rule(who=WHO, name=NAMES, lease=SECONDS)
    def renew(self, who: str, name: str, lease: int) -> None:
        token, until = self.locks.get(name, ("none", 0.0))
        told = self.call(who, "lock.acquire", name=name, leaseSeconds=lease, token=token)
        assert told["acquired"] == (until > self.there.now)
        if told["acquired"]:
            self.locks[name] = (token, self.there.now + lease)

    @rule(who=WHO, name=NAMES, right=st.booleans())
    def release(self, who: str, name: str, right: bool) -> None:
        token, until = self.locks.get(name, ("none", 0.0))
        told = self.call(who, "lock.release", name=name, token=token if right else "wrong")
        assert told == {"released": right and until > self.there.now}
        if right:
            self.locks.pop(name, None)

    # queues of the family, and mail

    @rule(who=WHO, name=NAMES, size=st.integers(0, 60), delay=st.just(0) | SECONDS)
    def queue_put(self, who: str, name: str, size: int, delay: int) -> None:
        rows = [row for queue in self.queues.values() for row in queue.rows]
        full = len(rows) >= 5 or sum(len(row["body"]) + 2 for row in rows) + size + 2 > 120
        try:
            told = self.call(who, "queue.put", queue=name, item="i" * size, delaySeconds=delay)
        except errors.TooManyRequests:
            assert full
            return
        assert not full
        visible = self.there.now + delay if delay else 0.0
        self.queues.setdefault(name, Items()).put(told["id"], "i" * size, self.there.now, visible)

    @rule(who=WHO, name=NAMES, most=st.integers(1, 3), lease=SECONDS)
    def queue_get(self, who: str, name: str, most: int, lease: int) -> None:
        got = self.call(who, "queue.get", queue=name, max=most, leaseSeconds=lease)["items"]
        expected = self.queues.setdefault(name, Items()).take(most, self.there.now, lease)
        assert [(one["id"], one["item"], one["deliveries"]) for one in got] == expected

    @rule(who=WHO, name=NAMES, data=st.data())
    def queue_ack(self, who: str, name: str, data: st.DataObject) -> None:
        queue = self.queues.setdefault(name, Items())
        ids = data.draw(
            st.lists(st.sampled_from([*(row["id"] for row in queue.rows), "no"]), min_size=1, unique=True)
        )
        assert self.call(who, "queue.ack", queue=name, ids=ids) == {"acknowledged": queue.ack(ids)}

    @rule(who=WHO, to=WHO)
    def send(self, who: str, to: str) -> None:
        rows = self.mail[to].rows
        full = len(rows) >= 6 or sum(row["body"]["from"] == who for row in rows) >= 4
        body = {"from": who, "n": len(rows)}
        try:
            told = self.call(who, "message.send", to=to, body=body)
        except errors.TooManyRequests:
            assert full
            return
        assert not full
        self.mail[to].put(told["id"], body, self.there.now)

    @rule(who=WHO, most=st.integers(1, 3), lease=SECONDS)
    def recv(self, who: str, most: int, lease: int) -> None:
        got = self.call(who, "message.recv", max=most, leaseSeconds=lease)["messages"]
        assert all(one["from"] == f"d/{one['body']['from']}" for one in got)
        told = [(one["id"], one["body"], one["deliveries"]) for one in got]
        assert told == self.mail[who].take(most, self.there.now, lease)

    @rule(who=WHO, data=st.data())
    def ack(self, who: str, data: st.DataObject) -> None:
        box = self.mail[who]
        ids = data.draw(
            st.lists(st.sampled_from([*(row["id"] for row in box.rows), "no"]), min_size=1, unique=True)
        )
        assert self.call(who, "message.ack", ids=ids) == {"acknowledged": box.ack(ids)}

    @invariant()
    def what_is_counted_is_there(self) -> None:
        if hasattr(self, "there"):
            assert self.there.journal.read(lambda conn: conn.execute(HOLDINGS_ARE_TRUE).fetchall()) == []


class TestState(State.TestCase):
    settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
