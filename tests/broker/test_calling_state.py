"""Values, locks, queues and events of agents and their families, through the gate."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from agentk.api import errors
from agentk.broker.leftovers import Leftovers
from agentk.broker.words import Call
from agentk.store import guest_rooms as rooms
from tests.broker import tenants

Story = Callable[[tenants.Tenants], Coroutine[Any, Any, None]]


def run(folder: Path, story: Story, **given: Any) -> None:
    async def whole() -> None:
        there = tenants.Tenants(folder, **given)
        for name, parent in (("top", ""), ("kid", "top"), ("sib", "top"), ("low", "kid"), ("far", "")):
            there.hear(tenants.agent(name, parent))
        try:
            await story(there)
        finally:
            await there.aclose()

    asyncio.run(whole())


async def shared(there: tenants.Tenants, who: str, scope: str) -> bool:
    found = await there.call(who, "state.get", key="k", scope=scope)
    return bool(found["exists"])


def test_scopes_are_whose_they_say(tmp_path: Path) -> None:
    async def story(there: tenants.Tenants) -> None:
        await there.call("kid", "state.put", key="k", value=1, scope="family")
        assert [await shared(there, who, "family") for who in ("top", "sib", "low", "far")] == [
            True,
            True,
            True,
            False,
        ]
        await there.call("kid", "state.put", key="k", value=1)
        assert [await shared(there, who, "agent") for who in ("kid", "low", "top")] == [True, False, False]
        await there.call("kid", "state.put", key="k", value=1, scope="attempt")
        assert await shared(there, "kid", "attempt")
        next_attempt = await there.call("kid", "state.get", key="k", scope="attempt", attempt=2)
        assert next_attempt == {"exists": False, "version": 0}
        assert (await there.call("kid", "state.get", key="k", attempt=2))["exists"]

    run(tmp_path, story)


def test_a_version_never_comes_again(tmp_path: Path) -> None:
    async def story(there: tenants.Tenants) -> None:
        first = (await there.call("kid", "state.put", key="k", value=1))["version"]
        await there.call("kid", "state.delete", key="k")
        second = (await there.call("kid", "state.put", key="k", value=1))["version"]
        lost = await there.call("kid", "state.cas", key="k", value=2, version=first)
        assert second > first and lost == {"swapped": False, "version": second, "value": 1}

    run(tmp_path, story)


def test_keys_are_listed_in_order_a_page_at_a_time(tmp_path: Path) -> None:
    names = ["a", "b/\x00", "b/1", "b/2", "b/é", "b/\U0001f600", "b0"]

    async def story(there: tenants.Tenants) -> None:
        for name in reversed(names):
            await there.call("kid", "state.put", key=name, value=name)
        got, token = [], ""
        while True:
            page = await there.call("kid", "state.list", prefix="b/", limit=2, **{"continue": token})
            got += [one["key"] for one in page["items"]]
            if "continue" not in page:
                break
            token = page["continue"]
        assert got == ["b/\x00", "b/1", "b/2", "b/é", "b/\U0001f600"]

    run(tmp_path, story)


def test_too_much_is_refused_and_what_expired_makes_room(tmp_path: Path) -> None:
    async def story(there: tenants.Tenants) -> None:
        await there.call("kid", "state.put", key="a", value="x" * 50, ttlSeconds=5)
        await there.call("kid", "state.put", key="b", value="x" * 30)
        with pytest.raises(errors.TooManyRequests, match="too much"):
            await there.call("kid", "state.put", key="c", value="x" * 30)
        await there.call("kid", "state.put", key="b", value="x" * 31)  # its own place
        await there.call("low", "state.put", key="c", value="x" * 30)  # another's bound is another's
        there.now += 5
        await there.call("kid", "state.put", key="c", value="x" * 30)
        with pytest.raises(errors.TooManyRequests):
            await there.call("kid", "state.put", key="d", value=1, scope="agent")
            await there.call("kid", "state.put", key="e", value=1, scope="agent")

    run(tmp_path, story, bounds=rooms.Bounds(keys=rooms.Bound(3, 100)))


def test_locks_are_given_in_the_order_of_asking_and_fences_grow(tmp_path: Path) -> None:
    async def story(there: tenants.Tenants) -> None:
        held = await there.call("top", "lock.acquire", name="db")
        waits = []
        for who in ("kid", "sib", "low"):
            waits.append(there.begun(who, "lock.acquire", name="db", waitSeconds=300))
            await there.settled()
        assert await there.call("kid", "lock.acquire", name="db") == {"acquired": False}
        fences = [held["fence"]]
        token = held["token"]
        for wait in waits:
            assert not any(other.done() for other in waits[waits.index(wait) :])
            assert await there.call("far", "lock.release", name="db", token=token) == {"released": False}
            assert (await there.call("top", "lock.release", name="db", token=token))["released"]
            got = await wait
            fences.append(got["fence"])
            token = got["token"]
        assert fences == sorted(set(fences))

    run(tmp_path, story)


def test_a_lock_that_expires_goes_to_who_waits(tmp_path: Path) -> None:
    async def story(there: tenants.Tenants) -> None:
        held = await there.call("top", "lock.acquire", name="db", leaseSeconds=1)
        waits = there.begun("kid", "lock.acquire", name="db", waitSeconds=300)
        await there.settled()
        assert (await there.call("top", "lock.acquire", name="db", token=held["token"], leaseSeconds=60))[
            "acquired"
        ]
        there.now += 60
        there.waiting.ring(("family/uid-top", "db"))  # its timer's turn
        assert (await waits)["acquired"]
        assert await there.call("top", "lock.acquire", name="db", token=held["token"]) == {"acquired": False}
        assert await there.call("top", "lock.release", name="db", token=held["token"]) == {"released": False}

    run(tmp_path, story)


def test_who_hangs_up_is_out_of_the_line_and_keeps_no_lock(tmp_path: Path) -> None:
    async def story(there: tenants.Tenants) -> None:
        held = await there.call("top", "lock.acquire", name="db")
        gone = there.begun("kid", "lock.acquire", name="db", waitSeconds=300)
        await there.settled()
        stays = there.begun("sib", "lock.acquire", name="db", waitSeconds=300)
        await there.settled()
        gone.cancel()
        await asyncio.wait([gone])
        await there.call("top", "lock.release", name="db", token=held["token"])
        got = await stays
        await there.call("sib", "lock.release", name="db", token=got["token"])
        late = there.begun("kid", "lock.acquire", name="db", leaseSeconds=86400)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        late.cancel()  # while its write is under way
        await asyncio.wait([late])
        await there.waiting.close()
        assert (await there.call("sib", "lock.acquire", name="db"))["acquired"]

    run(tmp_path, story)


def test_a_lock_asked_for_with_a_key_is_answered_again(tmp_path: Path) -> None:
    async def story(there: tenants.Tenants) -> None:
        asked = there.begun("kid", "lock.acquire", name="db", once="k")
        for _ in range(3):
            await asyncio.sleep(0)
        asked.cancel()
        await asyncio.wait([asked])
        await there.waiting.close()
        got = await there.call("kid", "lock.acquire", name="db", once="k")
        assert (await there.call("kid", "lock.release", name="db", token=got["token"]))["released"]

    run(tmp_path, story)


def test_a_thousand_locks_are_too_many(tmp_path: Path) -> None:
    async def story(there: tenants.Tenants) -> None:
        for n in range(3):
            await there.call("kid", "lock.acquire", name=f"l{n}", leaseSeconds=5)
        with pytest.raises(errors.TooManyRequests, match="too many locks"):
            await there.call("kid", "lock.acquire", name="l3")
        there.now += 5
        assert (await there.call("kid", "lock.acquire", name="l3"))["acquired"]

    run(tmp_path, story, bounds=rooms.Bounds(locks=rooms.Bound(3, 1)))


def test_one_item_wakes_one_of_those_who_wait(tmp_path: Path) -> None:
    async def story(there: tenants.Tenants) -> None:
        waits = []
        for who in ("kid", "sib", "low"):
            waits.append(there.begun(who, "queue.get", queue="q", waitSeconds=300))
            await there.settled()
        for n, wait in enumerate(waits):
            await there.call("top", "queue.put", queue="q", item=n)
            assert [one["item"] for one in (await wait)["items"]] == [n]
            await there.settled()
            assert not any(later.done() for later in waits[n + 1 :])

    run(tmp_path, story)


def test_a_delayed_item_comes_when_it_is_due(tmp_path: Path) -> None:
    async def story(there: tenants.Tenants) -> None:
        await there.call("top", "queue.put", queue="q", item="late", delaySeconds=60)
        await there.call("top", "queue.put", queue="q", item="soon")
        assert [one["item"] for one in (await there.call("kid", "queue.get", queue="q", max=9))["items"]] == [
            "soon"
        ]
        there.now += 60
        got = (await there.call("kid", "queue.get", queue="q", max=9))["items"]
        assert [one["item"] for one in got] == ["late", "soon"] or [one["item"] for one in got] == [
            "soon",
            "late",
        ]
        ids = [one["id"] for one in got]
        assert await there.call("sib", "queue.ack", queue="q", ids=ids) == {"acknowledged": 2}

    run(tmp_path, story)


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
