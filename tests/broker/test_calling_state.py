"""Values, locks, queues and events of agents and their families, through the gate."""

import asyncio
from pathlib import Path

import pytest

from agentk.api import errors
from agentk.store import guest_rooms as rooms
from tests.broker import tenants
from tests.broker.state_rig import run


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
