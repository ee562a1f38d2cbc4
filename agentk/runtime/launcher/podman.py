"""The launcher's side of the process that speaks with Podman: started when it is first needed, and again when it dies.

It and Podman's service live in a mount namespace of their own, in which the trees of boxes are put together. We never
wait for it: what it answers comes by the loop. What it had not answered when it died is asked of the next one.
"""

import contextlib
import hashlib
import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from agentk.api import errors
from agentk.runtime import box as words
from agentk.runtime import kernel
from agentk.runtime.launcher import child, ending, loop
from agentk.runtime.launcher.world import World
from agentk.runtime.podman import spec
from agentk.runtime.seccomp import oci

_TRIES = 3  # of one question, each with a worker of its own
_PAUSE_SECONDS = 0.2  # before the next worker
_READ_BYTES = 1 << 16
_LINE_MAX_BYTES = 16 << 20
# What the worker says of an image that is not here, and of a registry's refusal.
_NOT_FOUND, _UPSTREAM = 404, 502
# What of our environment concerns Podman; the rest is nobody's.
_GIVEN = ("PATH", "HOME", "USER", "LANG", "TMPDIR", "PYTHONPATH", "REGISTRY_AUTH_FILE", "SSL_CERT_FILE")
_GIVEN_PREFIXES = (
    "XDG_",
    "CONTAINERS_",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
)
Answer = Callable[[dict[str, Any] | errors.AgentkError], None]


@dataclass
class _Question:
    op: str
    fields: dict[str, Any]
    answer: Answer
    hears: Callable[[str], None] | None = None
    tries: int = 0


@dataclass
class _Running:
    """One worker."""

    pid: int
    pidfd: int
    channel: socket.socket
    inbox: bytearray
    outbox: bytearray


