"""Waiting boxes: what they become, what they refuse, and any death of the launcher on the way."""

import asyncio
import base64
import contextlib
import dataclasses
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentk.api import errors
from agentk.runtime import box, jails
from agentk.runtime.launcher import asking, crash
from tests.runtime import launching, podmans
from tests.runtime.launching import Place

pytestmark = launching.needs_jail
SAY = "print('here', flush=True)"
COUNT = "import os, time\nopen('runs', 'a').write('x'); print('up', flush=True)\ntime.sleep(1000)"
PODMAN = pytest.param("podman", marks=podmans.needs_podman)
both = pytest.mark.parametrize("there", ["nsjail", PODMAN], indirect=True)
POINTS = [point for point in crash.POINTS if point.startswith("claim.")]
DEATHS = [("nsjail", point) for point in POINTS]
DEATHS += [
    pytest.param("podman", point, marks=podmans.needs_podman) for point in ("podman.after-rename", *POINTS)
]


@pytest.fixture
def there(request: pytest.FixtureRequest) -> Iterator[Place]:
    with launching.place() as made:
        made.kind = getattr(request, "param", "nsjail")
        yield made
    if made.kind == "podman":
        podmans.assert_nothing_is_left(made)


def waiting(there: Place, **told: Any) -> box.Box:
    return there.make(uid="waits-1", waits=True, **told)


async def claimed(
    runtime: jails.Jails, there: Place, wanted: box.Box, waits: box.Box | None = None
) -> box.Seen:
    made = await runtime.start(waits or waiting(there))
    assert (made.phase, made.waits) == ("Running", True)
    seen = await runtime.claim(made.id, wanted)
    assert (seen.id, seen.phase, seen.waits) == (wanted.id, "Running", False)
    return seen


def run(there: Place, wanted: box.Box, waits: box.Box | None = None) -> tuple[box.Seen, list[str]]:
    """A box that was claimed, at its end, and what it said."""

    async def flow() -> box.Seen:
        there.launch()
        async with launching.connected(there) as runtime:
            await claimed(runtime, there, wanted, waits)
            return await launching.ended(runtime, wanted.id)

    seen = asyncio.run(flow())
    return seen, there.log(uid=wanted.uid)


@both
def test_it_becomes_the_box_with_its_env_files_workspace_and_name(there: Place) -> None:
    code = (
        "import os, socket; open('left', 'w').write('x')\n"
        "print(os.environ['A'], open('/secret/key').read(), os.getcwd(), 'gate.sock' in os.listdir('/run/agentk'),"
        " socket.gethostname(), 'joe' in open('/etc/hosts').read(), os.getuid())"
    )
    secret = box.Mount("files", "/secret", files={"key": base64.b64encode(b"hidden").decode()}, mode=0o400)
    seen, lines = run(there, there.python(code, env={"A": "1"}, mounts=[secret], hostname="joe"))
    assert lines == ["1 hidden /workspace True joe True 1000"]
    assert seen.exit and seen.exit.code == 0
    assert (there.state / "workspaces" / "u-1").is_dir()


def test_what_is_not_python_runs_as_itself(there: Place) -> None:
    seen, lines = run(there, there.make("sh", "-c", "echo $A $0; exit 3", env={"A": "1"}))
    assert (lines, seen.exit and seen.exit.code) == (["1 sh"], 3)


@pytest.mark.parametrize(("program", "code"), [("nothing-there", 127), ("/etc/hosts", 126)])
def test_a_program_that_cannot_run_ends_as_in_a_cold_box(there: Place, program: str, code: int) -> None:
    seen, lines = run(there, there.make(program))
    assert seen.exit and seen.exit.code == code
    assert lines[0].startswith(f"agentk: {program}: ")


@both
def test_modules_are_there_and_one_that_is_missing_is_named(there: Place) -> None:
    code = "import sys; print('decimal' in sys.modules, 'ctypes' in sys.modules)"
    assert run(there, there.python(code), waiting(there, modules=["decimal"]))[1] == ["True False"]

    async def flow() -> None:
        async with launching.connected(there) as runtime:
            with pytest.raises(errors.RuntimeRefused, match="cannot import no_such_module"):
                await runtime.start(there.make(uid="waits-2", waits=True, modules=["no_such_module"]))
            assert [seen.uid for seen in await runtime.list()] == ["u-1"]

    asyncio.run(flow())


@pytest.mark.skipif(os.geteuid() != 0, reason="finds it by its uid")
@pytest.mark.parametrize("there", [PODMAN], indirect=True)
def test_its_last_words_are_heard_by_a_launcher_that_slept_while_it_died(there: Place) -> None:
    launcher = there.launch().pid

    def interpreters() -> list[Path]:
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                ours = folder.stat().st_uid == there.host_uid
                if ours and b"agentk.sdk.waiting" in (folder / "cmdline").read_bytes():
                    found.append(folder)
        return found

    async def flow() -> None:
        async with launching.connected(there) as runtime:
            waits = waiting(there, modules=["no_such_module"])
            starting = asyncio.create_task(runtime.start(waits))
            await launching.holds(lambda: bool(interpreters()) or starting.done())
            os.kill(launcher, signal.SIGSTOP)
            try:
                await launching.holds(lambda: not interpreters())
            finally:
                os.kill(launcher, signal.SIGCONT)
            with pytest.raises(errors.RuntimeRefused, match="cannot import no_such_module"):
                await starting

    asyncio.run(flow())


