import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from agentk.control import queueing
from tests.control import virtual


def play(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 20))


@contextlib.asynccontextmanager
async def running(queue: queueing.Queue[str]) -> Any:
    task = asyncio.create_task(queue.run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def test_a_key_asked_for_many_times_is_worked_on_once() -> None:
    async def story() -> None:
        done: list[str] = []

        async def work(key: str) -> None:
            done.append(key)

        queue = queueing.Queue(work, virtual.Clock())
        for key in ["a", "b", "a", "a"]:
            queue.add(key)
        async with running(queue):
            await queue.idle()
        assert done == ["a", "b"]

    play(story)


def test_what_is_added_during_its_work_is_worked_on_again() -> None:
    async def story() -> None:
        done, gate = [], asyncio.Event()

        async def work(key: str) -> None:
            done.append(key)
            await gate.wait()

        queue = queueing.Queue(work, virtual.Clock())
        queue.add("a")
        async with running(queue):
            await virtual.settle()
            queue.add("a")
            queue.add("a")
            await virtual.settle()
            assert done == ["a"]
            gate.set()
            await queue.idle()
        assert done == ["a", "a"]

    play(story)


def test_a_stuck_key_does_not_hold_up_the_others() -> None:
    async def story() -> None:
        done: list[str] = []

        async def work(key: str) -> None:
            if key == "stuck":
                await asyncio.Event().wait()
            done.append(key)

        queue = queueing.Queue(work, virtual.Clock(), workers=2)
        for key in ["stuck", "a", "b", "c"]:
            queue.add(key)
        async with running(queue):
            await virtual.settle()
            assert done == ["a", "b", "c"]

    play(story)


def test_the_earliest_of_many_timers_wins() -> None:
    async def story() -> None:
        clock, at = virtual.Clock(), []

        async def work(key: str) -> None:
            at.append(clock.now().boottime - 1000)

        queue = queueing.Queue(work, clock)
        async with running(queue):
            for seconds in [30, 10, 20]:
                queue.add_after("a", seconds)
            await clock.advance(100)
        assert at == [10]

    play(story)


def test_work_may_ask_to_come_again() -> None:
    async def story() -> None:
        clock, at = virtual.Clock(), []

        async def work(key: str) -> float | None:
            at.append(clock.now().boottime - 1000)
            return 5 if len(at) < 3 else None

        queue = queueing.Queue(work, clock)
        queue.add("a")
        async with running(queue):
            await clock.advance(100)
        assert at == [0, 5, 10]

    play(story)


def test_failures_back_off_and_success_forgets_them() -> None:
    async def story() -> None:
        clock, at, told = virtual.Clock(), [], []

        async def work(key: str) -> None:
            at.append(clock.now().boottime - 1000)
            if len(at) in (1, 2, 3, 5):
                raise ValueError("no")

        backoff = queueing.Backoff(initial_seconds=1, max_seconds=60)
        queue = queueing.Queue(work, clock, backoff=backoff, failed=lambda key, e, n: told.append(n))
        queue.add("a")
        async with running(queue):
            await clock.advance(20)
            queue.add("a")
            await clock.advance(20)
        assert at == [0, 1, 3, 7, 20, 21]
        assert told == [1, 2, 3, 1]

    play(story)


def test_forgetting_a_key_drops_its_timer() -> None:
    async def story() -> None:
        clock, done = virtual.Clock(), []

        async def work(key: str) -> None:
            done.append(key)

        queue = queueing.Queue(work, clock)
        async with running(queue):
            queue.add_after("a", 5)
            queue.forget("a")
            await clock.advance(10)
        assert done == []

    play(story)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["add", "after", "wait"]), st.sampled_from("abc"), st.sampled_from([0.0, 1.0, 2.5])
    ),
    max_size=40,
)


@given(steps=STEPS, workers=st.integers(1, 4), slow=st.sampled_from([0.0, 1.0, 3.0]), failing=st.booleans())
@settings(max_examples=150)
def test_never_two_workers_on_a_key_and_no_lost_wake_up(
    steps: list[tuple[str, str, float]], workers: int, slow: float, failing: bool
) -> None:
    """After the last wish for a key its work begins once more; two works of one key never overlap."""

    async def story() -> None:
        clock, busy, began = virtual.Clock(), set(), dict[str, float]()
        wished: dict[str, float] = {}

        async def work(key: str) -> None:
            assert key not in busy
            busy.add(key)
            began[key] = clock.now().boottime
            await clock.sleep(slow)
            busy.discard(key)
            if failing and key == "a":
                raise ValueError("a never works")

        queue = queueing.Queue(work, clock, workers=workers)
        async with running(queue):
            for what, key, seconds in steps:
                if what == "wait":
                    await clock.advance(seconds)
                    continue
                wished[key] = clock.now().boottime
                if what == "add":
                    queue.add(key)
                else:
                    queue.add_after(key, seconds)
            await clock.advance(200)
            for key, at in wished.items():
                assert began[key] >= at
            assert len(busy) <= workers

    play(story)
