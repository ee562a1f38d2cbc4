"""Commands whose output is heard as it comes, and what becomes of them when somebody dies."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from agentk.api import errors
from agentk.runtime import box, jails
from agentk.runtime.launcher import calling, exec_streams, wire
from tests.runtime import launching
from tests.runtime.launching import Place

pytestmark = launching.needs_jail
SLEEP = "import time; print('up', flush=True); time.sleep(1000)"
MIB = 1 << 20
# Counts what it has written in a file beside it, and never ends.
FLOOD = (
    "import os\n"
    "done = os.open('/workspace/written', os.O_RDWR | os.O_CREAT)\n"
    "n = 0\n"
    "while True:\n"
    "  n += os.write(1, b'x' * 65536)\n"
    "  os.pwrite(done, b'%020d' % n, 0)\n"
)


@pytest.fixture
def there() -> Iterator[Place]:
    with launching.place() as made:
        made.launch()
        yield made


@contextlib.asynccontextmanager
async def running(there: Place, **told: Any) -> AsyncIterator[tuple[jails.Jails, box.Seen]]:
    async with launching.connected(there) as runtime:
        yield runtime, await runtime.start(there.python(SLEEP, **told))


def workspace(seen: box.Seen) -> Path:
    """The agent's, as this test may look into it."""
    assert seen.process is not None
    return Path(f"/proc/{seen.process.pid}/root/workspace")


def written(seen: box.Seen) -> int:
    try:
        return int((workspace(seen) / "written").read_text() or 0)
    except OSError:
        return 0


def keepers(there: Place) -> list[str]:
    """Directories of commands, gone when they are."""
    return [path.name for path in (there.state / "boxes").glob("*-exec-*")]


class Heard:
    def __init__(self) -> None:
        self.streams = {"out": bytearray(), "err": bytearray()}
        self.began = asyncio.Event()
        self.may_go_on = asyncio.Event()
        self.may_go_on.set()

    async def __call__(self, stream: str, data: bytes) -> None:
        self.streams[stream] += data
        self.began.set()
        await self.may_go_on.wait()


async def stands_still(seen: box.Seen) -> int:
    """What a flood has written, once it writes no more."""
    before = -1
    while before != written(seen) or before <= 0:
        before = written(seen)
        await asyncio.sleep(0.2)
    return before


def test_output_comes_while_the_command_runs_and_is_not_repeated(there: Place) -> None:
    script = "mkfifo f; echo one; echo two >&2; read -r x <f; echo $x; exit 3"

    async def flow() -> tuple[box.ExecResult, Heard]:
        async with running(there) as (runtime, seen):
            heard = Heard()
            call = asyncio.ensure_future(runtime.exec(seen.id, ["sh", "-c", script], 60, on_output=heard))
            await launching.holds(lambda: bytes(heard.streams["err"]) == b"two\n")
            assert not call.done()
            assert (await runtime.exec(seen.id, ["sh", "-c", "echo three >f"], 60)).exit.code == 0
            return await call, heard

    result, heard = asyncio.run(flow())
    assert (result.exit.code, result.stdout, result.stderr) == (3, b"", b"")
    assert heard.streams == {"out": b"one\nthree\n", "err": b"two\n"}


def test_all_of_it_comes_however_much_it_is(there: Place) -> None:
    code = "import sys\nfor n in range(1 << 20): sys.stdout.write('%08d' % n)"

    async def flow() -> tuple[box.ExecResult, Heard]:
        async with running(there) as (runtime, seen):
            heard = Heard()
            return await runtime.exec(seen.id, ["python", "-c", code], 120, on_output=heard), heard

    result, heard = asyncio.run(flow())
    assert (result.exit.code, result.truncated) == (0, False)
    assert heard.streams["out"] == b"".join(b"%08d" % n for n in range(1 << 20))