@both
def test_it_is_claimed_once_and_only_by_what_fits(there: Place) -> None:
    async def flow() -> None:
        there.launch()
        async with launching.connected(there) as runtime:
            made = await runtime.start(waiting(there))
            fits = there.python(COUNT)
            for other in (
                dataclasses.replace(fits, seccomp="restricted"),
                dataclasses.replace(fits, tmp_bytes=1 << 20),
                dataclasses.replace(fits, mounts=[box.Mount("tmpfs", "/cache", size_bytes=1 << 20)]),
                dataclasses.replace(fits, limits=dataclasses.replace(fits.limits, open_files=255)),
            ):
                with pytest.raises(errors.Conflict):
                    await runtime.claim(made.id, other)
            await runtime.claim(made.id, fits)
            again = await runtime.claim(made.id, fits)  # repeatable
            assert again.id == fits.id
            with pytest.raises(errors.NotFound):
                await runtime.claim(made.id, there.python(COUNT, uid="u-2"))
            with pytest.raises(errors.Conflict):
                await runtime.claim(fits.id, there.python(COUNT, uid="u-2"))

    asyncio.run(flow())


@pytest.mark.skipif(os.geteuid() != 0, reason="boxes of an ordinary user all have its uid")
def test_a_workspace_of_another_uid_is_not_brought_along(there: Place) -> None:
    async def flow() -> None:
        there.launch()
        async with launching.connected(there) as runtime:
            await runtime.start(dataclasses.replace(there.python(SAY), host_uid=there.host_uid + 1))
            await launching.ended(runtime, "u-1-1")
            made = await runtime.start(waiting(there))
            with pytest.raises(errors.Conflict, match="another uid"):
                await runtime.claim(made.id, there.python(SAY, attempt=2))
            assert [seen.phase for seen in await runtime.list() if seen.waits] == ["Running"]  # as it was

    asyncio.run(flow())


@both
def test_an_exec_in_a_claimed_box_has_its_environment(there: Place) -> None:
    async def flow() -> box.ExecResult:
        there.launch()
        async with launching.connected(there) as runtime:
            await claimed(runtime, there, there.python(COUNT, env={"A": "mine"}))
            return await runtime.exec("u-1-1", ["sh", "-c", "echo $A $HOME; cat runs"], 60)

    assert asyncio.run(flow()).stdout == b"mine /workspace\nx"


@both
def test_its_limits_are_the_agents(there: Place) -> None:
    async def flow() -> box.Exit | None:
        there.launch()
        there.need_cgroups()
        async with launching.connected(there) as runtime:
            limits = box.Limits(memory_bytes=64 << 20, pids=64, open_files=256)
            wanted = there.python("b = b'x' * (200 << 20)", limits=limits)
            await claimed(runtime, there, wanted)
            return (await launching.ended(runtime, wanted.id)).exit

    ended = asyncio.run(flow())
    assert ended and ended.signal == 9 and ended.counters.oom_kills


def test_no_claim_names_its_group(there: Place) -> None:
    async def flow() -> None:
        there.launch()
        async with launching.connected(there) as runtime:
            made = await runtime.start(waiting(there))
            with pytest.raises(errors.Invalid):
                await runtime.claim(made.id, there.python(COUNT, group="u-9"))
            with pytest.raises(errors.Invalid):
                await runtime.start(there.python(COUNT, uid="u-3", group="u-9"))

    asyncio.run(flow())


@both
def test_after_its_end_nothing_of_either_is_left(there: Place) -> None:
    async def flow() -> None:
        there.launch()
        async with launching.connected(there) as runtime:
            await claimed(runtime, there, there.python(SAY))
            await launching.ended(runtime, "u-1-1")
            await runtime.release("default", "u-1")
            await runtime.release("default", "waits-1")
            assert not await runtime.list()

    asyncio.run(flow())
    assert not launching.groups(there)
    for folder in ("boxes", "logs", "workspaces"):
        assert [path.name for path in (there.state / folder).iterdir() if path.name[0] != "."] == []


@both
def test_a_waiting_box_ends_with_its_launcher(there: Place) -> None:
    async def flow() -> None:
        there.launch()
        async with launching.connected(there) as runtime:
            made = await runtime.start(waiting(there))
        there.die()
        there.launch()
        async with launching.connected(there) as runtime:
            assert not await runtime.list()
        assert made.process is not None
        pid = made.process.pid
        await launching.holds(lambda: not Path(f"/proc/{pid}/root").exists() or _is_corpse(pid))
        await launching.holds(lambda: not launching.groups(there))

    asyncio.run(flow())
    assert [path.name for path in (there.state / "boxes").iterdir() if path.is_dir()] == []


