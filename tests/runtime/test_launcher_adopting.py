"""Any death of the launcher, at any named moment: nothing doubled, lost, or left behind."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from agentk.api import errors
from agentk.runtime import box, jails
from agentk.runtime.launcher import boxes, crash
from tests.runtime import launching
from tests.runtime.launching import Place

pytestmark = launching.needs_jail
KILLED = box.Intent("Killed", "a test did")
SLEEP = "import time; print('up', flush=True); time.sleep(1000)"
COUNT = "import time\nfor n in range(100000): print(n, flush=True); time.sleep(0.001)"


@pytest.fixture
def there() -> Iterator[Place]:
    with launching.place() as made:
        yield made


async def start(there: Place, wanted: box.Box) -> box.Seen:
    async with launching.connected(there) as runtime:
        return await runtime.start(wanted)


async def see(there: Place, box_id: str) -> box.Seen:
    async with launching.connected(there) as runtime:
        return next(seen for seen in await runtime.list() if seen.id == box_id)


async def end_of(there: Place, box_id: str) -> box.Seen:
    async with launching.connected(there) as runtime:
        return await launching.ended(runtime, box_id)


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


def test_running_box_is_found_again_and_can_be_ended(there: Place) -> None:
    async def flow() -> tuple[box.Seen, box.Seen, box.Seen]:
        there.launch()
        before = await start(there, there.python(SLEEP))
        there.die()
        there.launch()
        after = await see(there, before.id)
        async with launching.connected(there) as runtime:
            await runtime.signal(before.id, signal.SIGTERM, KILLED)
            return before, after, await launching.ended(runtime, before.id)

    before, after, ended = asyncio.run(flow())
    assert (after.phase, after.process, after.started_at) == ("Running", before.process, before.started_at)
    assert ended.exit is not None
    assert (ended.exit.code, ended.exit.source, ended.exit.intent) == (143, "log", KILLED)
    assert ended.exit.message == ""  # the box itself kept what it wrote


def test_exit_code_of_a_box_that_ended_meanwhile_is_its_own(there: Place) -> None:
    async def flow() -> box.Seen:
        there.launch()
        code = "import os,time,sys\nwhile not os.path.exists('go'): time.sleep(0.005)\nprint('last words'); sys.exit(9)"
        seen = await start(there, there.python(code))
        there.die()
        assert seen.process is not None
        touch_in_box(seen.process.pid, "go")
        await launching.holds(lambda: not Path(f"/proc/{seen.process.pid}/cwd").exists())  # type: ignore[union-attr]
        there.launch()
        return await see(there, seen.id)

    seen = asyncio.run(flow())
    assert seen.exit is not None
    assert (seen.phase, seen.exit.code, seen.exit.source) == ("Exited", 9, "log")
    assert "output" in seen.exit.message  # nobody was there to read it, and it says so


def touch_in_box(pid: int, name: str) -> None:
    """As the guest would."""
    Path(f"/proc/{pid}/root/workspace/{name}").touch()
    os.chown(f"/proc/{pid}/root/workspace/{name}", -1, -1)


def test_daemon_keeps_last_words_while_the_launcher_is_away(there: Place) -> None:
    async def flow() -> box.Seen:
        there.launch()
        code = "import os,time\nwhile not os.path.exists('go'): time.sleep(0.005)\nprint('last words')"
        async with launching.connected(there) as runtime:
            seen = await runtime.start(there.python(code))
            assert seen.process is not None
            pid = seen.process.pid
            there.die()
            touch_in_box(pid, "go")
            await launching.holds(lambda: not Path(f"/proc/{pid}/cwd").exists())
            there.launch()
            return await launching.ended(runtime, seen.id)

    seen = asyncio.run(flow())
    assert there.log() == ["last words"]
    assert seen.exit is not None
    assert (seen.exit.code, seen.exit.message) == (0, "")


def test_no_line_is_lost_or_doubled_by_deaths_of_the_launcher(there: Place) -> None:
    async def flow() -> None:
        there.launch()
        seen = await start(there, there.python(COUNT, log=box.LogLimits(max_bytes=1 << 26)))
        for target in ("300", "600", "900", "1200"):
            await launching.logged(there, target)
            there.die()
            there.launch()
        async with launching.connected(there) as runtime:
            await runtime.kill(seen.id, KILLED)
            await launching.ended(runtime, seen.id)

    asyncio.run(flow())
    lines = there.log()
    assert lines == [str(n) for n in range(len(lines))]
    assert len(lines) > 1200


@pytest.mark.parametrize("point", [name for name in crash.POINTS if name.startswith("drain.")])
def test_no_line_is_lost_or_doubled_by_a_death_within_a_batch(there: Place, point: str) -> None:
    async def flow() -> None:
        there.launch(crash_at=point)
        code = "import time\nfor n in range(5000): print(n, flush=True)\ntime.sleep(1000)"
        await until_it_dies(there, lambda runtime: runtime.start(there.python(code)))
        there.launch()
        await launching.logged(there, "4999")

    asyncio.run(flow())
    assert there.log() == [str(n) for n in range(5000)]


def test_gate_and_loopback_are_handed_back_by_the_daemon(there: Place) -> None:
    code = (
        "import socket,time\nprint('up', flush=True)\n"
        "while True:\n  socket.create_connection(('127.0.0.1', 8700), 5).close()\n"
        "  s=socket.socket(socket.AF_UNIX); s.connect('/run/agentk/gate.sock'); s.close(); time.sleep(0.01)"
    )

    async def flow() -> box.Seen:
        there.launch()
        async with launching.connected(there) as runtime:
            seen = await runtime.start(there.python(code))
            await launching.logged(there, "up")
            await launching.holds(lambda: len(runtime.descriptors(seen.id)) == 5)
            inside = os.fstat(runtime.descriptors(seen.id)["inside"]).st_ino
            there.die()
            there.launch()
            await runtime.list()
            await launching.holds(lambda: len(runtime.descriptors(seen.id)) == 5)
            assert os.fstat(runtime.descriptors(seen.id)["inside"]).st_ino == inside
            return next(iter(await runtime.list()))

    assert asyncio.run(flow()).phase == "Running"


def test_doors_are_made_anew_when_nobody_kept_them(there: Place) -> None:
    async def flow() -> dict[str, int]:
        there.launch()
        seen = await start(there, there.python(SLEEP))
        there.die()
        there.launch()
        async with launching.connected(there) as runtime:
            await launching.holds(lambda: len(runtime.descriptors(seen.id)) == 5)
            result = await runtime.exec(
                seen.id,
                ["python", "-c", "import socket; socket.create_connection(('127.0.0.1', 8700), 5)"],
                60,
            )
            assert result.exit.code == 0, result.stderr
            return runtime.descriptors(seen.id)

    assert set(asyncio.run(flow())) == {"out", "err", "said", "gate", "inside"}


def test_box_that_ran_before_a_reboot_is_lost(there: Place) -> None:
    async def flow() -> box.Seen:
        there.launch()
        seen = await start(there, there.python(SLEEP))
        async with launching.connected(there) as runtime:
            await runtime.kill(seen.id, KILLED)
            await launching.ended(runtime, seen.id)
        there.die()
        forget_end(there, seen.id)
        there.launch()
        return await see(there, seen.id)

    seen = asyncio.run(flow())
    assert seen.exit is not None
    assert (seen.phase, seen.exit.code, seen.exit.source) == ("Lost", None, "none")
    assert "restarted" in seen.exit.message


def forget_end(there: Place, box_id: str) -> None:
    """As if the machine had gone down while the box ran."""
    records = boxes.Records(there.state / "boxes")
    handle = records.handle(box_id)
    assert handle is not None
    for process in (handle["keeper"], handle["guest"]):
        process["boot_id"] = "another"
    records.write_handle(box_id, handle)
    for name in ("exit.json", "kill.json", "nsjail.log"):
        (records.path(box_id) / name).unlink()


@pytest.mark.parametrize("point", [name for name in crash.POINTS if name.startswith("start.")])
def test_death_while_starting_leaves_all_of_a_box_or_nothing(there: Place, point: str) -> None:
    async def flow() -> list[box.Seen]:
        there.launch(crash_at=point)
        await until_it_dies(there, lambda runtime: runtime.start(there.python(SLEEP)))
        there.launch()
        async with launching.connected(there) as runtime:
            for _ in range(
                1000
            ):  # not told to go on, it is ending by itself, and a moment later it is forgotten
                found = list(await runtime.list())
                if not found or point != "start.after-handle":
                    break
                await asyncio.sleep(0.01)
            return found

    found = asyncio.run(flow())
    if point == "start.after-release":
        assert [seen.id for seen in found] == ["u-1-1"]
    else:
        assert found == []
        assert not list((there.state / "boxes").glob("u-1-1"))
        assert not list(
            Path("/sys/fs/cgroup").glob(f"*/agentk-{there.instance}/default/u-1/box/cgroup.procs")
        )


@pytest.mark.parametrize("point", [name for name in crash.POINTS if name.startswith(("signal.", "end."))])
def test_death_while_ending_keeps_the_reason_and_the_code(there: Place, point: str) -> None:
    async def flow() -> box.Seen:
        async def act(runtime: jails.Jails) -> None:
            await runtime.start(there.python(SLEEP))
            await runtime.signal("u-1-1", signal.SIGTERM, KILLED)

        there.launch(crash_at=point)
        await until_it_dies(there, act)
        there.launch()
        async with launching.connected(there) as runtime:
            await runtime.signal("u-1-1", signal.SIGTERM, KILLED)  # as control does, which saw no answer
            return await launching.ended(runtime, "u-1-1")

    seen = asyncio.run(flow())
    assert seen.exit is not None
    assert (seen.exit.code, seen.exit.intent) == (143, KILLED)


@pytest.mark.parametrize("point", [name for name in crash.POINTS if name.startswith(("remove.", "release."))])
def test_death_while_removing_is_made_good_by_removing_again(there: Place, point: str) -> None:
    async def flow() -> None:
        async def act(runtime: jails.Jails) -> None:
            await runtime.start(there.python(SLEEP))
            await runtime.release("default", "u-1")

        there.launch(crash_at=point)
        await until_it_dies(there, act)
        there.launch()
        async with launching.connected(there) as runtime:
            await runtime.release("default", "u-1")
            assert await runtime.list() == []

    asyncio.run(flow())
    assert not list((there.run / "doors").iterdir())
    assert not list((there.state / "boxes").glob("u-1*"))
    assert not list((there.state / "logs").iterdir())
    assert not list((there.state / "workspaces").glob("u-1"))


@pytest.mark.parametrize("point", [name for name in crash.POINTS if name.startswith("adopt.")])
def test_death_while_adopting_leaves_the_same_to_adopt(there: Place, point: str) -> None:
    async def flow() -> list[tuple[str, str]]:
        there.launch()
        await start(there, there.python(SLEEP))
        await start(there, there.make("true", uid="u-2"))
        await end_of(there, "u-2-1")
        there.die()
        (there.state / "boxes" / "half-1").mkdir()
        there.launch(crash_at=point, wait=False)
        assert there.process is not None
        assert there.process.wait(launching.WAIT_SECONDS) == -signal.SIGKILL
        there.launch()
        async with launching.connected(there) as runtime:
            return sorted((seen.id, seen.phase) for seen in await runtime.list())

    assert asyncio.run(flow()) == [("u-1-1", "Running"), ("u-2-1", "Exited")]
    assert not (there.state / "boxes" / "half-1").exists()


def test_tools_of_an_older_version_stay_while_a_box_uses_them(there: Place) -> None:
    async def flow() -> box.ExecResult:
        there.launch()
        seen = await start(there, there.python(SLEEP))
        staged = there.state / "staged"
        used = next(iter(staged.iterdir()))
        (staged / "0123").mkdir()
        there.die()
        there.launch()
        async with launching.connected(there) as runtime:
            await runtime.list()
            assert list(staged.iterdir()) == [used]
            return await runtime.exec(seen.id, ["/opt/agentk/bin/python", "-c", "print(1)"], 60)

    assert asyncio.run(flow()).stdout == b"1\n"


def test_command_whose_launcher_died_is_ended(there: Place) -> None:
    async def flow() -> None:
        there.launch()
        async with launching.connected(there) as runtime:
            seen = await runtime.start(there.python(SLEEP))
            running = asyncio.ensure_future(
                runtime.exec(seen.id, ["sh", "-c", "touch begun; sleep 1000"], 500)
            )
            await launching.logged(there, "up")
            assert seen.process is not None
            begun = Path(f"/proc/{seen.process.pid}/root/workspace/begun")
            await launching.holds(begun.exists)
            there.die()
            with pytest.raises(errors.OutcomeUnknown):
                await running
            there.launch()
            await runtime.list()
            await launching.holds(lambda: not sleepers(there))  # a keeper ends a moment after what it kept

    asyncio.run(flow())


def sleepers(there: Place) -> list[str]:
    """Keepers of commands that still run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            target = str(path.readlink())
        except OSError:
            continue
        if target.startswith(f"{there.state}/boxes/u-1-1-exec"):
            found.append(target)
    return found
