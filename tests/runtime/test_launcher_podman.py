"""Podman boxes of a real launcher: they start, speak, end and go, and nothing of them stays."""

import asyncio
import base64
import os
from collections.abc import Iterator

import pytest

from agentk.api import errors
from agentk.runtime import box
from tests.runtime import launching, podmans
from tests.runtime.launching import Place

pytestmark = podmans.needs_podman
KILLED = box.Intent("Killed", "a test did")
SLEEP = "import time; print('up', flush=True); time.sleep(1000)"


@pytest.fixture
def there() -> Iterator[Place]:
    with launching.place() as made:
        made.launch()
        yield made
    podmans.assert_nothing_is_left(made)


def test_box_runs_and_its_end_is_its_own(there: Place) -> None:
    async def flow() -> box.Seen:
        async with launching.connected(there) as runtime:
            code = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(7)"
            seen = await runtime.start(there.python(code, runtime="podman"))
            assert (seen.phase, seen.process is not None) == ("Running", True)
            return await launching.ended(runtime, seen.id)

    seen = asyncio.run(flow())
    assert seen.exit is not None
    assert (seen.phase, seen.exit.code, seen.exit.source) == ("Exited", 7, "log")
    assert sorted(there.log()) == ["err", "out"]


def test_removed_box_is_gone_from_podman_and_from_the_groups(there: Place) -> None:
    async def flow() -> None:
        async with launching.connected(there) as runtime:
            seen = await runtime.start(there.python(SLEEP, runtime="podman"))
            await launching.logged(there, "up")
            assert len(podmans.containers(there)) == 1
            await runtime.remove(seen.id)
            assert seen.process is not None
            await launching.holds(lambda: not os.path.exists(f"/proc/{seen.process.pid}"))
            await launching.holds(lambda: not podmans.containers(there))
            assert await runtime.list() == []

    asyncio.run(flow())


def test_signals_reach_the_program_and_its_answer_is_its_exit(there: Place) -> None:
    async def flow() -> box.Seen:
        async with launching.connected(there) as runtime:
            code = (
                "import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(5))\n"
                "print('up', flush=True)\ntime.sleep(1000)"
            )
            seen = await runtime.start(there.python(code, runtime="podman"))
            await launching.logged(there, "up")
            await runtime.signal(seen.id, 15, KILLED)
            return await launching.ended(runtime, seen.id)

    seen = asyncio.run(flow())
    assert seen.exit is not None
    assert (seen.exit.code, seen.exit.intent) == (5, KILLED)


def test_too_much_memory_is_told_as_such(there: Place) -> None:
    there.need_cgroups()

    async def flow() -> box.Seen:
        async with launching.connected(there) as runtime:
            limits = box.Limits(memory_bytes=48 << 20, pids=64)
            code = "hog = bytearray(256 << 20); print('never')"
            seen = await runtime.start(there.python(code, runtime="podman", limits=limits))
            return await launching.ended(runtime, seen.id)

    seen = asyncio.run(flow())
    assert seen.exit is not None and seen.exit.counters.oom_kills
    assert (seen.exit.code, seen.exit.signal) == (137, 9)


def test_frozen_box_stands_still_and_goes_on(there: Place) -> None:
    there.need_cgroups()

    async def flow() -> None:
        async with launching.connected(there) as runtime:
            code = "import time\nfor n in range(100000): print(n, flush=True); time.sleep(0.001)"
            seen = await runtime.start(there.python(code, runtime="podman"))
            await launching.logged(there, "20")
            await runtime.freeze(seen.id)
            assert (await runtime.list())[0].frozen
            before = (await runtime.counters(seen.id)).cpu_usec
            assert (await runtime.counters(seen.id)).cpu_usec == before
            count = len(there.log())
            await runtime.thaw(seen.id)
            await launching.logged(there, str(count + 50))

    asyncio.run(flow())


def test_secrets_are_neither_with_podman_nor_in_the_record(there: Place) -> None:
    async def flow() -> str:
        async with launching.connected(there) as runtime:
            files = {"token": base64.b64encode(b"file-canary").decode()}
            mount = box.Mount("files", "/secrets", files=files, mode=0o400)
            said = "print(os.environ['TOKEN'], open('/secrets/token').read(), flush=True)"
            code = f"import os, time; {said}; time.sleep(999)"
            wanted = there.python(code, runtime="podman", env={"TOKEN": "env-canary"}, mounts=[mount])
            seen = await runtime.start(wanted)
            await launching.logged(there, "env-canary file-canary")
            told = podmans.inspect(there)
            record = "".join(path.read_text() for path in (there.state / "boxes" / seen.id).glob("*.json"))
            return told + record

    assert "canary" not in asyncio.run(flow())


def test_an_oci_runtime_that_is_not_there_is_told(there: Place) -> None:
    async def flow() -> None:
        async with launching.connected(there) as runtime:
            with pytest.raises(errors.RuntimeRefused, match="no-such-runtime"):
                await runtime.start(there.python(SLEEP, runtime="podman", oci_runtime="no-such-runtime"))
            assert await runtime.list() == []
            with pytest.raises(errors.Invalid, match="OCI runtime"):
                await runtime.start(there.python(SLEEP, runtime="podman", oci_runtime="/tmp/mine"))

    asyncio.run(flow())


def test_the_doors_of_a_box_listen_before_its_first_instruction(there: Place) -> None:
    code = (
        "import socket\nsocket.create_connection(('127.0.0.1', 8700), 5).close()\n"
        "s = socket.socket(socket.AF_UNIX); s.connect('/run/agentk/gate.sock'); print('both')"
    )

    async def flow() -> box.Seen:
        async with launching.connected(there) as runtime:
            seen = await runtime.start(there.python(code, runtime="podman"))
            return await launching.ended(runtime, seen.id)

    assert (asyncio.run(flow()).exit or box.Exit(None, None, "none", "")).code == 0
    assert there.log() == ["both"]


def test_a_command_runs_in_the_box_with_its_environment(there: Place) -> None:
    async def flow() -> box.ExecResult:
        async with launching.connected(there) as runtime:
            seen = await runtime.start(there.python(SLEEP, runtime="podman", env={"NAME": "value"}))
            code = "import os, sys; print(os.environ['NAME'], os.getuid(), sys.stdin.read()); sys.exit(3)"
            return await runtime.exec(seen.id, ["python", "-c", code], 60, stdin=b"fed")

    result = asyncio.run(flow())
    assert (result.exit.code, result.stdout) == (3, b"value 1000 fed\n")
