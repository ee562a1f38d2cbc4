"""Programs put into a box that runs: what they are there, what they may do, and what ends them."""

import asyncio
import contextlib
import json
import os
import termios
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agentk.api import errors
from agentk.runtime import box, hands, jails
from agentk.runtime.launcher import crash
from tests.runtime import hand_rig, launching, podmans
from tests.runtime.launching import Place

SLEEP = "echo up; exec sleep 1000"
RUNTIMES = [
    pytest.param("nsjail", marks=launching.needs_jail),
    pytest.param("podman", marks=podmans.needs_podman),
    "process",
]
JAILS = RUNTIMES[:2]


def jailed(test: Callable[..., None]) -> Callable[..., None]:
    """Needs nsjail."""
    for mark in launching.needs_jail:
        test = mark(test)
    return test


WHO = """
import json, os, resource
told = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
names = "Uid Gid Groups CapInh CapPrm CapEff CapBnd CapAmb NoNewPrivs Seccomp SigBlk SigIgn".split()
spaces = ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup")
print(json.dumps({
    "status": {name: told[name].split() for name in names},
    "cwd": os.getcwd(), "umask": os.umask(0), "env": dict(os.environ), "nice": os.nice(0),
    "limits": {str(n): resource.getrlimit(n) for n in range(16)},
    "spaces": {name: os.readlink("/proc/self/ns/" + name) for name in spaces},
    "fds": sorted(map(int, os.listdir("/proc/self/fd")))[:-1],
    "root": os.listdir("/"), "oom": open("/proc/self/oom_score_adj").read(),
    "session": os.getsid(0) == os.getpid(), "pids": sorted(p for p in os.listdir("/proc") if p.isdigit())[:1],
}))
"""


@pytest.fixture(scope="module")
def there() -> Iterator[Place]:
    with launching.place() as made:
        made.launch()
        yield made


def python(runtime: str) -> str:
    return "/usr/bin/python3" if runtime == "process" else "python"


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_it_speaks_through_the_ends_it_was_given(there: Place, runtime: str) -> None:
    script = "cat; echo oh >&2; exit 3"
    said = hand_rig.entered(
        there, f"io-{runtime}", "sh", "-c", script, fed=b"hello", box_told={"runtime": runtime}
    )
    assert (said.out, said.err) == (b"hello", b"oh\n")
    assert (said.exit.code, said.exit.signal, said.exit.source) == (3, None, "wait")


@pytest.mark.parametrize("seccomp", ["baseline", "restricted", "privileged"])
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_it_is_what_the_box_is(there: Place, runtime: str, seccomp: str) -> None:
    """Beside a process of the box itself: same ids, rights, namespaces, limits, files, environment and directory."""

    async def flow() -> tuple[dict[str, Any], dict[str, Any]]:
        told = {"runtime": runtime, "seccomp": seccomp, "env": {"GIVEN": "yes", "LD_X": "late"}}
        told |= {"uid": f"same-{runtime}-{seccomp}"}
        async with launching.connected(there) as client:
            if runtime == "process":
                told["enforcement"] = "BestEffort"
            code = f"{WHO}\nimport sys, time; sys.stdout.flush(); time.sleep(1000)"
            first = await client.start(there.make(python(runtime), "-c", code, **told))
            await launching.logged(there, "status", uid=first.uid)
            mine = json.loads(next(line for line in there.log(uid=first.uid) if "status" in line))
            said = await hand_rig.enter(client, first.id, python(runtime), "-c", WHO)
            await client.remove(first.id)
            return mine, json.loads(said.out)

    mine, its = asyncio.run(flow())
    mine["env"].pop("SHLVL", None), its["env"].pop("SHLVL", None)
    if runtime == "process":
        assert its["env"].pop("AGENTK_BOX") != mine["env"].pop("AGENTK_BOX")
        mine["status"]["SigIgn"] = its["status"]["SigIgn"]  # its keeping shell ignores two for it
    if runtime == "podman":  # adds its own group once more
        assert mine["status"].pop("Groups") == ["1000"]
        assert its["status"].pop("Groups") == []
    for name in ("_", "PWD", "OLDPWD"):
        mine["env"].pop(name, None)
    assert its.pop("session")
    mine.pop("session")
    assert its.pop("fds") == [0, 1, 2]
    mine.pop("fds")
    mine["status"]["SigBlk"] = ["0" * 16]  # some inits block what stops their terminal
    for name, said in mine.pop("status").items():
        assert (name, its["status"][name]) == (name, said)
    del its["status"]
    assert its == mine


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_it_may_be_elsewhere_and_know_more(there: Place, runtime: str) -> None:
    told = {"cwd": "/workspace", "env": {"MORE": "1"}, "box_told": {"runtime": runtime}}
    script = "echo $MORE; [ -e mark ] || touch mark; ls"
    assert hand_rig.entered(there, f"cwd-{runtime}", "sh", "-c", script, **told).out == b"1\nmark\n"


