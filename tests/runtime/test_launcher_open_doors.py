"""The door of a box without a jail: it is reached from there, and by nobody else."""

import asyncio
import contextlib
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentk.runtime import box, jails
from agentk.runtime.launcher import doors
from tests.runtime import launching
from tests.runtime.launching import Place

KILLED = box.Intent("Killed", "a test did")
ROOT = os.geteuid() == 0
CALL = """
import os, socket
from agentk import sdk
import agentk.sdk.client
caller = socket.socket(socket.AF_UNIX)
caller.connect(os.environ["AGENTK_SOCKET"])
print(caller.recv(10).decode(), agentk.sdk.__path__[0], flush=True)
"""
# What somebody else tries: the path is known to it.
TRY = """
import errno, os, socket, sys
gate = sys.argv[1]
def tried(what, act):
    try:
        act()
        print(what, "done", flush=True)
    except OSError as error:
        print(what, errno.errorcode[error.errno], flush=True)
tried("connect", lambda: socket.socket(socket.AF_UNIX).connect(gate))
tried("stat", lambda: os.stat(gate))
tried("list", lambda: os.listdir(os.path.dirname(gate)))
tried("remove", lambda: os.unlink(gate))
tried("others", lambda: os.listdir(os.path.dirname(os.path.dirname(gate))))
tried("make", lambda: os.mkdir(os.path.dirname(gate) + "-2"))
"""
TRIED = ("connect", "stat", "list", "remove", "others", "make")


@pytest.fixture
def there() -> Iterator[Place]:
    with launching.place() as made:
        made.launch()
        yield made


def program(there: Place, code: str, *words: str, **told: object) -> box.Box:
    settings = {"runtime": "process", "enforcement": "BestEffort", **told}
    return there.make(sys.executable if not ROOT else "python3", "-c", code, *words, **settings)


def sleeper(there: Place, **told: object) -> box.Box:
    return program(there, "import time; print('up', flush=True); time.sleep(1000)", **told)


def gate(there: Place, uid: str = "u-1") -> Path:
    folder = doors.open_folder(there.run, there.instance, rootless=not ROOT)
    return folder / uid / doors.GATE


async def answer(runtime: jails.Jails, box_id: str) -> None:
    """As the daemon's door does, once."""
    await launching.holds(lambda: "gate" in runtime.descriptors(box_id))
    assert set(runtime.listeners()[box_id][1]) == {"gate"}, "nothing of it listens on the host's loopback"
    with socket.socket(fileno=os.dup(runtime.descriptors(box_id)["gate"])) as listener:
        accepted, _ = await asyncio.get_running_loop().sock_accept(listener)
        accepted.sendall(b"welcome")
        accepted.close()


def test_its_program_calls_at_the_path_it_is_told(there: Place) -> None:
    async def flow() -> None:
        async with launching.connected(there) as runtime:
            wanted = program(there, CALL, env={"PYTHONPATH": "/own/lib"})
            await runtime.start(wanted)
            await answer(runtime, wanted.id)
            ended = (await launching.ended(runtime, wanted.id)).exit
            assert ended is not None and ended.code == 0, there.log()

    asyncio.run(flow())
    assert there.log() == [f"welcome {gate(there).parent}/lib/agentk/sdk"]
    assert not gate(there).parent.exists() and not gate(there).parent.parent.exists(), "gone with its box"


def test_a_command_beside_it_has_the_same_door(there: Place) -> None:
    async def flow() -> box.ExecResult:
        async with launching.connected(there) as runtime:
            wanted = sleeper(there)
            await runtime.start(wanted)
            await launching.logged(there, "up")
            running = asyncio.ensure_future(runtime.exec(wanted.id, [wanted.argv[0], "-c", CALL], 60))
            await answer(runtime, wanted.id)
            return await running

    result = asyncio.run(flow())
    assert result.stdout.startswith(b"welcome "), result


def test_a_new_launcher_makes_a_door_that_nobody_kept_at_the_same_place(there: Place) -> None:
    async def flow() -> box.Exit | None:
        go = there.state / "go"
        code = f"import os, time\nprint('up', flush=True)\nwhile not os.path.exists({str(go)!r}): time.sleep(0.01)\n"
        async with launching.connected(there) as runtime:
            wanted = program(there, code + CALL)
            await runtime.start(wanted)
            await launching.logged(there, "up")
        there.die()
        there.launch()
        async with launching.connected(there) as runtime:
            await launching.holds(lambda: "gate" in runtime.descriptors(wanted.id))
            go.touch()
            await answer(runtime, wanted.id)
            return (await launching.ended(runtime, wanted.id)).exit

    ended = asyncio.run(flow())
    assert ended is not None and ended.code == 0, there.log()


