"""Commands beside a box, in real jails: what they are fed, what they say, what bounds and what ends them."""

import asyncio
import base64
import contextlib
import hashlib
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from agentk.api import errors
from agentk.runtime import box, jails
from agentk.runtime.launcher import exec_sibling, processes
from agentk.runtime.launcher.world import Live
from tests.runtime import launching
from tests.runtime.launching import Place

pytestmark = launching.needs_jail
MIB = 1 << 20
SLEEP = "import time; print('up', flush=True); time.sleep(1000)"
FED = os.urandom(MIB) * 5
TREE = (  # leaves its session and its parents, and says when it stands
    "import os, time\n"
    "for _ in range(3):\n"
    "  if os.fork() == 0:\n"
    "    os.setsid()\n"
    "    if os.fork() == 0: os.setsid()\n"
    "print('stands', flush=True)\n"
    "time.sleep(1000)\n"
)


@pytest.fixture(scope="module")
def there() -> Iterator[Place]:
    with launching.place() as made:
        made.launch()
        yield made


@contextlib.asynccontextmanager
async def running(there: Place, uid: str, **told: Any) -> AsyncIterator[tuple[jails.Jails, box.Seen]]:
    """A box that sleeps, removed at the end."""
    async with launching.connected(there) as runtime:
        seen = await runtime.start(there.python(SLEEP, uid=uid, **told))
        try:
            yield runtime, seen
        finally:
            await runtime.remove(seen.id)


def execute(there: Place, uid: str, *argv: str, box_told: Any = None, **told: Any) -> box.ExecResult:
    """One command beside a box of its own."""

    async def flow() -> box.ExecResult:
        async with running(there, uid, **(box_told or {})) as (runtime, seen):
            return await runtime.exec(seen.id, argv, 60, **told)

    return asyncio.run(flow())


