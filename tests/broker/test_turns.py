"""Turns: fair by tokens, nobody starves, no slot is lost or idle. Time is virtual throughout."""

import asyncio
from collections import Counter
from collections.abc import Coroutine
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentk.api import errors
from agentk.broker.turns import Settings, Turns
from tests.broker import virtual_loop

TOKENS_PER_SECOND = 1000.0
_OPEN = {"in_flight_each": 10_000, "max_waiting": 100_000, "max_waiting_each": 100_000}


def now() -> float:
    return asyncio.get_running_loop().time()


async def call(
    turns: Turns,
    key: str,
    tokens: int = 1000,
    *,
    weight: float = 1.0,
    priority: int = 0,
    expected: int | None = None,
    log: list[tuple[str, float]] | None = None,
) -> None:
    """One call whose length is its tokens; notes when it began."""
    async with turns.turn(key, weight, priority, tokens if expected is None else expected) as turn:
        if log is not None:
            log.append((key, now()))
        await asyncio.sleep(tokens / TOKENS_PER_SECOND)
        turn.charge(tokens)


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def together(*calls: Coroutine[Any, Any, None]) -> None:
    async with asyncio.TaskGroup() as group:
        for one in calls:
            group.create_task(one)


# Fairness.


def jain(served: list[int]) -> float:
    return sum(served) ** 2 / (len(served) * sum(n * n for n in served))


async def contention(fifo: bool, concurrent: int = 1) -> list[int]:
    """Ten agents keep a route busy for 2000 s, one of them with 20 times the load of each other. Returns tokens
    served by agent. First come, first served is the same with all of them in one line."""
    turns = Turns(Settings(max_concurrent=concurrent, **_OPEN))
    served: Counter[str] = Counter()

    async def client(agent: int, number: int) -> None:
        while True:
            tokens = 300 + (agent * 131 + number * 379) % 900
            async with turns.turn("all" if fifo else f"agent-{agent}", 1.0, 0, 700) as turn:
                await asyncio.sleep(tokens / TOKENS_PER_SECOND)
                turn.charge(tokens)
                served[f"agent-{agent}"] += tokens
                number += 1

    tasks = [
        asyncio.create_task(client(agent, number))
        for agent in range(10)
        for number in range(60 if agent == 0 else 3)
    ]
    await asyncio.sleep(2000)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert turns.running() == turns.waiting() == {}
    return [served[f"agent-{agent}"] for agent in range(10)]


def test_one_greedy_agent_takes_nothing_from_nine_others() -> None:
    fair, fifo = (jain(virtual_loop.run(contention(fifo))) for fifo in (False, True))
    print(f"Jain index of served tokens: {fair:.4f} in fair turns, {fifo:.4f} first come, first served")
    assert fair >= 0.99
    assert fifo <= 0.4


def test_fairness_with_many_slots() -> None:
    assert jain(virtual_loop.run(contention(False, concurrent=4))) >= 0.98


def test_weights_are_respected_although_expectations_are_wrong() -> None:
    weights = {"one": 1.0, "two": 2.0, "five": 5.0}
    expected = {"one": 10, "two": 4000, "five": 900}

    async def story() -> dict[str, int]:
        turns = Turns(Settings(max_concurrent=2, **_OPEN))

        async def client(key: str) -> None:
            while True:
                await call(turns, key, 400, weight=weights[key], expected=expected[key])

        tasks = [asyncio.create_task(client(key)) for key in weights for _ in range(8)]
        await asyncio.sleep(1000)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return dict(turns.served())

    served = virtual_loop.run(story())
    for key, weight in weights.items():
        assert served[key] / sum(served.values()) == pytest.approx(weight / 8, rel=0.05)


def test_who_expected_far_too_much_is_not_served_before_everybody_afterwards() -> None:
    async def story() -> list[str]:
        turns, log = Turns(Settings(max_concurrent=1)), list[tuple[str, float]]()
        await together(*(call(turns, "vague", 100, expected=100_000) for _ in range(5)), late(turns, log))
        return [key for key, _ in log]

    async def late(turns: Turns, log: list[tuple[str, float]]) -> None:
        await asyncio.sleep(0.05)
        calls = [call(turns, key, 100, log=log) for key in ("vague", "new") for _ in range(6)]
        await together(*calls)

    order = virtual_loop.run(story())
    assert all(abs(Counter(order[:n])["new"] - Counter(order[:n])["vague"]) <= 6 for n in range(len(order)))
    assert order.index("new") <= 1


def test_what_was_used_alone_is_not_held_against_anybody() -> None:
    async def story() -> list[str]:
        turns, log = Turns(Settings(max_concurrent=1)), list[tuple[str, float]]()
        for _ in range(50):
            await call(turns, "early", 1000)
        await together(*(call(turns, key, 100, log=log) for _ in range(5) for key in ("early", "late")))
        return [key for key, _ in log]

    order = virtual_loop.run(story())
    assert all(set(order[at : at + 2]) == {"early", "late"} for at in range(0, 10, 2))