def test_a_bound_holds_for_what_comes_too(there: Place) -> None:
    async def flow() -> tuple[box.ExecResult, Heard]:
        async with running(there) as (runtime, seen):
            heard = Heard()
            argv = ["sh", "-c", "head -c 300000 /dev/zero; exit 4"]
            return await runtime.exec(seen.id, argv, 60, on_output=heard, output_bytes=100_000), heard

    result, heard = asyncio.run(flow())
    assert (result.exit.code, result.truncated, len(heard.streams["out"])) == (4, True, 100_000)


def test_one_that_is_not_heard_waits_and_goes_on(there: Place) -> None:
    async def flow() -> None:
        async with running(there) as (runtime, seen):
            heard = Heard()
            heard.may_go_on.clear()
            call = asyncio.ensure_future(
                runtime.exec(seen.id, ["python", "-c", FLOOD], 500, exec_id="flood", on_output=heard)
            )
            await heard.began.wait()
            held = await stands_still(seen)
            assert held <= exec_streams.WINDOW_BYTES + 4 * 65536
            assert (await runtime.exec(seen.id, ["echo", "x"], 60)).stdout == b"x\n"
            heard.may_go_on.set()
            await launching.holds(lambda: written(seen) > held + 4 * MIB)
            await runtime.exec_cancel(seen.id, "flood")
            assert (await call).cancelled

    asyncio.run(flow())


def test_a_connection_that_is_not_read_holds_the_command_and_nobody_else(there: Place) -> None:
    """A daemon that allows everything and reads nothing: the launcher keeps a bound, and serves others."""

    async def flow() -> None:
        async with running(there) as (runtime, seen):
            with socket.socket(socket.AF_UNIX) as deaf:
                deaf.connect(str(there.socket))
                argv = ["env", "python", "-c", FLOOD]  # after a `python` one would wait for a minute
                told = {"id": 1, "verb": "exec", "box_id": seen.id, "argv": argv}
                told |= {"timeout_seconds": 500, "exec_id": "flood", "stream": True}
                more = {"id": 2, "verb": "exec_more", "box_id": seen.id, "exec_id": "flood", "bytes": 1 << 30}
                deaf.sendall(b"".join(json.dumps(one).encode() + b"\n" for one in (told, more)))
                held = await stands_still(seen)
                assert held < 3 * calling.FULL_BYTES
                assert (await runtime.exec(seen.id, ["echo", "x"], 60)).stdout == b"x\n"
                read = 0
                while read < 8 * MIB:
                    read += len(deaf.recv(MIB))
                await launching.holds(lambda: written(seen) > held)
            await launching.holds(lambda: not keepers(there))
            assert await stands_still(seen) == written(seen)

    asyncio.run(flow())


def test_a_command_ends_with_the_connection_it_was_asked_on(there: Place) -> None:
    async def flow() -> None:
        async with running(there) as (runtime, seen):
            async with launching.connected(there) as other:
                argv = ["sh", "-c", "touch begun; sleep 1000 & sleep 1000"]
                call = asyncio.ensure_future(other.exec(seen.id, argv, 500))
                await launching.holds((workspace(seen) / "begun").exists)
            with pytest.raises(errors.OutcomeUnknown):
                await call
            await launching.holds(lambda: not keepers(there))
            assert [one.phase for one in await runtime.list()] == ["Running"]

    asyncio.run(flow())


@pytest.mark.parametrize("way", ["cancelled", "failed", "late"])
def test_a_command_ends_when_its_caller_gives_it_up(there: Place, way: str) -> None:
    async def fails(stream: str, data: bytes) -> None:
        raise LookupError(stream)

    async def flow() -> None:
        async with running(there) as (runtime, seen):
            argv = ["sh", "-c", "touch begun; echo x; sleep 1000"]
            seconds = 500.0
            hears = fails if way == "failed" else None
            call = asyncio.ensure_future(runtime.exec(seen.id, argv, seconds, on_output=hears))
            await launching.holds((workspace(seen) / "begun").exists)
            if way == "late":
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(call, 0.01)
            else:
                if way == "cancelled":
                    call.cancel()
                with pytest.raises((LookupError, asyncio.CancelledError)):
                    await call
            await launching.holds(lambda: not keepers(there))
            assert (await runtime.exec(seen.id, ["echo", "x"], 60)).stdout == b"x\n"

    asyncio.run(flow())


