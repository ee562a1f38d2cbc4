"""Boxes from start to end, in real jails."""

import asyncio
import base64
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentk.api import errors
from agentk.runtime import box
from tests.runtime import launching
from tests.runtime.launching import Place

pytestmark = launching.needs_jail
KILLED = box.Intent("Killed", "a test did")
SLEEP = "import time; print('up', flush=True); time.sleep(1000)"


@pytest.fixture(scope="module")
def there() -> Iterator[Place]:
    with launching.place() as made:
        made.launch()
        yield made


def run(there: Place, wanted: box.Box) -> box.Seen:
    """Start a box, wait for its end, forget it."""

    async def flow() -> box.Seen:
        async with launching.connected(there) as runtime:
            await runtime.start(wanted)
            seen = await launching.ended(runtime, wanted.id)
            await runtime.remove(wanted.id)
            return seen

    return asyncio.run(flow())


def code_of(seen: box.Seen) -> int | None:
    assert seen.exit is not None
    return seen.exit.code


def test_exit_code_and_output_are_the_agents(there: Place) -> None:
    seen = run(
        there, there.python("import sys; print('out'); print('err', file=sys.stderr); sys.exit(7)", uid="a")
    )
    assert seen.exit is not None
    assert (seen.phase, seen.exit.code, seen.exit.source) == ("Exited", 7, "wait")
    assert sorted(there.log(uid="a")) == ["err", "out"]


@pytest.mark.parametrize(
    ("program", "code"), [("no-such-thing", 127), ("/nowhere", 127), ("/etc/passwd", 126)]
)
def test_what_cannot_run_is_told_as_a_shell_does(there: Place, program: str, code: int) -> None:
    assert code_of(run(there, there.make(program, uid="b"))) == code


def test_signal_is_told_as_128_plus_its_number(there: Place) -> None:
    seen = run(there, there.make("sh", "-c", "kill -USR1 $$", uid="c"))
    assert seen.exit is not None
    assert (seen.exit.code, seen.exit.signal) == (128 + signal.SIGUSR1, signal.SIGUSR1)


def test_a_plain_agent_ends_on_sigterm_at_once_after_its_start(there: Place) -> None:
    async def flow() -> box.Exit | None:
        async with launching.connected(there) as runtime:
            wanted = there.python(SLEEP, uid="d")
            await runtime.start(wanted)
            await runtime.signal(wanted.id, signal.SIGTERM, KILLED)
            seen = await launching.ended(runtime, wanted.id)
            await runtime.remove(wanted.id)
            return seen.exit

    exit_ = asyncio.run(flow())
    assert exit_ is not None
    assert (exit_.code, exit_.signal, exit_.intent) == (143, signal.SIGTERM, KILLED)


def test_kill_takes_the_whole_tree_even_what_left_its_session(there: Place) -> None:
    fork = "import os,time\nfor _ in range(3):\n  if os.fork()==0: os.setsid()\n"
    code = fork + "print('up', flush=True)\ntime.sleep(1000)"

    async def flow() -> list[int]:
        async with launching.connected(there) as runtime:
            wanted = there.python(code, uid="e")
            seen = await runtime.start(wanted)
            await launching.logged(there, "up", uid="e")
            assert seen.process is not None
            space = os.stat(f"/proc/{seen.process.pid}/ns/pid").st_ino
            await runtime.kill(wanted.id, KILLED)
            await launching.ended(runtime, wanted.id)
            await runtime.remove(wanted.id)
            return in_pid_namespace(space)

    assert asyncio.run(flow()) == []


def in_pid_namespace(inode: int) -> list[int]:
    found = []
    for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
        try:
            if os.stat(f"/proc/{pid}/ns/pid").st_ino == inode:
                found.append(pid)
        except OSError:
            continue
    return found


def test_environment_is_the_boxes_own_and_in_no_argv(there: Place) -> None:
    async def flow() -> str:
        async with launching.connected(there) as runtime:
            code = (
                "import os,time; print(sorted(os.environ), os.environ['KEY'], flush=True); time.sleep(1000)"
            )
            wanted = there.python(code, uid="f", env={"KEY": "hush-\u00e4\n\"'\\"})
            await runtime.start(wanted)
            await launching.logged(there, "KEY", uid="f")
            leaks = told_on_the_host(there, b"hush")
            await runtime.remove(wanted.id)
            return leaks

    assert asyncio.run(flow()) == []
    first = there.log(uid="f")[0]
    assert "hush-ä" in first
    assert "AGENTK_CRASH_AT" not in first


def told_on_the_host(there: Place, word: bytes) -> list[Path]:
    """Command lines and records that hold the word."""
    found = []
    for path in [*Path("/proc").glob("[0-9]*/cmdline"), *(there.state / "boxes").rglob("*.*")]:
        try:
            found += [path] if word in path.read_bytes() else []
        except OSError:
            continue
    return found


