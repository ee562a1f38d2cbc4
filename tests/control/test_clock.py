import asyncio
import time

from agentk.control import clock, conditions
from agentk.control.conditions import Condition

BEGIN = clock.Now("2026-01-01T00:00:00.000000Z", 100.0, "boot-1")


def test_a_moment_is_not_moved_by_the_wall_clock() -> None:
    jumped = clock.Now("2030-01-01T00:00:00Z", 107.0, "boot-1")
    assert BEGIN.after(5).elapsed(jumped) == 2


def test_after_a_reboot_the_wall_clock_counts() -> None:
    later = clock.Now("2026-01-01T00:01:00Z", 3.0, "boot-2")
    assert BEGIN.after(5).elapsed(later) == 55
    assert BEGIN.after(5).rebased(later).elapsed(clock.Now("1999-01-01T00:00:00Z", 4.0, "boot-2")) == 56


def test_a_moment_survives_storing() -> None:
    moment = BEGIN.after(2.5)
    assert clock.Moment.from_dict(moment.to_dict()) == moment


def test_the_machines_clock_sleeps_in_boottime() -> None:
    async def story() -> float:
        real = clock.BootClock()
        before = real.now()
        await real.sleep(0.01)
        return real.now().boottime - before.boottime

    assert asyncio.run(story()) >= 0.01


def test_a_cancelled_sleep_leaves_nothing_behind() -> None:
    async def story() -> None:
        real = clock.BootClock()
        task = asyncio.create_task(real.sleep(1000))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await real.sleep(0)

    before = time.monotonic()
    asyncio.run(story())
    assert time.monotonic() - before < 100


def test_a_condition_keeps_its_time_until_its_status_changes() -> None:
    first = conditions.merge([], [Condition("Ready", "False", "Starting")], 1, "t1")
    second = conditions.merge(first, [Condition("Ready", "False", "Waiting", "x")], 2, "t2")
    third = conditions.merge(second, [Condition("Ready", "True", "Running")], 2, "t3")
    assert [c[0]["lastTransitionTime"] for c in (first, second, third)] == ["t1", "t1", "t3"]
    assert (second[0]["reason"], second[0]["observedGeneration"]) == ("Waiting", 2)
