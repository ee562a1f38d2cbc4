"""The line before a route: bounded, left at once by who is cancelled; no slot is lost or idle. Virtual time."""

import asyncio
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentk.api import errors
from agentk.broker.turns import Settings, Turns
from tests.broker import virtual_loop
from tests.broker.calling import call, now, settle, together

# The line.


def test_an_agent_has_no_more_calls_in_flight_than_it_may() -> None:
    async def story() -> None:
        turns = Turns(Settings(max_concurrent=10, in_flight_each=2))
        tasks = [asyncio.create_task(call(turns, "a")) for _ in range(5)]
        tasks += [asyncio.create_task(call(turns, "a", priority=9)), asyncio.create_task(call(turns, "b"))]
        await settle()
        assert turns.running() == {"a": 2, "b": 1}
        assert turns.waiting() == {"a": 4}
        await asyncio.gather(*tasks)
        assert now() == 3.0

    virtual_loop.run(story())


def test_a_full_line_refuses_and_says_when() -> None:
    async def story() -> None:
        turns = Turns(Settings(max_concurrent=1, max_waiting_each=3))
        tasks = [asyncio.create_task(call(turns, "a")) for _ in range(4)]
        await settle()
        with pytest.raises(errors.TooManyRequests) as caught:
            await call(turns, "a")
        assert caught.value.retry_after_seconds == 4
        await asyncio.gather(*tasks)
        assert turns.running() == turns.waiting() == {}

    virtual_loop.run(story())


def test_the_longest_line_gives_way_when_all_are_full() -> None:
    async def story() -> None:
        turns = Turns(Settings(max_concurrent=1, max_waiting=4))
        greedy = [asyncio.create_task(call(turns, "greedy")) for _ in range(5)]
        await settle()
        modest = asyncio.create_task(call(turns, "modest"))
        ended = await asyncio.gather(*greedy, modest, return_exceptions=True)
        assert [isinstance(end, errors.TooManyRequests) for end in ended] == [False] * 4 + [True, False]
        with pytest.raises(errors.TooManyRequests):
            await together_refused(turns)

    async def together_refused(turns: Turns) -> None:
        tasks = [asyncio.create_task(call(turns, "greedy")) for _ in range(6)]
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        raise next(end for end in ended if isinstance(end, BaseException))

    virtual_loop.run(story())


def test_other_settings_wake_who_waits() -> None:
    async def story() -> None:
        turns = Turns(Settings(max_concurrent=1, rpm=1))
        tasks = [asyncio.create_task(call(turns, "a")) for _ in range(3)]
        await settle()
        turns.change(Settings(max_concurrent=3))
        await settle()
        assert turns.running() == {"a": 3}
        await asyncio.gather(*tasks)

    virtual_loop.run(story())


@pytest.mark.parametrize("weight", [0, -1, float("nan"), float("inf")])
def test_a_weight_that_is_none_leaves_nothing_behind(weight: float) -> None:
    async def story() -> None:
        turns = Turns(Settings())
        with pytest.raises(ValueError):
            await call(turns, "a", weight=weight)
        assert turns.waiting() == {}

    virtual_loop.run(story())


# Cancelling.


def test_a_cancelled_waiter_is_gone_at_once() -> None:
    async def story() -> None:
        turns = Turns(Settings(max_concurrent=1))
        first, second, third = (asyncio.create_task(call(turns, key)) for key in ("a", "b", "c"))
        await settle()
        second.cancel()
        await settle()
        assert turns.waiting() == {"c": 1}
        await asyncio.gather(first, third)
        assert now() == 2.0

    virtual_loop.run(story())


def test_a_cancelled_call_frees_its_slot_at_once_and_counts_as_expected() -> None:
    async def story() -> None:
        turns, log = Turns(Settings(max_concurrent=1)), list[tuple[str, float]]()
        first = asyncio.create_task(call(turns, "a", 50_000))
        others = [asyncio.create_task(call(turns, key, log=log)) for key in ("a", "b", "b")]
        await asyncio.sleep(1)
        first.cancel()
        await settle()
        assert turns.running() == {"b": 1}
        await asyncio.gather(*others)
        assert [key for key, _ in log] == ["b", "b", "a"]

    virtual_loop.run(story())