def test_files_appear_read_only_with_their_mode(there: Place) -> None:
    secret = base64.b64encode(b"s3cret").decode()
    mount = box.Mount("files", "/secrets", files={"a/key": secret}, mode=0o400)
    code = (
        "p='/secrets/a/key'; import os; print(open(p).read(), oct(os.stat(p).st_mode & 0o777)); open(p,'w')"
    )
    assert code_of(run(there, there.python(code, uid="g", mounts=[mount]))) == 1
    assert "s3cret 0o400" in there.log(uid="g")
    assert "Read-only file system" in " ".join(there.log(uid="g"))


def test_source_is_read_only_and_the_working_directory(there: Place) -> None:
    source = there.state / "store" / "sources" / "abc"
    source.mkdir(parents=True, exist_ok=True)
    for path in (there.state / "store", there.state / "store" / "sources", source):
        path.chmod(0o700 if path.name == "store" else 0o755)
    (source / "main.py").write_text("import os; print(os.getcwd()); open('x','w')")
    (source / "main.py").chmod(0o644)
    mounts = [box.Mount("bind", "/app", source=str(source))]
    assert code_of(run(there, there.make("python", "main.py", uid="h", mounts=mounts, cwd="/app"))) == 1
    assert "/app" in there.log(uid="h")
    assert "Read-only file system" in " ".join(there.log(uid="h"))


def test_workspace_survives_its_attempts(there: Place) -> None:
    run(there, there.make("sh", "-c", "echo kept > note", uid="i"))
    run(there, there.make("cat", "/workspace/note", uid="i", attempt=2))
    assert there.log(attempt=2, uid="i") == ["kept"]


def test_sees_only_its_own_processes_and_no_host_layout(there: Place) -> None:
    code = (
        "import os; print([n for n in os.listdir('/proc') if n.isdigit()]);"
        "print(open('/proc/self/mountinfo').read())"
    )
    run(there, there.python(code, uid="j"))
    pids, *mounts = there.log(uid="j")
    assert pids == "['1', '2']"
    assert not any("/home" in line or "/root" in line for line in mounts)
    assert not any(" - devpts " in line or " - sysfs " in line for line in mounts)


