"""A real launcher for tests, with boxes to put into it."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from agentk.api import errors
from agentk.runtime import box, finding, jails, kernel, logs, uids
from agentk.runtime.launcher import asking

WAIT_SECONDS = 60.0  # for a loaded machine; nothing asserts it


def why_no_jail() -> str:
    """Why no jail can be made here, "" when one can."""
    binary = finding.nsjail()
    if binary is None:
        return "no nsjail"
    shown = [
        word for name in ("/usr", "/lib", "/lib64", "/bin") if os.path.exists(name) for word in ("-R", name)
    ]
    ids = ["-u", "65534:65534:1", "-g", "65534:65534:1"] if os.geteuid() == 0 else []
    done = subprocess.run(
        [binary, "-Mo", "-Q", *ids, *shown, "--", "/bin/true"], capture_output=True, check=False
    )
    return "" if done.returncode == 0 else f"nsjail cannot make a jail: {done.stderr.decode()[-200:]}"


needs_jail = [pytest.mark.jail, pytest.mark.skipif(bool(why := why_no_jail()), reason=why or "-")]


class Place:
    """State and run directories of one test, and its launchers."""

    def __init__(self, state: Path, instance: str) -> None:
        self.state, self.run, self.instance = state, state / "run", instance
        self.run.mkdir()
        self.socket = self.run / "launcher.sock"
        self.process: subprocess.Popen[bytes] | None = None
        self.kind = "nsjail"  # of the boxes it makes
        root = os.geteuid() == 0
        self.host_uid = uids.block(state, instance)[7] if root else -1

    def launch(self, *, crash_at: str = "", wait: bool = True) -> subprocess.Popen[bytes]:
        """Start a launcher; with `wait`, until it answers."""
        command = [sys.executable, "-m", "agentk.runtime.launcher", "--state", str(self.state)]
        command += ["--run", str(self.run), "--instance", self.instance]
        given = ("PATH", "PYTHONPATH", "HOME", "XDG_RUNTIME_DIR", "CONTAINERS_STORAGE_CONF")
        env = {name: os.environ[name] for name in given if name in os.environ}
        env["AGENTK_CRASH_AT"] = crash_at
        self.process = subprocess.Popen(command, env=env, cwd=Path(__file__).parent.parent.parent)
        if wait:
            self.wait_for_answer()
        return self.process

    def wait_for_answer(self) -> None:
        """Until the launcher answers; fails when it ended instead."""
        assert self.process is not None
        while asking.peer(self.socket) != self.process.pid:
            if self.process.poll() is not None:
                pytest.fail(f"the launcher ended with {self.process.returncode}")
            pause()

    def need_cgroups(self) -> None:
        """Skip the test where this account has none."""
        if asking.ask(self.socket, {"verb": "hello"})["missing"]:
            pytest.skip("needs cgroups")

    def die(self) -> None:
        """kill -9 of the launcher."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        """Everything, whatever state it is in."""
        if self.process is None or self.process.poll() is not None:
            self.launch(wait=False)
        assert self.process is not None
        with contextlib.suppress(errors.AgentkError):
            self.wait_for_answer()
            asking.end(self.socket, kill_boxes=True)
        try:
            self.process.wait(WAIT_SECONDS)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            if os.geteuid() == 0:
                uids.release(self.state)

    def make(self, *argv: str, attempt: int = 1, uid: str = "u-1", **told: Any) -> box.Box:
        """One with small limits."""
        wanted: dict[str, Any] = {
            "limits": box.Limits(cpu_millis=1000, memory_bytes=256 << 20, pids=64, open_files=256),
            "enforcement": "Strict" if os.geteuid() == 0 else "BestEffort",
            "runtime": self.kind,
        }
        return box.Box(
            id=f"{uid}-{attempt}",
            uid=uid,
            namespace="default",
            attempt=attempt,
            argv=argv,
            host_uid=self.host_uid,
            **{**wanted, **told},
        )

    def python(self, code: str, **told: Any) -> box.Box:
        """A box that runs a Python program."""
        return self.make("python", "-c", code, **told)

    def log(self, attempt: int = 1, uid: str = "u-1") -> list[str]:
        """Lines of an attempt's log, without times."""
        path = self.state / "logs" / f"default_{uid}" / f"{attempt}.log"
        return [line.text.decode() for line in logs.read(path)]


def pause() -> None:
    """Let others run."""
    os.sched_yield()
    signal.sigtimedwait([], 0.005)


@contextlib.contextmanager
def place() -> Iterator[Place]:
    """Short paths, for sockets; its own cgroups and uids; nothing is left."""
    folder = Path(tempfile.mkdtemp(prefix="ak-"))
    folder.chmod(0o755)
    there = Place(folder, f"t{os.getpid()}-{os.urandom(3).hex()}")
    try:
        yield there
    finally:
        there.end()
        shutil.rmtree(folder, ignore_errors=True)


async def ended(runtime: jails.Jails, box_id: str) -> box.Seen:
    """The box, once it has ended."""
    return await until(runtime, box_id, lambda seen: seen.phase in ("Exited", "Lost"))


async def until(runtime: jails.Jails, box_id: str, holds: Any) -> box.Seen:
    """The box, once `holds`."""
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            seen = next((seen for seen in await runtime.list() if seen.id == box_id), None)
            if seen is not None and holds(seen):
                return seen
            await asyncio.sleep(0.005)


async def logged(there: Place, text: str, attempt: int = 1, uid: str = "u-1") -> None:
    """Until the log holds a line with `text`."""
    await holds(lambda: any(text in line for line in there.log(attempt, uid)))


async def holds(condition: Callable[[], bool]) -> None:
    """Until the world is so; nothing tells of it, so it is asked again and again."""
    async with asyncio.timeout(WAIT_SECONDS):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def connected(there: Place) -> AsyncIterator[jails.Jails]:
    """A client of its launcher."""
    async with jails.connected(there.socket) as runtime:
        yield runtime


def environment_of(pid: int) -> Mapping[str, str]:
    """The environment of a host process."""
    pairs = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)


def groups(there: Place) -> list[Path]:
    """Every cgroup of an agent of this launcher, in every tree. Others come and go meanwhile."""
    found = (
        Path(at) / "default"
        for at, *_ in os.walk("/sys/fs/cgroup")
        if at.endswith(f"agentk-{there.instance}")
    )
    return [namespace / name for namespace in found for name in _folders(namespace)]


def leaves(there: Place, wanted: box.Box, prefix: str) -> list[Path]:
    """Leaf groups beside a box whose names begin so, in every tree."""
    own = [group for group in groups(there) if group.name == wanted.cgroup]
    return [group / name for group in own for name in _folders(group) if name.startswith(prefix)]


def _folders(folder: Path) -> list[str]:
    try:
        return [entry.name for entry in os.scandir(folder) if entry.is_dir()]
    except OSError:
        return []


def oom_score(pid: int) -> int:
    """What was added to a process' chance to be ended when memory is short; 0 for one that is gone."""
    try:
        return int(Path(f"/proc/{pid}/oom_score_adj").read_text())
    except OSError:
        return 0


def same_boot() -> str:
    """This boot's id."""
    return kernel.boot_id()