@both
def test_a_launcher_with_nothing_but_waiting_boxes_is_idle(there: Place) -> None:
    async def flow() -> None:
        there.launch()
        async with launching.connected(there) as runtime:
            await runtime.start(waiting(there))

    asyncio.run(flow())
    assert there.process is not None
    asking.end(there.socket, kill_boxes=False)
    assert there.process.wait(launching.WAIT_SECONDS) == 0
    assert not launching.groups(there)
    assert [path.name for path in (there.state / "boxes").iterdir() if path.is_dir()] == []


def _is_corpse(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


@pytest.mark.parametrize(("there", "point"), DEATHS, indirect=["there"])
def test_a_launcher_dead_in_a_claim_leaves_one_box_or_none(there: Place, point: str) -> None:
    """Never two, and none only where its program was never told: then it is started anew."""

    async def flow() -> None:
        launcher = there.launch(crash_at=point)
        wanted = there.python(COUNT)
        async with launching.connected(there) as runtime:
            made = await runtime.start(waiting(there))
            claim = asyncio.ensure_future(runtime.claim(made.id, wanted))
            await launching.holds(lambda: launcher.poll() is not None)
            claim.cancel()
            await asyncio.gather(claim, return_exceptions=True)
        there.launch()
        async with launching.connected(there) as runtime:
            if point != "claim.after-order":
                await gone(runtime, wanted.id)
                await runtime.start(wanted)
            await launching.logged(there, "up")
            seen = await runtime.list()
            assert [(one.id, one.phase) for one in seen] == [(wanted.id, "Running")]
            told = await runtime.exec(wanted.id, ["cat", "runs"], 60)
            assert told.stdout == b"x"  # its program began once
            await runtime.kill(wanted.id, box.Intent("Killed"))
            await launching.ended(runtime, wanted.id)
            await runtime.release("default", "u-1")
            await launching.holds(lambda: not launching.groups(there))

    asyncio.run(flow())


@pytest.mark.parametrize("there", [PODMAN], indirect=True)
def test_a_second_attempt_has_its_door_and_is_found_again_by_any_launcher(there: Place) -> None:
    code = "import os, time\nprint('up', flush=True)\nwhile not os.path.exists('go'): time.sleep(0.005)\nprint('on')"

    async def flow() -> box.Seen:
        there.launch()
        async with launching.connected(there) as runtime:
            await claimed(runtime, there, there.python(SAY))
            await launching.ended(runtime, "u-1-1")
            waits = there.make(uid="waits-2", waits=True)
            seen = await claimed(runtime, there, there.python(code + "; exit(9)", attempt=2), waits)
            await launching.logged(there, "up", attempt=2)
        there.die()
        there.launch()
        async with launching.connected(there) as runtime:
            assert [one.process for one in await runtime.list() if one.phase == "Running"] == [seen.process]
            assert seen.process is not None
            podmans.touch(seen.process.pid, "go")
            return await launching.ended(runtime, "u-1-2")

    ended = asyncio.run(flow())
    assert (ended.exit and ended.exit.code, there.log(attempt=2)) == (9, ["up", "on"])


async def gone(runtime: jails.Jails, box_id: str) -> None:
    async with asyncio.timeout(launching.WAIT_SECONDS):
        while any(seen.id == box_id for seen in await runtime.list()):  # noqa: ASYNC110
            await asyncio.sleep(0.005)


@both
def test_records_hold_no_secret_of_a_claim(there: Place) -> None:
    async def flow() -> None:
        there.launch()
        async with launching.connected(there) as runtime:
            files = {"key": base64.b64encode(b"a-secret-word").decode()}
            secret = box.Mount("files", "/secret", files=files)
            await claimed(runtime, there, there.python(COUNT, env={"A": "a-secret-word"}, mounts=[secret]))
            await launching.logged(there, "up")
            if there.kind == "podman":
                assert "a-secret-word" not in podmans.inspect(there)

    asyncio.run(flow())
    told = json.loads((there.state / "boxes" / "u-1-1" / "box.json").read_text())
    assert (told["env"], told["waits"], told["group"]) == ({"A": ""}, False, "waits-1")


def test_no_box_takes_the_name_of_a_command(there: Place) -> None:
    """Its record would be the other's."""

    async def flow() -> None:
        there.launch()
        async with launching.connected(there) as runtime:
            wanted = there.make("sleep", "1000")
            await runtime.start(wanted)
            command = asyncio.create_task(runtime.exec(wanted.id, ["sleep", "1000"], timeout_seconds=1000))
            boxes = there.state / "boxes"
            await launching.holds(lambda: any(boxes.glob(f"{wanted.id}-exec-*/handle.json")))
            name = next(boxes.glob(f"{wanted.id}-exec-*")).name
            waits = await runtime.start(waiting(there))
            with pytest.raises(errors.Conflict, match="a command beside a box"):
                await runtime.claim(waits.id, dataclasses.replace(wanted, id=name))
            assert (boxes / name).is_dir()
            command.cancel()
            await asyncio.gather(command, return_exceptions=True)

    asyncio.run(flow())