def test_a_box_that_cannot_be_made_leaves_no_door(there: Place) -> None:
    async def flow() -> None:
        async with launching.connected(there) as runtime:
            storage = box.Limits(storage_bytes=1 << 20)
            with pytest.raises(Exception, match="limits no disk"):
                await runtime.start(sleeper(there, enforcement="Strict", limits=storage))

    asyncio.run(flow())
    assert not gate(there).parent.parent.exists()


@pytest.mark.parametrize(
    "point", ["start.after-door", "start.after-fork", "start.after-handle", "end.after-exit"]
)
def test_no_death_of_the_launcher_leaves_a_door_behind(there: Place, point: str) -> None:
    async def flow() -> None:
        wanted = program(there, "print('ran')")
        launcher = there.process
        assert launcher is not None
        async with launching.connected(there) as runtime:
            asking = asyncio.ensure_future(runtime.start(wanted))
            await launching.holds(lambda: launcher.poll() is not None)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        there.launch()
        async with launching.connected(there) as runtime:
            await runtime.list()  # it has looked at what there was
            await launching.holds(lambda: not gate(there).parent.parent.exists())

    there.die()
    there.launch(crash_at=point)
    asyncio.run(flow())


async def outcome(there: Place, stranger: box.Box) -> list[str]:
    """What a box says that tries the door of another, which runs."""
    async with launching.connected(there) as runtime:
        await runtime.start(sleeper(there))
        await launching.logged(there, "up")
        await runtime.start(stranger)
        await launching.ended(runtime, stranger.id)
        assert gate(there).is_socket()
        return there.log(uid="u-2")


@pytest.mark.root
@pytest.mark.skipif(not ROOT, reason="without root all boxes without a jail have one uid")
def test_another_box_without_a_jail_does_not_pass(there: Place) -> None:
    stranger = program(there, TRY, str(gate(there)), uid="u-2")
    object.__setattr__(stranger, "host_uid", there.host_uid + 1)
    assert asyncio.run(outcome(there, stranger)) == [f"{what} EACCES" for what in TRIED]


@pytest.mark.jail
@pytest.mark.skipif(bool(launching.why_no_jail()), reason=launching.why_no_jail() or "-")
def test_a_jailed_box_does_not_see_it(there: Place) -> None:
    stranger = there.make("python", "-c", TRY, str(gate(there)), uid="u-2")
    told = asyncio.run(outcome(there, stranger))
    assert [line.split()[1] for line in told[:-1]] == ["ENOENT"] * (len(TRIED) - 1), told
    assert told[-1] in ("make ENOENT", "make EROFS")


@pytest.mark.root
@pytest.mark.skipif(not ROOT, reason="needs root")
def test_other_users_of_the_machine_do_not_pass(there: Place) -> None:
    async def flow() -> str:
        async with launching.connected(there) as runtime:
            await runtime.start(sleeper(there))
            await launching.logged(there, "up")
            assert stat.S_IMODE(gate(there).stat().st_mode) == 0o600
            assert stat.S_IMODE(gate(there).parent.stat().st_mode) == 0o710
            command = ["python3", "-c", TRY, str(gate(there))]
            tried = await asyncio.to_thread(
                subprocess.run,
                command,
                user=65534,
                group=65534,
                extra_groups=[],
                capture_output=True,
                text=True,
            )
            return tried.stdout

    assert asyncio.run(flow()).splitlines() == [f"{what} EACCES" for what in TRIED]


@pytest.mark.root
@pytest.mark.skipif(not ROOT, reason="needs root")
def test_no_door_is_made_where_another_user_writes(there: Place) -> None:
    folder = gate(there).parent.parent
    doors.OPEN.mkdir(mode=0o711, exist_ok=True)
    folder.mkdir()
    os.chown(folder, 65534, 65534)

    async def flow() -> None:
        async with launching.connected(there) as runtime:
            with pytest.raises(Exception, match="nobody but root writes"):
                await runtime.start(sleeper(there))

    try:
        asyncio.run(flow())
    finally:
        with contextlib.suppress(FileNotFoundError):  # empty, it goes with the last door
            folder.rmdir()