@jailed
def test_programs_that_are_not_there_answer_as_in_a_shell(there: Place) -> None:
    said = hand_rig.entered(there, "no1", "no-such-thing")
    assert (said.exit.code, said.err) == (127, b"agentk: no-such-thing: not found\n")
    said = hand_rig.entered(there, "no2", "/etc/passwd")
    assert (said.exit.code, said.err) == (126, b"agentk: /etc/passwd: cannot be executed\n")


@jailed
@pytest.mark.parametrize(
    ("told", "error"),
    [
        ({"cwd": "/nowhere"}, errors.RuntimeRefused),
        ({"cwd": "nowhere"}, errors.Invalid),
        ({"env": {"AGENTK_SOCKET": "/x"}}, errors.Invalid),
        ({"env": {"A=B": "x"}}, errors.Invalid),
        ({"hand_id": "../x"}, errors.Invalid),
        ({"timeout_seconds": float("nan")}, errors.BadRequest),
        ({"tty": True}, errors.Invalid),
    ],
)
def test_what_cannot_be_is_refused(there: Place, told: Any, error: Any) -> None:
    with pytest.raises(error):
        hand_rig.entered(there, "bad", "true", **told)


@jailed
def test_only_pipes_and_terminals_come_in(there: Place, tmp_path: Path) -> None:
    """A directory or a file of the host's would be a way out of the box."""
    (tmp_path / "file").touch()

    async def flow() -> None:
        async with hand_rig.running(there, "fds") as (runtime, seen):
            null = os.open("/dev/null", os.O_RDWR)
            link = await runtime.linked()
            for path in (tmp_path, tmp_path / "file", "/dev/zero", "/proc/self/status"):
                fd = os.open(path, os.O_RDONLY)
                with pytest.raises(errors.Invalid, match="pipes or a terminal"):
                    await hands.Hands(runtime).enter(seen.id, ["true"], stdin=null, stdout=fd, stderr=null)
                os.close(fd)
            for count in (0, 2, 4):
                message = {"verb": "enter", "box_id": seen.id, "hand_id": "x", "argv": ["true"]}
                with pytest.raises(errors.Invalid, match="descriptors must come"):
                    await link.ask(message, [null] * count)
            os.close(null)

    asyncio.run(flow())


@jailed
def test_a_terminal_is_its_own(there: Place) -> None:
    """Its size, its interrupts and its hanging up reach the program."""
    there.need_cgroups()

    async def flow() -> None:
        async with hand_rig.running(there, "tty") as (runtime, seen):
            ours, theirs = os.openpty()
            termios.tcsetwinsize(ours, (33, 99))
            script = "stty size; tty >/dev/null; trap 'echo caught; exit 7' INT; echo ready; while :; do read x; done"
            asking = asyncio.ensure_future(
                hands.Hands(runtime).enter(
                    seen.id, ["sh", "-c", script], stdin=theirs, stdout=theirs, stderr=theirs, tty=True
                )
            )
            said = b""
            while b"ready" not in said:
                said += await asyncio.to_thread(os.read, ours, 4096)
            assert b"33 99" in said
            os.write(ours, b"\x03")
            assert (await asking).code == 7
            os.close(theirs)
            os.close(ours)
            ours, theirs = os.openpty()  # the end of a session is the end of its terminal
            asking = asyncio.ensure_future(
                hands.Hands(runtime).enter(
                    seen.id, ["sleep", "1000"], stdin=theirs, stdout=theirs, stderr=theirs, tty=True
                )
            )
            await launching.holds(lambda: bool(in_leaves("tty", "hand-", "sleep")))
            os.close(theirs)
            os.close(ours)
            assert (await asking).signal == 1

    asyncio.run(flow())


