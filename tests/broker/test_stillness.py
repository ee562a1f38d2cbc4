"""Agents that are frozen: their calls hold up nobody, and lose nothing."""

import asyncio

import pytest

from agentk.broker.door import Limits
from agentk.broker.stillness import Stillness
from agentk.broker.turns import Settings, Turns
from agentk.sdk import wire
from tests.broker import virtual_loop
from tests.broker.calling import OPEN, call, now, settle
from tests.broker.door_rig import Guesthouse, story

# time


async def ended_after(still: Stillness, seconds: float, *changes: tuple[float, bool]) -> tuple[float, float]:
    """How long it was waited for, and where the deadline was in the end."""
    loop = asyncio.get_running_loop()
    for at, stands in changes:
        loop.call_later(at, still.tell, "a", stands)
    began = loop.time()
    deadline = None
    with pytest.raises(TimeoutError):
        async with still.timeout_at("a", began + seconds) as deadline:
            await asyncio.Event().wait()
    assert deadline is not None
    return loop.time() - began, deadline.at - began


def test_no_time_passes_while_it_stands_still() -> None:
    assert virtual_loop.run(ended_after(Stillness(), 5)) == (5, 5)
    assert virtual_loop.run(ended_after(Stillness(), 5, (2, True), (100, False))) == (103, 103)
    twice = ended_after(Stillness(), 5, (1, True), (11, False), (12, True), (22, False))
    assert virtual_loop.run(twice) == (25, 25)
    begun_still = Stillness()
    begun_still.tell("a", True)
    assert virtual_loop.run(ended_after(begun_still, 5, (50, False))) == (55, 55)


def test_another_that_stands_still_gives_nobody_time() -> None:
    still = Stillness()
    still.tell("b", True)
    assert virtual_loop.run(ended_after(still, 5)) == (5, 5)


def test_who_leaves_while_it_stands_still_has_what_was_left() -> None:
    async def left() -> float:
        still, loop = Stillness(), asyncio.get_running_loop()
        loop.call_later(2, still.tell, "a", True)
        async with still.timeout_at("a", 5) as deadline:
            await asyncio.sleep(10)
        return deadline.at - loop.time()

    assert virtual_loop.run(left()) == 3


# turns


def line(still: Stillness) -> Turns:
    turns = Turns(Settings(max_concurrent=1, **OPEN), still=still.stands)
    still.listen(lambda uid, stands: turns.rest(uid) if stands else turns.wake(uid))
    return turns


def test_a_call_of_a_frozen_agent_lets_others_pass_and_comes_when_it_goes_on() -> None:
    async def told() -> list[tuple[str, float]]:
        still, log = Stillness(), list[tuple[str, float]]()
        turns = line(still)
        async with asyncio.TaskGroup() as group:
            for key in ("first", "frozen", "last"):
                group.create_task(call(turns, key, log=log))
                await settle()
            still.tell("frozen", True)
            assert turns.waiting() == {"last": 1}
            await asyncio.sleep(10)
            still.tell("frozen", False)
        assert turns.waiting() == turns.running() == {}
        return log

    assert virtual_loop.run(told()) == [("first", 0), ("last", 1), ("frozen", 10)]


def test_a_slot_is_not_kept_for_a_frozen_agent() -> None:
    async def told() -> None:
        still = Stillness()
        turns = line(still)
        still.tell("frozen", True)
        waiting = asyncio.create_task(call(turns, "frozen"))
        await settle()
        assert turns.waiting() == turns.running() == {}
        await call(turns, "other")
        assert now() == 1
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        still.tell("frozen", False)
        assert turns.waiting() == turns.running() == {}

    virtual_loop.run(told())


def test_of_a_family_only_the_frozen_one_makes_way() -> None:
    async def told() -> None:
        still = Stillness()
        turns = line(still)
        still.tell("child", True)

        async def one(owner: str) -> float:
            async with turns.turn("parent", owner=owner):
                await asyncio.sleep(1)
            return now()

        child = asyncio.create_task(one("child"))
        await settle()
        assert await one("parent") == 1
        still.tell("child", False)
        assert await child == 2

    virtual_loop.run(told())


def test_a_line_that_is_full_when_it_goes_on_says_so() -> None:
    async def told() -> list[object]:
        still = Stillness()
        turns = Turns(Settings(max_concurrent=1, max_waiting=1), still=still.stands)
        still.tell("frozen", True)
        tasks = [asyncio.create_task(call(turns, key)) for key in ("frozen", "runs", "waits")]
        await settle()
        still.tell("frozen", False)
        turns.wake("frozen")
        return [type(one).__name__ for one in await asyncio.gather(*tasks, return_exceptions=True)]

    assert virtual_loop.run(told()) == ["TooManyRequests", "NoneType", "NoneType"]


# the door


@story
async def test_a_stream_to_a_frozen_guest_comes_to_its_end_and_is_there_when_it_goes_on(
    house: Guesthouse,
) -> None:
    async with house.open(Limits(unread_seconds=0.005)) as opened:
        guest = await house.connect()
        guest.ask(1, "count", to=100, pad=50_000)
        await house.begun.get()
        opened.stand(True)
        other = await house.connect()
        for _ in range(500):  # longer than who does not read is kept
            await other.noop()
        opened.stand(False)
        seen = [(await guest.hear()).seq for _ in range(100)]
        assert seen == list(range(100)) and await guest.hear() == wire.Response(1, {})
        assert house.cancelled.empty()
        await guest.close()
        await other.close()


@story
async def test_what_is_kept_for_a_frozen_guest_is_bounded(house: Guesthouse) -> None:
    async with house.open(Limits(unread_seconds=60, kept_bytes=1_000_000)) as opened:
        guest = await house.connect()
        guest.reader._transport.pause_reading()  # type: ignore[attr-defined]
        opened.stand(True)
        guest.ask(1, "count", to=1000, pad=50_000)
        await house.begun.get()
        other = await house.connect()
        for _ in range(200):
            await other.noop()
        assert opened.keeps_too_much()
        kept = sum(one.transport.get_write_buffer_size() for one in opened._visitors)
        assert kept < 1_200_000, "a little more than it may be, and no more"
        opened.stand(False)
        guest.reader._transport.resume_reading()  # type: ignore[attr-defined]
        assert [(await guest.hear()).seq for _ in range(1000)] == list(range(1000))
        await guest.close()
        await other.close()


@story
async def test_one_that_is_thawed_and_reads_nothing_is_dropped(house: Guesthouse) -> None:
    async with house.open(Limits(unread_seconds=0.05)) as opened:
        guest = await house.connect()
        guest.reader._transport.pause_reading()  # type: ignore[attr-defined]
        opened.stand(True)
        guest.ask(1, "count", to=20, pad=50_000)
        await house.begun.get()
        other = await house.connect()
        await other.noop()
        opened.stand(False)
        while opened.connections > 1:
            await other.noop()
        await guest.close()
        await other.close()
