import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from agentk.api import errors
from agentk.control import probes
from agentk.runtime import box
from tests.control import virtual

EXIT = box.Exit(0, None, "wait", "")


def checked(settings: probes.Settings, results: Sequence[bool]) -> list[bool | None]:
    verdict, seen = probes.Verdict(), []
    for passed in results:
        verdict = probes.step(verdict, settings, passed, "")
        seen.append(verdict.passes)
    return seen


@pytest.mark.parametrize(
    ("failures", "successes", "results", "verdicts"),
    [
        (3, 1, [True], [True]),
        (3, 1, [False, False, False], [None, None, False]),
        (3, 1, [True, False, False, True, False], [True] * 5),
        (1, 2, [True, True, False, True, True], [None, True, False, False, True]),
        (2, 1, [False, True, False, False], [None, True, True, False]),
    ],
)
def test_thresholds(failures: int, successes: int, results: list[bool], verdicts: list[bool | None]) -> None:
    settings = probes.Settings(failure_threshold=failures, success_threshold=successes)
    assert checked(settings, results) == verdicts


def test_a_heartbeat_ages_by_our_own_clock() -> None:
    beat = probes.beat(probes.Beat(), "1", 100.0)
    assert probes.beat(beat, "1", 130.0).since == 100.0
    assert probes.beat(beat, "2", 130.0).since == 130.0
    assert probes.beat(beat, "0", 140.0).since == 140.0, "a clock set back is still a change"


class Guest:
    """Of a runtime, only what a prober may touch; answers as a box would."""

    def __init__(self) -> None:
        self.stamp, self.away, self.asked = "1", False, list[Sequence[str]]()

    async def exec(self, box_id: str, argv: Sequence[str], timeout_seconds: float) -> box.ExecResult:
        self.asked.append(argv)
        if self.away:
            raise errors.Unavailable("the launcher is away")
        return box.ExecResult(
            replace(EXIT, code=0 if self.stamp else 1), self.stamp.encode(), b"no such file"
        )


def watched(
    settings: probes.Settings, story: Sequence[tuple[float, str | None]]
) -> list[tuple[float, bool | None]]:
    """Verdicts with their seconds; the story sets the heartbeat's stamp, or takes the keeper away (None)."""

    async def play() -> list[tuple[float, bool | None]]:
        clock, guest, told = virtual.Clock(), Guest(), []
        tell = lambda verdict: told.append((clock.now().boottime - 1000, verdict.passes))  # noqa: E731
        prober = probes.Prober(guest, clock, settings, tell)  # type: ignore[arg-type]
        task = asyncio.create_task(prober.run("b", 1000.0))
        for seconds, stamp in story:
            guest.away = stamp is None
            guest.stamp = guest.stamp if stamp is None else stamp
            await clock.advance(seconds)
        task.cancel()
        return told

    return asyncio.run(play())


SETTINGS = probes.Settings(max_age_seconds=5, period_seconds=2, failure_threshold=2)


def test_a_heartbeat_that_stops_fails_after_age_and_threshold() -> None:
    verdicts = watched(SETTINGS, [(2, "1"), (2, "2"), (30, "3")])
    assert verdicts[0] == (0, True)
    assert [at for at, passes in verdicts if passes is False] == [14]


def test_a_missing_heartbeat_fails() -> None:
    assert watched(SETTINGS, [(10, "")])[-1] == (2, False)


def test_the_first_check_waits_for_the_delay() -> None:
    assert watched(replace(SETTINGS, initial_delay_seconds=7), [(10, "1")])[0] == (7, True)


def test_a_keeper_that_is_away_is_not_the_agents_fault() -> None:
    assert watched(SETTINGS, [(1, "1"), (60, None)]) == [(0, True)]


def test_a_command_is_run_as_it_is() -> None:
    settings = probes.read({"exec": {"command": ["true", "x"]}, "periodSeconds": 3})
    assert (settings.command, settings.period_seconds) == (("true", "x"), 3)