def in_leaves(uid: str, leaf: str, name: str = "") -> list[int]:
    """Processes in such leaves of that agent."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            group, comm = (Path(f"/proc/{pid}/{file}").read_text() for file in ("cgroup", "comm"))
            if f"/{uid}/{leaf}" in group and name in ("", comm.strip()):
                found.append(int(pid))
    return found


GREEDY = """
import os, time
for _ in range(40):
    try:
        if os.fork() == 0:
            break
    except OSError:
        pass
time.sleep(1000)
"""
TREE = "(setsid sh -c 'sleep 1000' &) ; setsid sleep 1000 & sleep 1000 & echo up; "


def begun(runtime: jails.Jails, box_id: str, script: str, **told: Any) -> "asyncio.Task[box.Exit]":
    """One that runs, with nothing to read or say."""
    null = os.open("/dev/null", os.O_RDWR)

    async def flow() -> box.Exit:
        try:
            return await hands.Hands(runtime).enter(
                box_id, ["sh", "-c", script], stdin=null, stdout=null, stderr=null, **told
            )
        finally:
            os.close(null)

    return asyncio.ensure_future(flow())


@pytest.mark.parametrize("runtime", JAILS)
@pytest.mark.parametrize("end", ["by itself", "cancelled", "call", "time", "connection", "box", "removed"])
def test_its_end_is_the_end_of_all_that_it_started(there: Place, end: str, runtime: str) -> None:
    there.need_cgroups()
    uid = f"end-{runtime}-{end.replace(' ', '')}"
    script = TREE + ("sleep 0.2; exit 4" if end == "by itself" else "wait")

    async def flow() -> None:
        box_told = {"runtime": runtime}
        async with (
            hand_rig.running(there, uid, **box_told) as (client, seen),
            launching.connected(there) as other,
        ):
            told = {"timeout_seconds": 1.0} if end == "time" else {}
            asking = begun(other if end == "connection" else client, seen.id, script, hand_id="it", **told)
            await launching.holds(lambda: len(in_leaves(uid, "hand-", "sleep")) >= 3 or asking.done())
            if end == "cancelled":
                await hands.Hands(client).cancel(seen.id, "it")
            elif end == "call":
                asking.cancel()
            elif end == "connection":
                other.close()
            elif end == "box":
                await client.kill(seen.id, box.Intent("Killed"))
            elif end == "removed":
                await client.remove(seen.id)
            if end in ("call", "connection"):
                with pytest.raises((asyncio.CancelledError, errors.OutcomeUnknown)):
                    await asking
            else:
                ended = await asking
                if end == "by itself":
                    assert (ended.code, ended.intent) == (4, None)
                else:
                    assert (ended.code, ended.signal) == (137, 9)
                wanted = {"time": "DeadlineExceeded", "cancelled": "Killed"}.get(end)
                assert wanted is None or (ended.intent and ended.intent.reason == wanted)
            await launching.holds(lambda: not in_leaves(uid, "hand-"))
            if end in ("by itself", "cancelled", "call", "time", "connection"):
                await launching.holds(lambda: bool(in_leaves(uid, "", "sleep")))
                assert (await hand_rig.enter(client, seen.id, "echo", "still")).out == b"still\n"

    asyncio.run(flow())
    assert not [name for name in os.listdir(there.state / "boxes") if "hand-" in name]


@jailed
@pytest.mark.parametrize("point", ["", *(name for name in crash.POINTS if name.startswith("enter."))])
def test_it_does_not_outlive_its_launcher(point: str) -> None:
    with launching.place() as there:
        there.launch(crash_at=point)
        there.need_cgroups()

        async def flow() -> None:
            async with launching.connected(there) as runtime:
                seen = await runtime.start(there.make("sh", "-c", SLEEP))
                script = TREE + "wait" if point in ("", "enter.after-fork") else "true"
                asking = begun(runtime, seen.id, script)
                if not point:
                    await launching.holds(lambda: len(in_leaves("u-1", "hand-", "sleep")) >= 3)
                    there.die()
                assert there.process is not None
                await asyncio.to_thread(there.process.wait)
                there.launch(wait=False)
                with pytest.raises(errors.OutcomeUnknown):
                    await asking
                await launching.holds(lambda: not in_leaves("u-1", "hand-"))
                now = await launching.until(runtime, seen.id, lambda told: told.phase == "Running")
                assert now.process == seen.process
                assert (await hand_rig.enter(runtime, seen.id, "echo", "again")).out == b"again\n"

        asyncio.run(flow())
        assert not [name for name in os.listdir(there.state / "boxes") if "hand-" in name]


@pytest.mark.parametrize("runtime", JAILS)
def test_it_stands_still_with_its_box(there: Place, runtime: str) -> None:
    there.need_cgroups()

    async def flow() -> None:
        async with hand_rig.running(there, f"still-{runtime}", runtime=runtime) as (client, seen):
            read, write = os.pipe()
            null = os.open("/dev/null", os.O_RDWR)
            script = "while :; do echo x; done"
            asking = asyncio.ensure_future(
                hands.Hands(client).enter(
                    seen.id, ["sh", "-c", script], stdin=null, stdout=write, stderr=null, hand_id="x"
                )
            )
            assert await asyncio.to_thread(os.read, read, 1) == b"x"
            await client.freeze(seen.id)
            with pytest.raises(errors.Conflict, match="frozen"):
                await hand_rig.enter(client, seen.id, "true")
            os.set_blocking(read, False)
            with contextlib.suppress(BlockingIOError):
                while os.read(read, 1 << 20):
                    pass
            with pytest.raises(BlockingIOError):  # it is empty, and stays so
                os.read(read, 1)
            await client.thaw(seen.id)
            os.set_blocking(read, True)
            assert await asyncio.to_thread(os.read, read, 1) == b"x"
            await hands.Hands(client).cancel(seen.id, "x")
            assert (await asking).signal == 9
            for fd in (read, write, null):
                os.close(fd)

    asyncio.run(flow())


@pytest.mark.parametrize("runtime", JAILS)
def test_the_agents_limits_hold_them_all(there: Place, runtime: str) -> None:
    """Of processes: one that does not fit does not begin, and what is inside gets no more than the rest."""
    there.need_cgroups()

    async def flow() -> None:
        told = {"limits": box.Limits(pids=16), "seccomp": "restricted"}
        async with hand_rig.running(there, f"pids-{runtime}", runtime=runtime, **told) as (client, seen):
            first = begun(client, seen.id, f'exec python -c "{GREEDY}"', hand_id="greedy")
            await launching.holds(lambda: len(in_leaves(f"pids-{runtime}", "")) >= 16)
            for _ in range(8):
                with pytest.raises(errors.RuntimeRefused, match="as many processes as it may have"):
                    await hand_rig.enter(client, seen.id, "true")
            assert len(in_leaves(f"pids-{runtime}", "")) <= 16
            await hands.Hands(client).cancel(seen.id, "greedy")
            assert (await first).signal == 9
            await launching.holds(lambda: len(in_leaves(f"pids-{runtime}", "")) < 8)
            assert (await hand_rig.enter(client, seen.id, "echo", "room")).out == b"room\n"

    asyncio.run(flow())


@jailed
def test_so_many_at_once_and_each_by_its_own_name(there: Place) -> None:
    async def flow() -> None:
        async with hand_rig.running(there, "many", limits=box.Limits()) as (runtime, seen):
            asking = [begun(runtime, seen.id, "sleep 1000", hand_id=f"h{number}") for number in range(32)]
            with pytest.raises((errors.TooManyRequests, errors.Conflict)):
                await begun(runtime, seen.id, "true", hand_id="h0")
            with pytest.raises(errors.TooManyRequests):
                await begun(runtime, seen.id, "true")
            await hands.Hands(runtime).cancel(seen.id, "h3")
            assert (await asking[3]).signal == 9
            with pytest.raises(errors.Conflict):
                await begun(runtime, seen.id, "true", hand_id="h4")
            for one in asking:
                one.cancel()
            await asyncio.gather(*asking, return_exceptions=True)

    asyncio.run(flow())