def test_a_slot_freed_before_its_call_is_cleaned_up_serves_another() -> None:
    async def story() -> None:
        turns = Turns(Settings(max_concurrent=1))
        async with turns.turn("a") as turn:
            other = asyncio.create_task(call(turns, "b"))
            await settle()
            turn.free()
            turn.free()
            await settle()
            assert turns.running() == {"b": 1}
            turn.charge(5)
        await other
        assert turns.running() == {}

    virtual_loop.run(story())


def test_granted_and_cancelled_in_the_same_moment() -> None:
    async def story() -> None:
        turns = Turns(Settings(max_concurrent=1))
        async with turns.turn("a") as turn:
            other = asyncio.create_task(call(turns, "b"))
            await settle()
            turn.free()
            other.cancel()
        await asyncio.gather(other, return_exceptions=True)
        assert turns.running() == turns.waiting() == {}
        await call(turns, "c")

    virtual_loop.run(story())


def test_who_was_cancelled_takes_no_call_of_the_minute() -> None:
    async def story() -> None:
        turns = Turns(Settings(max_concurrent=1, rpm=2))
        async with turns.turn("a") as turn:
            other = asyncio.create_task(call(turns, "b"))
            await settle()
            other.cancel()
            turn.free()
        await asyncio.gather(other, return_exceptions=True)
        await call(turns, "c")
        assert now() == 1.0

    virtual_loop.run(story())


CALLS = st.lists(
    st.tuples(
        st.sampled_from("abc"),
        st.integers(-1, 1),  # priority
        st.integers(0, 6),  # begins
        st.integers(0, 5),  # takes
        st.one_of(st.none(), st.integers(0, 8)),  # is cancelled
        st.sampled_from(["charge", "fail", "free", "forget"]),
    ),
    max_size=30,
)


@settings(max_examples=150)
@given(calls=CALLS, slots=st.integers(1, 3), each=st.integers(1, 3), line=st.integers(0, 6))
def test_no_storm_loses_a_slot_or_leaves_one_idle(calls: list[Any], slots: int, each: int, line: int) -> None:
    async def one(turns: Turns, key: str, how: str, priority: int, begins: int, takes: int) -> None:
        await asyncio.sleep(begins)
        async with turns.turn(key, 1.0, priority, 100) as turn:
            await asyncio.sleep(takes)
            if how == "charge":
                turn.charge(takes * 100)
            elif how == "fail":
                raise ConnectionError
            elif how == "free":
                turn.free()
                await asyncio.sleep(1)

    def sound(turns: Turns) -> None:
        running, waiting = Counter(turns.running()), turns.waiting()
        assert running.total() <= slots and all(count <= each for count in running.values())
        eligible = [key for key in waiting if running[key] < each]
        assert not eligible or running.total() == slots, "a slot is idle while somebody may have it"

    async def story() -> None:
        turns = Turns(
            Settings(max_concurrent=slots, in_flight_each=each, max_waiting=line, max_waiting_each=4)
        )
        tasks = [asyncio.create_task(one(turns, key, how, *whole)) for key, *whole, _, how in calls]
        loop = asyncio.get_running_loop()
        for task, (*_, cancelled, _) in zip(tasks, calls, strict=True):
            if cancelled is not None:
                loop.call_at(cancelled, task.cancel)
        for moment in range(40):
            await asyncio.sleep(moment + 0.5 - now())
            sound(turns)
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        expected = (asyncio.CancelledError, ConnectionError, errors.TooManyRequests, type(None))
        assert all(isinstance(end, expected) for end in ended)
        assert turns.running() == turns.waiting() == {}
        await together(*(call(turns, f"after-{n}", 1) for n in range(slots)))

    virtual_loop.run(story())