def test_runs_with_no_capability_and_no_new_privileges(there: Place) -> None:
    run(there, there.make("cat", "/proc/self/status", uid="k"))
    status = dict(line.split(":", 1) for line in there.log(uid="k") if ":" in line)
    assert {status[f"Cap{kind}"].strip() for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
    assert (status["NoNewPrivs"].strip(), status["Seccomp"].strip()) == ("1", "2")


def test_hears_its_own_loopback_door_before_its_first_instruction(there: Place) -> None:
    code = (
        "import socket; socket.create_connection(('127.0.0.1', 8700), 5);"
        "socket.socket(socket.AF_UNIX).connect('/run/agentk/gate.sock')"
    )
    assert code_of(run(there, there.python(code, uid="l"))) == 0


def test_door_cannot_be_written_or_replaced(there: Place) -> None:
    assert (
        code_of(
            run(there, there.make("sh", "-c", "rm /run/agentk/gate.sock || touch /run/agentk/x", uid="m"))
        )
        == 1
    )
    assert all("Read-only file system" in line for line in there.log(uid="m"))


def test_programs_of_another_kernel_find_the_gate_where_they_look(there: Place) -> None:
    code = (
        "import os, socket\n"
        "for name in ('agentos', 'clove'):\n"
        "  socket.socket(socket.AF_UNIX).connect(f'/tmp/{name}.sock')\n"
        "  os.unlink(f'/tmp/{name}.sock')\n"
        "socket.socket(socket.AF_UNIX).connect('/run/agentk/gate.sock')"
    )
    volume = [box.Mount("tmpfs", "/tmp", size_bytes=1 << 20)]
    for attempt, mounts in ((1, []), (2, volume)):
        wanted = there.python(code, uid="m2", attempt=attempt, mounts=mounts)
        assert code_of(run(there, wanted)) == 0, there.log(attempt=attempt, uid="m2")


def test_too_much_memory_is_counted_as_an_oom_kill(there: Place) -> None:
    there.need_cgroups()
    limits = box.Limits(memory_bytes=64 << 20, pids=16)
    seen = run(there, there.python("x = bytearray(1 << 30)", uid="n", limits=limits))
    assert seen.exit is not None
    assert seen.exit.counters.oom_kills == 1
    assert seen.exit.code == 137


def test_forks_beyond_the_limit_are_denied_and_counted(there: Place) -> None:
    there.need_cgroups()
    code = "import os,time\ntry:\n  while True:\n    if os.fork()==0: time.sleep(100)\nexcept OSError as e: print(e)"
    seen = run(there, there.python(code, uid="o", limits=box.Limits(pids=12)))
    assert seen.exit is not None
    assert (seen.exit.counters.pids_denied or 0) > 0


def test_start_is_repeatable(there: Place) -> None:
    async def flow() -> tuple[box.Seen, box.Seen]:
        async with launching.connected(there) as runtime:
            wanted = there.python(SLEEP, uid="p")
            first, second = await asyncio.gather(runtime.start(wanted), runtime.start(wanted))
            third = await runtime.start(wanted)
            assert first.process == third.process
            await runtime.remove(wanted.id)
            await runtime.remove(wanted.id)
            return first, second

    first, second = asyncio.run(flow())
    assert first.process == second.process


def test_what_is_refused_leaves_nothing_behind(there: Place) -> None:
    async def flow() -> str:
        async with launching.connected(there) as runtime:
            with pytest.raises(errors.RuntimeRefused) as caught:
                await runtime.start(
                    there.make("true", uid="q", mounts=[box.Mount("bind", "/x", source="/nowhere")])
                )
            assert not [seen for seen in await runtime.list() if seen.uid == "q"]
            return str(caught.value)

    assert "/nowhere" in asyncio.run(flow())
    assert not list((there.state / "boxes").glob("q-*"))
    assert not list((there.run / "doors").glob("q*"))
    assert not list(Path("/sys/fs/cgroup").glob(f"*/agentk-{there.instance}/default/q"))


def test_mount_inside_of_another_is_refused(there: Place) -> None:
    mounts = [box.Mount("tmpfs", "/app/inside", size_bytes=4096), box.Mount("files", "/app", files={"x": ""})]

    async def flow() -> None:
        async with launching.connected(there) as runtime:
            with pytest.raises(errors.Invalid, match="/app/inside"):
                await runtime.start(there.make("true", uid="r", mounts=mounts))

    asyncio.run(flow())


def test_frozen_box_does_nothing_until_thawed(there: Place) -> None:
    there.need_cgroups()

    async def flow() -> tuple[bool, bool]:
        async with launching.connected(there) as runtime:
            wanted = there.python(
                "import time\nwhile True: print('x', flush=True); time.sleep(0.01)", uid="v"
            )
            await runtime.start(wanted)
            await launching.logged(there, "x", uid="v")
            await runtime.freeze(wanted.id)
            frozen = next(seen for seen in await runtime.list() if seen.id == wanted.id).frozen
            await runtime.counters(wanted.id)  # what was in the pipe is in the log by now
            before = len(there.log(uid="v"))
            await runtime.thaw(wanted.id)
            await launching.holds(lambda: len(there.log(uid="v")) >= before + 3)
            thawed = not next(seen for seen in await runtime.list() if seen.id == wanted.id).frozen
            await runtime.remove(wanted.id)
            return frozen, thawed

    assert asyncio.run(flow()) == (True, True)


def test_release_forgets_everything_of_an_agent(there: Place) -> None:
    async def flow() -> None:
        async with launching.connected(there) as runtime:
            await runtime.start(there.python(SLEEP, uid="w"))
            await runtime.release("default", "w")
            await runtime.release("default", "w")
            assert not [seen for seen in await runtime.list() if seen.uid == "w"]

    asyncio.run(flow())
    left = [path for path in there.state.rglob("*w*") if path.name.split("-")[0] in ("w", "default_w")]
    assert left == []


def test_changes_tell_of_a_box_that_ended_by_itself(there: Place) -> None:
    async def flow() -> str:
        async with launching.connected(there) as runtime:
            changes = runtime.changes()
            heard = asyncio.ensure_future(anext(changes))
            await asyncio.sleep(0)
            await runtime.start(there.make("true", uid="x"))
            return await heard

    assert asyncio.run(flow()) == "x"


def test_flood_is_held_back_and_nothing_is_dropped(there: Place) -> None:
    log = box.LogLimits(max_bytes=1 << 20, max_files=8, bytes_per_second=256 << 10)
    code = "for n in range(6000): print(f'{n:06d}', 'x' * 40)"
    seen = run(there, there.python(code, uid="y", log=log))
    assert seen.exit is not None
    assert [line[:6] for line in there.log(uid="y")] == [f"{n:06d}" for n in range(6000)]
    assert seen.exit.counters.log_held_back_usec > 0


def test_log_is_rotated_and_bounded(there: Place) -> None:
    log = box.LogLimits(max_bytes=64 << 10, max_files=2, bytes_per_second=64 << 20)
    run(there, there.python("for n in range(20000): print(n, 'y' * 20)", uid="z", log=log))
    files = sorted(path.name for path in (there.state / "logs" / "default_z").iterdir())
    assert files == ["1.log", "1.log.1"]
    assert there.log(uid="z")[-1].startswith("19999 ")


def test_probe_is_answered_by_the_launcher_while_it_serves_others(there: Place) -> None:
    async def flow() -> box.Probe:
        async with launching.connected(there) as runtime:
            probing = asyncio.ensure_future(runtime.probe())
            await runtime.list()
            return await probing

    probe = asyncio.run(flow())
    assert probe.available, probe.reason
    assert {finding.name for finding in probe.findings} >= {"nsjail", "python", "init"}
