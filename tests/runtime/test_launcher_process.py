"""The process runtime: the same verbs and the same truth, without a jail."""

import asyncio
import base64
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentk.runtime import box
from tests.runtime import launching
from tests.runtime.launching import Place

KILLED = box.Intent("Killed", "a test did")


@pytest.fixture
def there() -> Iterator[Place]:
    with launching.place() as made:
        made.launch()
        yield made


def shell(there: Place, script: str, **told: object) -> box.Box:
    return there.make("sh", "-c", script, runtime="process", enforcement="BestEffort", **told)


async def run(there: Place, wanted: box.Box) -> box.Exit:
    async with launching.connected(there) as runtime:
        await runtime.start(wanted)
        ended = (await launching.ended(runtime, wanted.id)).exit
        assert ended is not None
        return ended


def test_exit_code_and_output_are_the_agents(there: Place) -> None:
    ended = asyncio.run(run(there, shell(there, "echo out; echo err >&2; exit 7")))
    assert (ended.code, ended.source) == (7, "wait")
    assert sorted(there.log()) == ["err", "out"]


def test_what_cannot_run_is_told_as_a_shell_does(there: Place) -> None:
    wanted = there.make("no-such-thing", runtime="process", enforcement="BestEffort")
    assert asyncio.run(run(there, wanted)).code == 127


def test_files_of_its_working_directory_are_there(there: Place) -> None:
    mount = box.Mount("files", "/app", files={"a/note": base64.b64encode(b"hello").decode()})
    asyncio.run(run(there, shell(there, "cat a/note", mounts=[mount], cwd="/app")))
    assert there.log() == ["hello"]


def test_workspace_is_where_it_starts_and_stays(there: Place) -> None:
    asyncio.run(run(there, shell(there, "echo kept > note")))
    asyncio.run(run(there, shell(there, "cat note", attempt=2)))
    assert there.log(attempt=2) == ["kept"]


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_runs_as_its_own_uid_with_root_away(there: Place) -> None:
    asyncio.run(run(there, shell(there, "id -u; id -G")))
    assert there.log() == [str(there.host_uid)] * 2


def test_kill_takes_what_left_its_session(there: Place) -> None:
    async def flow() -> int:
        async with launching.connected(there) as runtime:
            wanted = shell(there, "setsid sleep 1000 & echo $!; sleep 1000")
            await runtime.start(wanted)
            await launching.holds(lambda: bool(there.log()))
            pid = int(there.log()[0])
            await runtime.kill(wanted.id, KILLED)
            await launching.ended(runtime, wanted.id)
            await launching.holds(lambda: not Path(f"/proc/{pid}/cwd").exists())
            return pid

    assert asyncio.run(flow()) > 1


def test_sigterm_reaches_the_agent_and_not_its_keeper(there: Place) -> None:
    async def flow() -> box.Exit | None:
        async with launching.connected(there) as runtime:
            wanted = shell(there, "trap 'echo bye; exit 5' TERM; echo up; while :; do sleep 0.01; done")
            await runtime.start(wanted)
            await launching.logged(there, "up")
            await runtime.signal(wanted.id, signal.SIGTERM, KILLED)
            return (await launching.ended(runtime, wanted.id)).exit

    ended = asyncio.run(flow())
    assert ended is not None
    assert (ended.code, ended.intent) == (5, KILLED)
    assert there.log() == ["up", "bye"]


def test_exit_code_is_known_to_the_next_launcher(there: Place) -> None:
    async def flow() -> box.Exit | None:
        async with launching.connected(there) as runtime:
            wanted = shell(there, "echo up; while [ ! -e go ]; do sleep 0.01; done; exit 9")
            seen = await runtime.start(wanted)
            await launching.logged(there, "up")
            assert seen.process is not None
            here = Path(f"/proc/{seen.process.pid}/cwd")
            there.die()
            (here / "go").touch()
            await launching.holds(lambda: not here.exists())
            there.launch()
            return (await launching.ended(runtime, wanted.id)).exit

    ended = asyncio.run(flow())
    assert ended is not None
    assert (ended.code, ended.source) == (9, "log")


def test_exec_runs_beside_it(there: Place) -> None:
    async def flow() -> box.ExecResult:
        async with launching.connected(there) as runtime:
            wanted = shell(there, "echo x > note; echo up; sleep 1000")
            await runtime.start(wanted)
            await launching.logged(there, "up")
            return await runtime.exec(wanted.id, ["sh", "-c", "cat note; exit 3"], 60)

    result = asyncio.run(flow())
    assert (result.exit.code, result.stdout) == (3, b"x\n")


def test_exec_without_a_jail_is_fed_heard_and_taken_back(there: Place) -> None:
    async def flow() -> tuple[box.ExecResult, bytes, box.ExecResult]:
        async with launching.connected(there) as runtime:
            wanted = shell(there, "echo up; sleep 1000")
            await runtime.start(wanted)
            await launching.logged(there, "up")
            await runtime.exec(wanted.id, ["mkdir", "d"], 60)
            script = 'cat; echo "$A"; pwd; ulimit -n'
            told = {"env": {"A": "b"}, "cwd": "/workspace/d", "limits": box.Limits(open_files=64)}
            fed = await runtime.exec(wanted.id, ["sh", "-c", script], 60, stdin=b"in\n", **told)
            heard, begun = bytearray(), asyncio.Event()

            async def hear(stream: str, data: bytes) -> None:
                heard.extend(data)
                begun.set()

            argv = ["sh", "-c", "setsid sleep 1000 & echo begun; sleep 1000"]
            call = asyncio.ensure_future(runtime.exec(wanted.id, argv, 500, exec_id="mine", on_output=hear))
            await begun.wait()
            await runtime.exec_cancel(wanted.id, "mine")
            return fed, bytes(heard), await call

    fed, heard, cancelled = asyncio.run(flow())
    lines = fed.stdout.decode().splitlines()
    assert lines[:2] == ["in", "b"] and lines[2].endswith("/d") and lines[3] == "64", fed
    assert (heard, cancelled.cancelled) == (b"begun\n", True)