class Podman:
    def __init__(self, world: World) -> None:
        self._world = world
        self._worker: _Running | None = None
        self._questions: dict[int, _Question] = {}
        self._count = 0
        self._written: set[str] = set()
        self.hard_processes = 0
        self.removals = 0  # children that unmount stages
        self.folder = world.settings.run / "podman"
        self.instance = hashlib.sha256(os.fsencode(world.settings.state)).hexdigest()[:16]
        self.service_pid = 0  # its namespaces are those that stages are made in

    def ask(self, op: str, answer: Answer, hears: Callable[[str], None] | None = None, **fields: Any) -> None:
        """`answer` gets what the worker says, or an error; `hears` how far it is. Never waits."""
        self._count += 1
        self._questions[self._count] = _Question(op, fields, answer, hears)
        self._send(self._count)

    def ready(self, answer: Answer, version: bool = False) -> None:
        """When there is a service, whose pid is then `service_pid`. `version`: the answer holds Podman's as well."""

        def told(result: dict[str, Any] | errors.AgentkError) -> None:
            if isinstance(result, dict):
                self.service_pid = int(result["pid"])
                self.hard_processes = int(result["processes"])
            answer(result)

        self.ask("ready", told, version=version)

    @property
    def is_busy(self) -> bool:
        """Whether something that was asked has no answer yet, or stages are being unmounted."""
        return bool(self._questions) or self.removals > 0

    def name(self, box_id: str) -> str:
        """Of a box's container."""
        return f"agentk-{self.instance}-{box_id}"

    def stage(self, box: words.Box) -> Path:
        """Where its tree is put together. Raises OSError when that place is somebody else's."""
        return self._stages() / box.id

    def stages(self) -> list[Path]:
        """Those that are there."""
        return sorted(self._stages().iterdir())

    def _stages(self) -> Path:
        settings = self._world.settings
        return stages(settings.state, settings.rootless)

    def ids(self, box: words.Box) -> spec.Ids:
        """Whom its users are on the host."""
        settings = self._world.settings
        return spec.Ids(0, 1) if settings.rootless else spec.Ids(box.host_uid, settings.nobody)

    def seccomp(self, name: str) -> str:
        """The file of a policy, "" for none. Raises ValueError for one that cannot be made for this machine."""
        if name == "privileged":
            return ""
        path = self.folder / f"seccomp-{name}.json"
        if name not in self._written:
            path.write_text(json.dumps(oci.oci_profile(name, os.uname().machine)))
            self._written.add(name)
        return str(path)

    def close(self) -> None:
        """The worker leaves, and its service with it; boxes go on."""
        worker, self._worker = self._worker, None
        if worker is not None:
            self._let_go(worker)
            signal.pidfd_send_signal(worker.pidfd, signal.SIGKILL)
            os.close(worker.pidfd)
            os.waitpid(worker.pid, 0)
            with contextlib.suppress(OSError):  # a box that is being made has its stage there
                self._stages().rmdir()

    def _send(self, number: int) -> None:
        question = self._questions[number]
        question.tries += 1
        try:
            worker = self._worker = self._worker or self._start()
        except OSError as error:
            del self._questions[number]
            refused = errors.Unavailable(f"cannot start what speaks with Podman: {error}")
            self._world.loop.after(0, lambda: question.answer(refused))
            return
        told = {"id": number, "op": question.op, **question.fields}
        worker.outbox += json.dumps(told, separators=(",", ":")).encode() + b"\n"
        self._flush(worker)

    def _flush(self, worker: _Running) -> None:
        try:
            while worker.outbox:
                del worker.outbox[: worker.channel.send(worker.outbox)]
        except BlockingIOError:
            pass
        except OSError:
            return  # its end is told by its pidfd
        events = loop.READ | (loop.WRITE if worker.outbox else 0)
        self._world.loop.watch(worker.channel.fileno(), events, lambda seen: self._heard(worker, seen))

    def _heard(self, worker: _Running, events: int) -> None:
        if events & loop.WRITE:
            self._flush(worker)
        if not events & (loop.READ | loop.HANG_UP):
            return
        try:
            data = worker.channel.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._world.loop.forget(worker.channel.fileno())
            return
        worker.inbox += data
        if len(worker.inbox) > _LINE_MAX_BYTES:
            signal.pidfd_send_signal(worker.pidfd, signal.SIGKILL)
            return
        if b"\n" not in data:
            return
        *lines, rest = worker.inbox.split(b"\n")
        worker.inbox = bytearray(rest)
        for line in lines:
            self._answered(json.loads(line))

    def _answered(self, told: dict[str, Any]) -> None:
        question = self._questions.get(int(told["id"]))
        if question is not None and "told" in told:
            if question.hears is not None:
                question.hears(str(told["told"]))
            return
        self._questions.pop(int(told["id"]), None)
        if question is None:
            return
        if "ok" in told:
            question.answer(told["ok"])
        elif told.get("status") == _NOT_FOUND:
            question.answer(errors.NotFound(str(told.get("error"))))
        elif told.get("status") == _UPSTREAM:
            question.answer(errors.UpstreamError(str(told.get("error"))))
        else:
            question.answer(errors.Unavailable(f"podman: {told.get('error')}", hint="agentk doctor"))

    def _start(self) -> _Running:
        world = self._world
        self.folder.mkdir(mode=0o700, exist_ok=True)
        entries = child.open_entries(world.groups.keeper_files())
        ours, theirs = socket.socketpair()
        try:
            pid = child.fork_into(theirs, lambda: self._become(theirs, entries))
        finally:
            theirs.close()
            for entry in entries:
                os.close(entry)
        ours.setblocking(False)
        worker = _Running(pid, os.pidfd_open(pid), ours, bytearray(), bytearray())
        world.loop.watch(worker.pidfd, loop.READ, lambda _: self._ended(worker))
        return worker

    def _become(self, channel: socket.socket, entries: list[int]) -> NoReturn:
        """In the child. Its namespace takes part in what the host mounts and unmounts, and in nothing else."""
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
        os.setsid()
        child.usual_signals()
        child.enter(entries)
        if not self._world.settings.rootless:
            kernel.unshare(kernel.CLONE_NEWNS)
            kernel.mount("none", "/", flags=kernel.MS_REC | kernel.MS_SLAVE)
        child.close_all_but({channel.fileno()})
        os.set_inheritable(channel.fileno(), True)
        os.chdir(self.folder)
        isolated = ["-I"] if sys.flags.isolated else []
        command = [sys.executable, *isolated, "-m", "agentk.runtime.podman.worker"]
        command += ["--fd", str(channel.fileno()), "--folder", str(self.folder), "--instance", self.instance]
        os.execve(sys.executable, command, _environment())

    def _ended(self, worker: _Running) -> None:
        """What it had not answered is asked again."""
        self._let_go(worker)
        os.close(worker.pidfd)
        ending.bury(self._world, worker.pid)
        self._worker, self.service_pid = None, 0
        self._world.loop.after(_PAUSE_SECONDS, self._again)

    def _let_go(self, worker: _Running) -> None:
        self._world.loop.forget(worker.pidfd)
        self._world.loop.forget(worker.channel.fileno())
        worker.channel.close()

    def _again(self) -> None:
        for number, question in list(self._questions.items()):
            if question.tries < _TRIES:
                self._send(number)
            else:
                del self._questions[number]
                question.answer(errors.Unavailable("what speaks with Podman ended", hint="agentk doctor"))


def _environment() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if name in _GIVEN or name.startswith(_GIVEN_PREFIXES)
    }


def stages(state: Path, rootless: bool) -> Path:
    """The folder in which stages are mounted: everybody may pass it, for root inside of a box is nobody here.

    Raises OSError when somebody else has made it.
    """
    base = Path(f"/tmp/.agentk-stages-{os.geteuid()}") if rootless else Path("/run/agentk-stages")
    for folder in (base, base / hashlib.sha256(os.fsencode(state)).hexdigest()[:16]):
        folder.mkdir(mode=0o700, exist_ok=True)
        child_of_ours(folder)
    return folder


def child_of_ours(folder: Path) -> None:
    """Whoever else could write here could send us anywhere."""
    seen = folder.lstat()
    if (
        not os.path.isdir(folder)
        or os.path.islink(folder)
        or seen.st_uid != os.geteuid()
        or seen.st_mode & 0o022
    ):
        raise PermissionError(f"{folder} must be a directory that nobody but us writes")
    folder.chmod(0o711)