def test_a_stream_of_newcomers_neither_starves_nor_is_starved() -> None:
    async def story() -> Counter[str]:
        turns, log = Turns(Settings(max_concurrent=1, **_OPEN)), list[tuple[str, float]]()
        residents = [asyncio.create_task(call(turns, "resident", 100, log=log)) for _ in range(400)]
        for number in range(100):  # one every second turn: as much as is fair
            await asyncio.sleep(0.2)
            residents.append(asyncio.create_task(call(turns, f"new-{number}", 100, log=log)))
        seen = Counter(key.partition("-")[0] for key, _ in log)
        await asyncio.gather(*residents)
        return seen

    seen = virtual_loop.run(story())
    assert seen["resident"] >= 95 and seen["new"] >= 90


def test_calls_that_fail_for_nothing_do_not_go_first_for_ever() -> None:
    async def story() -> int:
        turns, log = Turns(Settings(max_concurrent=1, **_OPEN)), list[tuple[str, float]]()

        async def failing() -> None:
            async with turns.turn("failing", cost_tokens=1000) as turn:
                await asyncio.sleep(1)
                turn.charge(0)

        tasks = [asyncio.create_task(failing()) for _ in range(200)]
        await together(*(call(turns, "good", 200, log=log) for _ in range(10)))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return int(now())

    assert virtual_loop.run(story()) <= 40


# Priorities.


def test_a_higher_priority_goes_first() -> None:
    async def story() -> list[str]:
        turns, log = Turns(Settings(max_concurrent=1)), list[tuple[str, float]]()
        await together(*(call(turns, f"p{n}", priority=n, log=log) for n in (0, -5, 10, 3)))
        return [key for key, _ in log]

    assert virtual_loop.run(story()) == ["p0", "p10", "p3", "p-5"], "p0 came to a free slot"


def test_no_priority_starves_beyond_its_bound() -> None:
    async def story() -> dict[str, list[float]]:
        turns, log = Turns(Settings(max_concurrent=1, aging_seconds=30, **_OPEN)), list[tuple[str, float]]()

        async def client(priority: int) -> None:
            while True:
                await call(turns, f"p{priority}", 1000, priority=priority, log=log)

        tasks = [asyncio.create_task(client(priority)) for priority in (100, 50, 0, -100) for _ in range(4)]
        await asyncio.sleep(1000)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return {key: [at for other, at in log if other == key] for key, _ in log}

    starts = virtual_loop.run(story())
    assert len(starts) == 4
    for times in starts.values():
        gaps = [later - before for before, later in zip([0.0, *times], [*times, 1000.0], strict=True)]
        assert max(gaps) <= 30 + 4 * 1.0 + 0.01, "aging and one turn of each of four priorities"
    assert len(starts["p100"]) >= 880, "the highest keeps nearly everything"


# Rates.


def test_calls_a_minute() -> None:
    async def story() -> list[float]:
        turns, log = Turns(Settings(rpm=30, max_concurrent=100, **_OPEN)), list[tuple[str, float]]()
        await together(*(call(turns, "a", 1, log=log) for _ in range(60)))
        return [at for _, at in log]

    began = virtual_loop.run(story())
    assert sum(at < 0.001 for at in began) == 30
    assert began[30:] == pytest.approx([2.0 * n for n in range(1, 31)], abs=0.01)


def test_tokens_a_minute_follow_the_truth() -> None:
    async def story() -> list[float]:
        turns, log = Turns(Settings(tpm=6000, max_concurrent=1)), list[tuple[str, float]]()
        await call(turns, "a", 1000, expected=6000, log=log)
        await call(turns, "a", 8000, expected=5000, log=log)
        await call(turns, "a", 1000, log=log)
        return [at for _, at in log]

    began = virtual_loop.run(story())
    assert began[:2] == [0.0, 1.0], "what the first did not use was given back"
    assert began[2] == pytest.approx(40.0), "9000 used of 6000 + 100 a second, 1000 needed"


def test_what_is_given_back_wakes_who_waits_for_it() -> None:
    async def story() -> list[tuple[str, float]]:
        turns, log = Turns(Settings(tpm=600, max_concurrent=2)), list[tuple[str, float]]()
        await together(call(turns, "a", 100, expected=600), call(turns, "b", 500, log=log))
        return log

    assert virtual_loop.run(story()) == [("b", 0.1)]


def test_more_tokens_than_a_minute_holds_go_when_it_is_full() -> None:
    async def story() -> float:
        turns = Turns(Settings(tpm=600))
        await call(turns, "a", 300)
        await call(turns, "a", 5000)
        return now()

    assert virtual_loop.run(story()) == pytest.approx(30.0 + 5.0)


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
        assert turns.served() == {"a": 5, "b": 1000}
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
    async def one(turns: Turns, key: str, priority: int, begins: int, takes: int, how: str) -> None:
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
        tasks = [asyncio.create_task(one(turns, *args, how)) for *args, _, how in calls]
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
