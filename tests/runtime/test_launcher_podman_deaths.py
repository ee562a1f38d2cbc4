"""Any death around a Podman box, of the launcher at a named moment or of what it needs: nothing doubled or left."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from agentk.runtime import box, jails
from agentk.runtime.launcher import crash
from tests.runtime import launching, podmans
from tests.runtime.launching import Place

pytestmark = podmans.needs_podman
KILLED = box.Intent("Killed", "a test did")
SLEEP = "import time; print('up', flush=True); time.sleep(1000)"
# Those that a Podman box passes on its way.
STARTING = [
    name
    for name in crash.POINTS
    if name.startswith("start.") and name.split("-")[-1] not in ("fork", "ready", "door")
] + ["podman.after-stage", "podman.after-start"]
ENDING = [name for name in crash.POINTS if name.startswith(("end.", "remove."))]


@pytest.fixture
def there() -> Iterator[Place]:
    with launching.place() as made:
        yield made
    podmans.assert_nothing_is_left(made)


async def until_it_dies(there: Place, act: Callable[[jails.Jails], Awaitable[object]]) -> None:
    """`act` with a launcher that dies on the way; ends when it has."""
    launcher = there.process
    assert launcher is not None
    async with launching.connected(there) as runtime:
        acting = asyncio.ensure_future(act(runtime))
        await launching.holds(lambda: launcher.poll() is not None)
        acting.cancel()
        await asyncio.gather(acting, return_exceptions=True)
    assert launcher.returncode == -signal.SIGKILL


@pytest.mark.parametrize("point", STARTING)
def test_death_while_starting_leaves_all_of_a_box_or_nothing(there: Place, point: str) -> None:
    async def flow() -> None:
        there.launch(crash_at=point)
        wanted = there.python(SLEEP, runtime="podman")
        await until_it_dies(there, lambda runtime: runtime.start(wanted))
        there.launch()
        async with launching.connected(there) as runtime:
            whole = point in ("start.after-handle", "start.after-release")
            assert [seen.phase for seen in await runtime.list()] == (["Running"] if whole else [])
            if not whole:
                await launching.holds(lambda: not podmans.containers(there))
            again = await runtime.start(wanted)
            assert again.phase == "Running"
            await launching.logged(there, "up")
            assert len(podmans.containers(there)) == 1
            assert there.log() == ["up"]

    asyncio.run(flow())


@pytest.mark.parametrize("point", ENDING)
def test_death_while_ending_loses_no_exit(there: Place, point: str) -> None:
    async def flow() -> list[box.Seen]:
        there.launch(crash_at=point)
        code = "import sys, time; print('words', flush=True); sys.exit(9)"

        async def run(runtime: jails.Jails) -> None:
            seen = await runtime.start(there.python(code, runtime="podman"))
            await launching.ended(runtime, seen.id)
            await runtime.remove(seen.id)

        await until_it_dies(there, run)
        there.launch()
        async with launching.connected(there) as runtime:
            await launching.holds(lambda: not podmans.containers(there))
            for seen in await runtime.list():
                await launching.ended(runtime, seen.id)
            return list(await runtime.list())

    found = asyncio.run(flow())
    codes = [seen.exit.code for seen in found if seen.exit]
    assert codes in ([9], []) if point.startswith("remove.") else codes == [9]
    assert there.log() == ["words"]


def test_running_box_is_found_again_and_can_be_ended(there: Place) -> None:
    async def flow() -> tuple[box.Seen, box.Seen, box.Seen]:
        there.launch()
        async with launching.connected(there) as runtime:
            before = await runtime.start(there.python(SLEEP, runtime="podman"))
        there.die()
        there.launch()
        async with launching.connected(there) as runtime:
            after = (await runtime.list())[0]
            await runtime.signal(before.id, signal.SIGTERM, KILLED)
            return before, after, await launching.ended(runtime, before.id)

    before, after, ended = asyncio.run(flow())
    assert (after.phase, after.process, after.started_at) == ("Running", before.process, before.started_at)
    assert ended.exit is not None
    assert (ended.exit.code, ended.exit.intent, ended.exit.message) == (143, KILLED, "")


def test_exit_code_of_a_box_that_ended_meanwhile_is_its_own(there: Place) -> None:
    async def flow() -> box.Seen:
        there.launch()
        code = "import os,time,sys\nwhile not os.path.exists('go'): time.sleep(0.005)\nsys.exit(9)"
        async with launching.connected(there) as runtime:
            seen = await runtime.start(there.python(code, runtime="podman"))
        there.die()
        assert seen.process is not None
        podmans.touch(seen.process.pid, "go")
        await launching.holds(lambda: not Path(f"/proc/{seen.process.pid}/cwd").exists())  # type: ignore[union-attr]
        there.launch()
        async with launching.connected(there) as runtime:
            return await launching.ended(runtime, seen.id)

    seen = asyncio.run(flow())
    assert seen.exit is not None
    assert (seen.phase, seen.exit.code) == ("Exited", 9)


def test_output_that_went_while_a_box_was_still_ending_is_owned_up_to(there: Place) -> None:
    """Its first process has closed its pipes, and is no corpse yet, when the next launcher looks. That one dies too,
    and leaves new pipes with whoever asked for copies."""

    async def flow() -> box.Seen:
        there.launch()
        code = "import os,time,sys\nwhile not os.path.exists('go'): time.sleep(0.005)\nprint('last words'); sys.exit(9)"
        async with launching.connected(there) as runtime:
            seen = await runtime.start(there.python(code, runtime="podman"))
        assert seen.process is not None
        pid = seen.process.pid
        with podmans.clinging(pid):
            there.die()
            podmans.touch(pid, "go")
            await launching.holds(lambda: not Path(f"/proc/{pid}/cwd").exists())
            there.launch()
            async with launching.connected(there) as runtime:
                assert [found.phase for found in await runtime.list()] == ["Running"]
                there.die()
                there.launch()
                assert [found.phase for found in await runtime.list()] == ["Running"]
        async with launching.connected(there) as runtime:
            return await launching.ended(runtime, seen.id)

    seen = asyncio.run(flow())
    assert seen.exit is not None and seen.exit.code == 9
    assert "missing" in seen.exit.message


@pytest.mark.parametrize("victim", ["agentk.runtime.podman.worker", " system service "])
def test_boxes_outlive_what_speaks_with_podman(there: Place, victim: str) -> None:
    async def flow() -> box.Seen:
        there.launch()
        async with launching.connected(there) as runtime:
            first = await runtime.start(there.python(SLEEP, runtime="podman"))
            podmans.kill(there, victim)
            second = await runtime.start(there.python(SLEEP, runtime="podman", uid="u-2"))
            assert [seen.phase for seen in await runtime.list()] == ["Running", "Running"]
            await runtime.kill(first.id, KILLED)
            await runtime.remove(second.id)
            return await launching.ended(runtime, first.id)

    seen = asyncio.run(flow())
    assert seen.exit is not None
    assert (seen.exit.code, seen.exit.signal, seen.exit.intent) == (137, signal.SIGKILL, KILLED)


@pytest.mark.skipif(os.geteuid() == 0, reason="root's Podman needs no namespaces of its own")
def test_boxes_outlive_what_keeps_podmans_namespaces(there: Place) -> None:
    """A user's Podman has one process for that, and whoever kills it may not even know of us."""

    async def flow() -> box.Seen:
        there.launch()
        async with launching.connected(there) as runtime:
            first = await runtime.start(there.python(SLEEP, runtime="podman"))
            podmans.kill_pause()
            second = await runtime.start(there.python(SLEEP, runtime="podman", uid="u-2"))
            podmans.kill(there, " system service ")
            third = await runtime.start(there.python(SLEEP, runtime="podman", uid="u-3"))
            assert [seen.phase for seen in await runtime.list()] == ["Running"] * 3
            await runtime.kill(first.id, KILLED)
            for other in (second, third):
                await runtime.remove(other.id)
            return await launching.ended(runtime, first.id)

    seen = asyncio.run(flow())
    assert seen.exit is not None
    assert (seen.exit.code, seen.exit.signal, seen.exit.intent) == (137, signal.SIGKILL, KILLED)


def test_death_of_a_conmon_ends_no_box(there: Place) -> None:
    """Podman then knows no exit code, and the box still ends as Killed when it was."""

    async def flow() -> box.Seen:
        there.launch()
        async with launching.connected(there) as runtime:
            seen = await runtime.start(there.python(SLEEP, runtime="podman"))
            podmans.kill(there, "/conmon ")
            assert (await runtime.list())[0].phase == "Running"
            await runtime.kill(seen.id, KILLED)
            return await launching.ended(runtime, seen.id)

    seen = asyncio.run(flow())
    assert seen.exit is not None and seen.exit.intent == KILLED


def test_death_of_everything_at_once_leaves_nothing_to_the_next(there: Place) -> None:
    async def flow() -> None:
        there.launch()
        async with launching.connected(there) as runtime:
            await runtime.start(there.python(SLEEP, runtime="podman"))
        there.die()
        for victim in (" system service ", "/conmon "):
            podmans.kill(there, victim, needed=False)
        there.launch()
        async with launching.connected(there) as runtime:
            await runtime.release("default", "u-1")
            await launching.holds(lambda: not podmans.containers(there))

    asyncio.run(flow())
