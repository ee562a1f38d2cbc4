"""Events of agents and their families, and what of all their state outlives them."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from agentk.api import errors
from agentk.broker.leftovers import Leftovers
from agentk.broker.words import Call
from agentk.store import guest_rooms as rooms
from tests.broker import tenants
from tests.broker.state_rig import run


def test_events_are_heard_by_the_agent_and_those_above_it(tmp_path: Path) -> None:
    async def story(there: tenants.Tenants) -> None:
        heard: dict[str, list[Any]] = {who: [] for who in ("top", "kid", "sib", "low", "far")}
        waits = [
            there.begun(who, "event.subscribe", types=["build.*"], heard=items, waitSeconds=86400)
            for who, items in heard.items()
        ]
        await there.settled()
        told = await there.call("kid", "event.emit", type="build.done", data={"ok": True})
        await there.call("kid", "event.emit", type="other")
        await there.settled()
        assert {who: len(items) for who, items in heard.items()} == {
            "top": 1,
            "kid": 1,
            "sib": 0,
            "low": 0,
            "far": 0,
        }
        (event,) = heard["top"]
        assert (event["id"], event["source"], event["data"]) == (told["id"], "d/kid", {"ok": True})
        for wait in waits:
            wait.cancel()
        await asyncio.wait(waits)
        assert there.waiting._bells == {}

    run(tmp_path, story)


def test_events_are_kept_for_who_listens_later_and_what_is_gone_is_told(tmp_path: Path) -> None:
    async def story(there: tenants.Tenants) -> None:
        for n in range(5):
            await there.call("kid", "event.emit", type="n", data=n)
        heard: list[Any] = []
        told = await there.call("top", "event.subscribe", after=2, waitSeconds=0, heard=heard)
        assert ([one["data"] for one in heard], told) == ([2, 3, 4], {"delivered": 3, "lastId": 5})
        heard.clear()
        told = await there.call("top", "event.subscribe", after=3, max=1, heard=heard)
        assert ([one["data"] for one in heard], told) == ([3], {"delivered": 1, "lastId": 4})
        for n in range(5):
            await there.call("low", "event.emit", type="n", data=n)
        with pytest.raises(errors.Expired, match="no longer kept"):
            await there.call("top", "event.subscribe", after=2, waitSeconds=0)
        with pytest.raises(errors.Expired):
            await there.call("top", "event.subscribe", after=10_000, waitSeconds=0)

    run(tmp_path, story, bounds=rooms.Bounds(events=rooms.Bound(6, 10_000)))


def test_mail_is_told_as_an_event(tmp_path: Path) -> None:
    async def story(there: tenants.Tenants) -> None:
        heard: list[Any] = []
        sent = await there.call("far", "message.send", to="low", body=1)
        await there.call("kid", "event.subscribe", after=0, waitSeconds=0, heard=heard)
        assert [(one["type"], one["source"], one["data"]) for one in heard] == [
            ("message.received", "d/low", {"id": sent["id"], "from": "d/far"})
        ]

    run(tmp_path, story)


async def fill(there: tenants.Tenants) -> None:
    for who in ("kid", "far"):
        for scope in ("attempt", "agent", "family"):
            await there.call(who, "state.put", key="k", value=who, scope=scope)
        await there.call(who, "queue.put", queue="q", item=1, scope="agent")
        await there.call(who, "queue.put", queue="q", item=1)
        await there.call(who, "lock.acquire", name="l")
        await there.call(who, "event.emit", type="t")
        await there.call("top", "message.send", to=who, body=1)


def test_what_a_gone_agent_kept_is_erased_and_nothing_else(tmp_path: Path) -> None:
    async def story(there: tenants.Tenants) -> None:
        await fill(there)
        left = Leftovers(there.journal, there.guests, lambda: there.now)
        assert await left.sweep() == 0
        there.hear(tenants.agent("kid", "top"), gone=True)
        await left.sweep()
        scopes = set(there.journal.read(rooms.scopes))
        assert not any("uid-kid" in scope for scope in scopes)
        assert {
            "family/uid-top",
            "family/uid-far",
            "agent/uid-far",
            "attempt/uid-far/1",
            "mail/uid-far",
        } <= scopes
        for name in ("low", "sib", "far"):
            there.hear(tenants.agent(name), gone=True)
        await left.sweep()
        assert set(there.journal.read(rooms.scopes)) == {"family/uid-top"}
        there.hear(tenants.agent("top"), gone=True)
        await left.sweep()
        assert there.journal.read(rooms.scopes) == []
        for table in ("kv", "locks", "items", "events", "holdings"):
            assert (
                there.journal.read(lambda conn, t=table: conn.execute(f"SELECT * FROM {t}").fetchall()) == []
            )
        assert (await there.journal.verify()).ok

    run(tmp_path, story)


def test_a_new_attempt_and_time_let_go_of_what_they_end(tmp_path: Path) -> None:
    async def story(there: tenants.Tenants) -> None:
        await fill(there)
        await there.call("far", "state.put", key="short", value=1, ttlSeconds=1)
        second = tenants.agent("far")
        second["status"]["attempt"] = 2
        there.hear(second)
        there.now += 1
        await Leftovers(there.journal, there.guests, lambda: there.now).sweep()
        scopes = there.journal.read(rooms.scopes)
        assert "attempt/uid-far/1" not in scopes and "attempt/uid-kid/1" in scopes
        keys = there.journal.read(
            lambda conn: conn.execute("SELECT key FROM kv WHERE scope = 'agent/uid-far'").fetchall()
        )
        assert keys == [("k",)]

    run(tmp_path, story)


def test_every_call_and_its_record_are_one(tmp_path: Path) -> None:
    async def story(there: tenants.Tenants) -> None:
        await fill(there)
        assert set(there.records()) == {("local", "ok")}
        assert len(there.records("state.put")) == 6
        await there.call("kid", "queue.get", queue="q")
        assert there.records("queue.get") == [("local", "ok")]

    run(tmp_path, story)


def test_an_agent_listens_only_so_many_times(tmp_path: Path) -> None:
    async def story(there: tenants.Tenants) -> None:
        listening = [there.begun("kid", "event.subscribe") for _ in range(8)]
        await there.settled()
        with pytest.raises(errors.TooManyRequests, match="listens"):
            await there.call("kid", "event.subscribe")
        listening[0].cancel()
        await asyncio.wait(listening[:1])
        told = await there.call("kid", "event.subscribe", waitSeconds=0)
        assert told == {"delivered": 0}
        for one in listening:
            one.cancel()
        await asyncio.wait(listening)

    run(tmp_path, story)


def test_who_listens_too_slowly_is_told_what_it_missed(tmp_path: Path) -> None:
    async def story(there: tenants.Tenants) -> None:
        reads = asyncio.Event()

        async def slow(item: Any) -> None:
            await reads.wait()

        guest = there.guests.find("uid-top-1")
        listening = asyncio.create_task(there.gate.call(Call(guest, "event.subscribe", {}), slow))
        await there.settled()
        for n in range(60):
            await there.call("kid", "event.emit", type="n", data=n)
        reads.set()
        with pytest.raises(errors.Expired):
            await listening

    run(tmp_path, story, bounds=rooms.Bounds(events=rooms.Bound(6, 10_000)))


def test_what_was_written_when_the_guest_hung_up_is_the_answer_to_its_key(tmp_path: Path) -> None:
    async def story(there: tenants.Tenants) -> None:
        for turns in range(6):
            params = {"key": f"k{turns}", "value": turns}
            first = there.begun("kid", "state.put", once=f"once-{turns}", **params)
            for _ in range(turns):
                await asyncio.sleep(0)
            first.cancel()
            attached = there.begun("kid", "state.put", once=f"once-{turns}", **params)
            await asyncio.wait([first, attached])
            again = await there.call("kid", "state.put", once=f"once-{turns}", **params)
            if attached.exception() is None:
                assert attached.result() == again
            else:  # it was attached to one that had not begun
                assert isinstance(attached.exception(), errors.Cancelled)
        assert (
            len([kind for kind, status in there.records("state.put") if (kind, status) == ("local", "ok")])
            == 6
        )

    run(tmp_path, story)