def in_exec_leaves(uid: str) -> list[str]:
    """Processes in groups of commands of that agent."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{name}/cgroup") as file:
            if f"/{uid}/exec-" in file.read():
                found.append(name)
    return found


def text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def test_exec_is_beside_the_box_with_its_files_and_environment(there: Place) -> None:
    secret = box.Mount("files", "/secrets", files={"key": base64.b64encode(b"shh").decode()})
    script = "echo $A; cat /secrets/key; echo x >&2; exit 4"
    told = {"env": {"A": "b c"}, "mounts": [secret]}
    result = execute(there, "s", "sh", "-c", script, box_told=told)
    assert (result.exit.code, result.stdout, result.stderr) == (4, b"b c\nshh", b"x\n")


def test_exec_that_takes_too_long_is_killed(there: Place) -> None:
    async def flow() -> box.ExecResult:
        async with running(there, "t") as (runtime, seen):
            return await runtime.exec(seen.id, ["sh", "-c", "echo begun; sleep 1000"], 0.5)

    result = asyncio.run(flow())
    assert (result.timed_out, result.cancelled) == (True, False)


@pytest.mark.parametrize(("asked", "got"), [(None, MIB), (1000, 1000), (0, 0), (1 << 40, 3_000_001)])
def test_output_is_bounded(there: Place, asked: int | None, got: int) -> None:
    result = execute(there, "u", "python", "-c", "print('x' * 3000000)", output_bytes=asked)
    assert (len(result.stdout), result.truncated) == (got, got < 3_000_001)
    assert result.exit.code == 0


def test_of_much_output_the_first_and_the_last_are_kept_for_each_stream(there: Place) -> None:
    code = "import sys\nfor n in range(100_000): sys.stdout.write('%05d' % n)\nsys.stderr.write('well')"
    result = execute(there, "u2", "python", "-c", code, output_bytes=25)
    assert (result.stdout, result.stdout_truncated) == (b"0000000001000" + b"979999899999", True)
    assert (result.stderr, result.stderr_truncated) == (b"well", False)


def test_what_waits_in_the_launcher_is_bounded_for_a_box(there: Place) -> None:
    async def flow() -> None:
        async with running(there, "u3") as (runtime, seen):
            for told in ({"stdin": bytes(8 * MIB)}, {"output_bytes": 4 * MIB}):
                calls = [runtime.exec(seen.id, ["sleep", "1000"], 500, **told) for _ in range(20)]
                waiting = [asyncio.ensure_future(call) for call in calls]
                done, waiting_still = await asyncio.wait(waiting, return_when=asyncio.FIRST_EXCEPTION)
                assert {type(one.exception()) for one in done} == {errors.TooManyRequests}
                for one in waiting_still:
                    one.cancel()
                await asyncio.gather(*waiting, return_exceptions=True)

    asyncio.run(flow())


def test_input_arrives_whole(there: Place) -> None:
    code = "import sys, hashlib; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())"
    result = execute(there, "v", "python", "-c", code, stdin=FED)
    assert result.stdout.decode().strip() == hashlib.sha256(FED).hexdigest()


def test_input_and_outputs_can_be_opened_by_name(there: Place) -> None:
    result = execute(there, "v2", "sh", "-c", "cat /dev/stdin >/dev/stderr; echo x >/dev/stdout", stdin=b"in")
    assert (result.stdout, result.stderr) == (b"x\n", b"in")


def test_nothing_to_read_is_the_end_of_a_file(there: Place) -> None:
    assert execute(there, "v3", "sh", "-c", "wc -c; readlink /proc/self/fd/0").stdout == b"0\n/dev/null\n"


@pytest.mark.parametrize("script", ["echo done", "exec <&-; echo done", "head -c 10 >/dev/null; echo done"])
def test_input_that_nobody_reads_holds_nobody_up(there: Place, script: str) -> None:
    async def flow() -> box.ExecResult:
        async with running(there, "w") as (runtime, seen):
            waits = asyncio.ensure_future(runtime.exec(seen.id, ["sleep", "1000"], 500, stdin=FED))
            result = await runtime.exec(seen.id, ["sh", "-c", script], 60, stdin=FED)
            assert not waits.done()
            return result

    assert asyncio.run(flow()).stdout == b"done\n"


def test_too_much_input_ends_neither_connection_nor_box(there: Place) -> None:
    async def flow() -> None:
        async with running(there, "x") as (runtime, seen):
            with pytest.raises(errors.TooLarge):
                await runtime.exec(seen.id, ["true"], 60, stdin=bytes(8 * MIB + 1))
            with pytest.raises(errors.TooLarge):
                await runtime.exec(seen.id, ["true", "\N{GRINNING FACE}" * MIB], 60, stdin=bytes(8 * MIB))
            largest = await runtime.exec(seen.id, ["wc", "-c"], 60, stdin=bytes(8 * MIB))
            assert largest.stdout == b"%d\n" % (8 * MIB)

    asyncio.run(flow())


def test_environment_goes_over_the_boxes_and_hides_no_tool(there: Place) -> None:
    env = {"A": "new", "PATH": "/nowhere", "PYTHONPATH": "/workspace", "LD_DEBUG_OUTPUT": "x", "C": "ü"}
    script = "echo $A $B $C $PATH $PYTHONPATH; python -c 'print(1)'"
    result = execute(
        there, "y", "/bin/sh", "-c", script, env=env, box_told={"env": {"A": "old", "B": "kept"}}
    )
    first = "new kept ü /opt/agentk/bin:/nowhere /opt/agentk/lib:/workspace"
    assert result.stdout.decode().splitlines() == [first, "1"], result.stderr


def test_in_its_first_moment_a_box_has_its_whole_environment(there: Place) -> None:
    async def flow() -> list[bytes]:
        said = []
        async with launching.connected(there) as runtime:
            for attempt in range(1, 11):
                env = {"A": "a", "LD_B": "b"}
                seen = await runtime.start(there.make("sleep", "1000", uid="y2", attempt=attempt, env=env))
                said.append((await runtime.exec(seen.id, ["sh", "-c", "echo $A $LD_B"], 60)).stdout)
                await runtime.remove(seen.id)
        return said

    assert asyncio.run(flow()) == [b"a b\n"] * 10


def test_an_environment_that_is_not_there_yet_is_not_taken_for_an_empty_one(there: Place) -> None:
    begun = subprocess.Popen(["sh", "-c", "read -r x; A=b exec sleep 1000"], env={}, stdin=subprocess.PIPE)
    try:
        while not Path(f"/proc/{begun.pid}/cmdline").read_bytes().startswith(b"sh\0"):
            launching.pause()  # it may still be a copy of this process
        live = Live(there.make("sleep"), guest=processes.identify(begun.pid))
        assert exec_sibling.environment(live) is None
        assert begun.stdin is not None
        begun.stdin.write(b"\n"), begun.stdin.flush()
        while (env := exec_sibling.environment(live)) is None:
            launching.pause()
        begun.kill(), begun.wait()
        with pytest.raises(errors.Conflict):
            exec_sibling.environment(live)
    finally:
        begun.kill(), begun.communicate()
    assert env == {"A": "b"}


def test_working_directory(there: Place) -> None:
    assert execute(there, "z", "pwd", cwd="/tmp").stdout == b"/tmp\n"


@pytest.mark.parametrize(
    ("told", "field"),
    [
        ({"env": {"AGENTK_AGENT": "other"}}, "exec.env"),
        ({"env": {"A=B": "c"}}, "box.env"),
        ({"limits": box.Limits(memory_bytes=(256 << 20) + 1)}, "exec.limits.memory_bytes"),
        ({"limits": box.Limits(pids=65)}, "exec.limits.pids"),
        ({"limits": box.Limits(cpu_millis=1001)}, "exec.limits.cpu_millis"),
        ({"limits": box.Limits(open_files=257)}, "exec.limits.open_files"),
        ({"limits": box.Limits(storage_bytes=1)}, "exec.limits.storage_bytes"),
        ({"limits": box.Limits(pids=-1)}, "exec.limits.pids"),
        ({"cwd": "../x"}, "box.cwd"),
        ({"exec_id": "../x"}, "exec.exec_id"),
        ({"output_bytes": -1}, "exec.output_bytes"),
    ],
    ids=str,
)
def test_what_is_wider_than_the_agent_is_refused(there: Place, told: dict[str, Any], field: str) -> None:
    with pytest.raises(errors.Invalid, match=field.replace(".", r"\.")):
        execute(there, "aa", "true", **told)


def test_too_much_memory_ends_the_command_and_not_the_agent(there: Place) -> None:
    there.need_cgroups()

    async def flow() -> tuple[box.ExecResult, str]:
        async with running(there, "ab") as (runtime, seen):
            limits = box.Limits(memory_bytes=32 << 20)
            code = "x = bytearray(100 << 20); print(len(x))"
            small = await runtime.exec(seen.id, ["python", "-c", code], 60, limits=limits)
            assert (await runtime.exec(seen.id, ["python", "-c", code], 60)).exit.code == 0
            return small, (await launching.until(runtime, seen.id, lambda _: True)).phase

    result, phase = asyncio.run(flow())
    assert (result.exit.code, result.exit.counters.oom_kills, phase) == (137, 1, "Running")


def test_forks_and_files_are_limited_for_one_command(there: Place) -> None:
    there.need_cgroups()
    code = (
        "import os, time\nn = 0\n"
        "try:\n"
        "  while n < 50:\n"
        "    if os.fork() == 0: time.sleep(100)\n"
        "    n += 1\n"
        "except OSError: pass\n"
        "import resource; print(n, resource.getrlimit(resource.RLIMIT_NOFILE)[1])"
    )
    result = execute(there, "ac", "python", "-c", code, limits=box.Limits(pids=8, open_files=64))
    forks, files = map(int, result.stdout.split())
    assert 0 < forks < 8
    assert files == 64


def test_forks_that_were_denied_are_counted_for_one_command(there: Place) -> None:
    there.need_cgroups()
    code = (
        "import os, time\n"
        "for _ in range(50):\n"
        "  try:\n"
        "    if os.fork() == 0: time.sleep(100)\n"
        "  except OSError: pass\n"
    )

    async def flow() -> list[int | None]:
        async with running(there, "ac2") as (runtime, seen):
            limits = box.Limits(pids=8)
            many = await runtime.exec(seen.id, ["python", "-c", code], 60, limits=limits)
            none = await runtime.exec(seen.id, ["true"], 60, limits=limits)
            return [one.exit.counters.pids_denied for one in (many, none)]

    many, none = asyncio.run(flow())
    assert many and none == 0


def test_a_command_stands_still_with_its_box(there: Place) -> None:
    there.need_cgroups()
    ticks = "import os\nn = 0\nwhile True: n += 1; os.pwrite(1, b'%020d' % n, 0)"

    async def flow() -> None:
        async with running(there, "ac3") as (runtime, seen):
            assert seen.process is not None
            said = partial(text, Path(f"/proc/{seen.process.pid}/root/workspace/said"))
            argv = ["sh", "-c", 'exec python -c "$0" >said', ticks]
            call = asyncio.ensure_future(runtime.exec(seen.id, argv, 500, exec_id="ticks"))
            await launching.holds(lambda: bool(said()))
            await runtime.freeze(seen.id)
            held = said()
            with pytest.raises(errors.Conflict):
                await runtime.exec(seen.id, ["true"], 60)
            assert said() == held
            await runtime.thaw(seen.id)
            await launching.holds(lambda: said() != held)
            await runtime.freeze(seen.id)
            await runtime.exec_cancel(seen.id, "ticks")
            assert (await call).cancelled

    asyncio.run(flow())


def test_processor_is_limited_for_one_command(there: Place) -> None:
    there.need_cgroups()
    code = "import time; t = time.process_time()\nwhile time.process_time() - t < 0.05: pass\nprint('spent')"

    async def flow() -> box.ExecResult:
        async with running(there, "ad") as (runtime, seen):
            argv = ["python", "-I", "-S", "-c", code]
            assert (await runtime.exec(seen.id, argv, 60)).stdout == b"spent\n"
            endless = ["python", "-I", "-S", "-c", "while True: pass"]
            slow = await runtime.exec(seen.id, endless, 2, limits=box.Limits(cpu_millis=20))
            before = (await runtime.counters(seen.id)).cpu_usec or 0
            assert before < 1_500_000  # a tenth of it would be too much; starting takes the rest
            return slow

    assert asyncio.run(flow()).timed_out


def test_a_command_is_taken_back_with_all_it_started(there: Place) -> None:
    there.need_cgroups()

    async def flow() -> box.ExecResult:
        async with running(there, "ae") as (runtime, seen):
            await runtime.exec_cancel(seen.id, "mine")
            stands = asyncio.Event()

            async def hear(stream: str, data: bytes) -> None:
                stands.set()

            argv = ["python", "-c", TREE]
            call = asyncio.ensure_future(
                runtime.exec(
                    seen.id, argv, 500, exec_id="mine", limits=box.Limits(cpu_millis=50), on_output=hear
                )
            )
            await stands.wait()
            await launching.holds(lambda: len(in_exec_leaves("ae")) >= 7)
            with pytest.raises(errors.Conflict):
                await runtime.exec(seen.id, ["true"], 60, exec_id="mine")
            await asyncio.gather(*(runtime.exec_cancel(seen.id, "mine") for _ in range(3)))
            result = await call
            await runtime.exec_cancel(seen.id, "mine")
            await launching.holds(lambda: not in_exec_leaves("ae"))
            return result

    result = asyncio.run(flow())
    assert (result.cancelled, result.timed_out) == (True, False)


def test_one_that_is_taken_back_at_once_never_runs(there: Place) -> None:
    async def flow() -> tuple[list[box.ExecResult], bytes]:
        async with running(there, "af") as (runtime, seen):
            calls = [
                asyncio.ensure_future(runtime.exec(seen.id, ["touch", f"ran-{n}"], 500, exec_id=f"x{n}"))
                for n in range(5)
            ]
            await asyncio.sleep(0)
            await asyncio.gather(*(runtime.exec_cancel(seen.id, f"x{n}") for n in range(5)))
            return await asyncio.gather(*calls), (await runtime.exec(seen.id, ["ls"], 60)).stdout

    results, left = asyncio.run(flow())
    assert ([result.cancelled for result in results], left) == ([True] * 5, b"")


def test_twenty_at_once_each_get_their_own(there: Place) -> None:
    code = "import sys; data = sys.stdin.read(); sys.stdout.write(data * 1000); sys.exit(int(data))"

    async def flow() -> list[box.ExecResult]:
        async with running(there, "ag", limits=box.Limits(pids=200)) as (runtime, seen):
            argv = ["python", "-I", "-S", "-c", code]
            calls = (runtime.exec(seen.id, argv, 120, stdin=b"%d" % n) for n in range(20))
            return await asyncio.gather(*calls)

    for n, result in enumerate(asyncio.run(flow())):
        assert (result.exit.code, result.stdout) == (n, b"%d" % n * 1000)


def test_large_results_of_many_end_no_connection(there: Place) -> None:
    code = "import sys; [s.write('x' * (4 << 20)) for s in (sys.stdout, sys.stderr)]"

    async def flow() -> list[box.ExecResult]:
        async with running(there, "ah", limits=box.Limits(pids=200)) as (runtime, seen):
            argv = ["python", "-I", "-S", "-c", code]
            calls = (runtime.exec(seen.id, argv, 120, output_bytes=4 << 20) for _ in range(10))
            return await asyncio.gather(*calls)

    assert {(len(r.stdout), len(r.stderr), r.truncated) for r in asyncio.run(flow())} == {
        (4 << 20, 4 << 20, False)
    }