@pytest.mark.parametrize("end", ["kill", "remove", "release", "exit"])
def test_a_command_ends_with_its_box(there: Place, end: str) -> None:
    async def flow() -> box.ExecResult:
        async with launching.connected(there) as runtime:
            code = "import os, time\nwhile not os.path.exists('/workspace/leave'): time.sleep(0.01)"
            seen = await runtime.start(there.python(code))
            begun = workspace(seen) / "begun"
            argv = ["sh", "-c", "touch begun; sleep 1000"]
            call = asyncio.ensure_future(runtime.exec(seen.id, argv, 500))
            await launching.holds(begun.exists)
            if end == "kill":
                await runtime.kill(seen.id, box.Intent("Killed"))
            elif end == "remove":
                await runtime.remove(seen.id)
            elif end == "release":
                await runtime.release("default", "u-1")
            else:
                assert (await runtime.exec(seen.id, ["touch", "leave"], 60)).exit.code in (0, 137)
            result = await call
            await launching.holds(lambda: not keepers(there))
            return result

    assert asyncio.run(flow()).cancelled


def test_the_launchers_death_while_a_command_speaks_leaves_nothing(there: Place) -> None:
    async def flow() -> Heard:
        async with running(there) as (runtime, seen):
            heard = Heard()
            call = asyncio.ensure_future(
                runtime.exec(
                    seen.id, ["python", "-c", FLOOD], 500, exec_id="flood", on_output=heard, stdin=b"x" * MIB
                )
            )
            await launching.holds(lambda: len(heard.streams["out"]) > MIB)
            there.die()
            with pytest.raises(errors.OutcomeUnknown):
                await call
            there.launch()
            assert [one.phase for one in await runtime.list()] == ["Running"]
            await runtime.exec_cancel(seen.id, "flood")
            await launching.holds(lambda: not keepers(there))
            await stands_still(seen)
            result = await runtime.exec(seen.id, ["echo", "x"], 60, exec_id="flood")
            assert (result.stdout, result.cancelled) == (b"x\n", False)
            return heard

    assert set(asyncio.run(flow()).streams["out"]) == {ord("x")}


class Deaf:
    """A connection that nobody reads."""

    def __init__(self) -> None:
        self.waiting_bytes = calling.FULL_BYTES
        self.sent: list[wire.Message] = []

    def send(self, message: wire.Message, fds: Sequence[int] = ()) -> None:
        self.sent.append(message)


def test_an_answer_waits_for_room_and_comes_once() -> None:
    line = Deaf()
    caller = calling.Caller(line, 7)
    caller.answer({"a": 1})
    assert (line.sent, caller.answered) == ([], False)
    line.waiting_bytes = 0
    caller.room()
    caller.room()
    assert (line.sent, caller.answered) == ([{"id": 7, "ok": {"a": 1}}], True)


def test_nobody_is_answered_who_left() -> None:
    line, ended = Deaf(), []
    caller = calling.Caller(line, 7)
    caller.on_gone = lambda: ended.append(True)
    caller.answer({"a": 1})
    caller.gone()
    line.waiting_bytes = 0
    caller.room()
    assert (line.sent, ended) == ([], [True])


def test_of_one_that_was_answered_nothing_stays_when_its_launcher_dies_then() -> None:
    async def flow(there: Place) -> None:
        async with launching.connected(there) as runtime:
            made = there.make("sleep", "1000")
            await runtime.start(made)
            assert (await runtime.exec(made.id, ["echo", "said"], 60)).stdout == b"said\n"
            assert there.process is not None
            await asyncio.to_thread(there.process.wait)
            there.launch()
            await launching.holds(lambda: not launching.leaves(there, made, "exec-"))
            await launching.holds(lambda: not list((there.state / "boxes").glob("*-exec-*")))
            assert (await runtime.exec(made.id, ["/bin/false"], 60)).exit.code == 1

    with launching.place() as there:
        there.launch(crash_at="exec.after-answer")
        asyncio.run(flow(there))
