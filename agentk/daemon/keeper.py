"""The keeper: the small process that starts the launcher and the daemon, and starts again whichever of them dies.

As root it is the only one that could: the daemon has given its rights away, and the launcher may be the one that
died. It holds the control socket, so that callers wait in its backlog while the daemon starts again. It must
never parse what a person or a guest wrote. When the keeper itself dies the daemon stops (its parent-death
signal), the launcher and every agent go on, and the next command starts a keeper that finds them.
"""

import contextlib
import fcntl
import os
import select
import shutil
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agentk.api import errors
from agentk.client import lifecycle
from agentk.daemon import revealing, rights, sockets
from agentk.data.places import Places
from agentk.runtime import uids, workspace_removal
from agentk.runtime.launcher import asking, doors

_RESTART_FIRST_SECONDS = 0.1
_RESTART_MAX_SECONDS = 5.0
_STEADY_SECONDS = 10.0  # running this long forgives earlier deaths
_REASON_BYTES = 4096  # of the daemon's own words for why it does not start
_STOP_SECONDS = 10.0  # for the daemon to end what it is writing
_REMOVE_SECONDS = 20.0
EXIT_STOP = 0  # the daemon was asked to stop: do not start it again
EXIT_STOP_AGENTS = 3  # … and to end every agent with it
EXIT_CONFIG = 78  # EX_CONFIG of sysexits.h: starting again would fail the same way


@dataclass
class Child:
    """One of the two we keep. `pidfd` also watches a launcher that an earlier keeper started."""

    name: str
    pid: int = 0
    pidfd: int = -1
    started: float = 0.0
    deaths: int = 0
    ours: bool = True

    def died(self, now: float) -> float:
        """Note the death; return how many seconds to wait before the next start."""
        os.close(self.pidfd)
        self.pid, self.pidfd = 0, -1
        self.deaths = 1 if now - self.started > _STEADY_SECONDS else self.deaths + 1
        return min(_RESTART_FIRST_SECONDS * 2.0 ** (self.deaths - 1), _RESTART_MAX_SECONDS)


@dataclass
class Keeper:
    places: Places
    config: Path | None
    ready_fd: int = -1  # told "ready" or why not, once
    life_fd: int = -1  # its end of file ends everything, agents and state included
    launcher: Child = field(default_factory=lambda: Child("launcher"))
    daemon: Child = field(default_factory=lambda: Child("daemon"))
    daemon_uid: int = -1
    control: socket.socket | None = None
    due: dict[str, float] = field(default_factory=dict)
    exit_code: int | None = None
    end_agents: bool = False
    readiness: int = -1  # where the daemon says that it answers, or why it never will
    refusal: str = ""

    def run(self) -> int:
        """Keep both alive until told to stop. Returns this process's exit code."""
        for fd in (self.ready_fd, self.life_fd):
            if fd >= 0:
                os.set_inheritable(fd, False)  # or a launcher would keep the caller waiting for their end
        held = -1
        try:
            held = lock(self.places)
            self._prepare()
            with _signals() as wakeups:
                self._start_launcher()
                self._start_daemon()
                while self.exit_code is None:
                    self._once(wakeups)
            return self.exit_code
        except errors.AgentkError as error:
            self._tell(str(error))
            raise
        finally:
            if held >= 0:
                self._stop()
                os.close(held)

    # -- one turn ---------------------------------------------------------------------------------------------

    def _once(self, wakeups: int) -> None:
        poll = select.poll()
        watched = {wakeups: "signal"}
        for child in (self.launcher, self.daemon):
            if child.pidfd >= 0:
                watched[child.pidfd] = child.name
        for fd, name in ((self.life_fd, "life"), (self.readiness, "readiness")):
            if fd >= 0:
                watched[fd] = name
        for fd in watched:
            poll.register(fd, select.POLLIN | select.POLLHUP)
        now = time.monotonic()
        wait = min((max(0.0, at - now) for at in self.due.values()), default=None)
        for fd, _ in poll.poll(None if wait is None else int(wait * 1000) + 1):
            what = watched[fd]
            if what == "signal":
                self._signalled(os.read(wakeups, 64))
            elif what == "life":
                self.exit_code, self.end_agents = 0, True
            elif what == "readiness":
                self._hear_readiness()
            elif what == "launcher":
                self._reap(self.launcher)
                self.due["launcher"] = time.monotonic() + self.launcher.died(time.monotonic())
            else:
                self._daemon_ended(self._reap(self.daemon))
        self._start_due(time.monotonic())

    def _start_due(self, now: float) -> None:
        for name in [name for name, at in self.due.items() if at <= now and self.exit_code is None]:
            del self.due[name]
            if name == "launcher":
                self._start_launcher()
            else:
                self._start_daemon()

    def _signalled(self, numbers: bytes) -> None:
        if signal.SIGTERM in numbers or signal.SIGINT in numbers:
            self.exit_code = 0

    def _daemon_ended(self, code: int) -> None:
        if self.readiness >= 0:
            self._hear_readiness()
        wait = self.daemon.died(time.monotonic())
        self.end_agents = code == EXIT_STOP_AGENTS
        if code in (EXIT_STOP, EXIT_STOP_AGENTS, EXIT_CONFIG):
            self._tell(self.refusal or "the daemon refused to start: see its log")
            self.exit_code = EXIT_CONFIG if code == EXIT_CONFIG else 0
            return
        if self.ready_fd >= 0 and self.daemon.deaths >= 3:
            self._tell("the daemon ended three times while starting: see its log")
            self.exit_code = 1
            return
        print(f"agentk: the daemon ended with {code}; starting it again", file=sys.stderr, flush=True)
        self.due["daemon"] = time.monotonic() + wait

    def _hear_readiness(self) -> None:
        said = os.read(self.readiness, _REASON_BYTES).decode(errors="replace")
        if said == "ready":
            self._tell("ready")
        self.refusal = said
        os.close(self.readiness)
        self.readiness = -1

    @staticmethod
    def _reap(child: Child) -> int:
        if not child.ours:
            return 0
        _, status = os.waitpid(child.pid, 0)
        return os.waitstatus_to_exitcode(status)

    def _tell(self, text: str) -> None:
        if self.ready_fd >= 0:
            with contextlib.suppress(OSError):
                os.write(self.ready_fd, text.encode())
            os.close(self.ready_fd)
            self.ready_fd = -1

    # -- starting ---------------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        self.daemon_uid = rights.prepare(self.places)
        self.control = sockets.bind(self.places.socket)

    def _start_launcher(self) -> None:
        found = asking.peer(self.places.launcher_socket)
        if found is not None:
            self.launcher.pid, self.launcher.ours = found, False
        else:
            argv = ["-m", "agentk.runtime.launcher", "--state", str(self.places.state)]
            argv += ["--run", str(self.places.run), "--instance", self.places.instance]
            if os.getuid() == 0:
                argv += ["--daemon-uid", str(self.daemon_uid)]
            self.launcher.pid, self.launcher.ours = _spawn(argv, keep=()), True
        self.launcher.pidfd = os.pidfd_open(self.launcher.pid)
        self.launcher.started = time.monotonic()

    def _start_daemon(self) -> None:
        assert self.control is not None
        keep = [self.control.fileno()]
        ready_write = -1
        argv = [
            "-m",
            "agentk.daemon",
            "serve",
            "--state",
            str(self.places.state),
            "--run",
            str(self.places.run),
        ]
        argv += ["--socket-fd", str(self.control.fileno()), "--owner-uid", str(os.getuid())]
        if self.ready_fd >= 0:
            self.readiness, ready_write = os.pipe2(os.O_CLOEXEC)
            keep.append(ready_write)
            argv += ["--ready-fd", str(ready_write)]
        config = -1
        if self.config is not None:
            config = os.open(self.config, os.O_RDONLY | os.O_CLOEXEC)
            keep.append(config)
            argv += ["--config-fd", str(config), "--config-name", str(self.config)]
        try:
            uid = self.daemon_uid if os.getuid() == 0 else None
            self.daemon.pid = _spawn(argv, keep=keep, uid=uid, places=self.places)
        finally:
            for fd in (config, ready_write):
                if fd >= 0:
                    os.close(fd)
        self.daemon.pidfd = os.pidfd_open(self.daemon.pid)
        self.daemon.started = time.monotonic()

    # -- stopping ---------------------------------------------------------------------------------------------

    def _stop(self) -> None:
        """The daemon first, so that it writes what it knows. The launcher goes on while it keeps boxes."""
        if self.daemon.pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.daemon.pidfd, signal.SIGTERM)
            if not _ended(self.daemon.pidfd, _STOP_SECONDS):
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(self.daemon.pidfd, signal.SIGKILL)
            self._reap(self.daemon)
        self.end_agents |= self.life_fd >= 0  # a private daemon takes everything along, whoever ends it
        if self.launcher.pidfd >= 0:
            try:
                asking.end(self.places.launcher_socket, kill_boxes=self.end_agents)
            except (errors.AgentkError, OSError):  # not listening yet: it has started nothing
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(self.launcher.pidfd, signal.SIGTERM)
            if self.end_agents and not _ended(self.launcher.pidfd, _STOP_SECONDS):
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(self.launcher.pidfd, signal.SIGKILL)
        if self.control is not None:
            self.control.close()
            with contextlib.suppress(OSError):
                self.places.socket.unlink()
        if self.life_fd >= 0:
            self._remove_all()

    def _remove_all(self) -> None:
        """A private daemon's state. What guests made is deeper and more closed than rmtree can remove."""
        trash = self.places.state / "trash"
        workspace_removal.throw_away(self.places.state / "workspaces", trash)
        workspace_removal.sweep(trash, _REMOVE_SECONDS)
        opened = doors.open_folder(self.places.run, self.places.instance, rootless=os.getuid() != 0)
        for path in (opened, self.places.run, self.places.state):
            shutil.rmtree(path, ignore_errors=True)
        if os.getuid() == 0:
            uids.release(self.places.state)


def usual_config(env: Mapping[str, str], uid: int) -> Path | None:
    """`AGENTK_CONFIG`, which must exist, else the first usual place that does, else None."""
    if env.get("AGENTK_CONFIG"):
        return Path(env["AGENTK_CONFIG"])
    home = Path(env.get("XDG_CONFIG_HOME") or Path(env.get("HOME") or "/") / ".config")
    usual = Path("/etc/agentk/config.yaml") if uid == 0 else home / "agentk" / "config.yaml"
    return usual if usual.is_file() else None


def _spawn(
    argv: Sequence[str], keep: Sequence[int], uid: int | None = None, places: Places | None = None
) -> int:
    """Fork and exec our own interpreter in a session of its own. `uid` also drops every right for good."""
    program = [sys.executable, "-I", *argv]
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        for fd in keep:
            os.set_inheritable(fd, True)
        if uid is not None and places is not None:
            revealing.reveal(revealing.trees(places), uid)
            rights.become(uid)
        os.execve(sys.executable, program, lifecycle.clean_environment(os.environ))
    except BaseException as error:  # noqa: BLE001 (a forked child must never return into the parent's code)
        print(f"agentk: cannot start {' '.join(program)}: {error}", file=sys.stderr, flush=True)
        os._exit(127)


def lock(places: Places) -> int:
    """One keeper for one state directory."""
    places.state.mkdir(parents=True, exist_ok=True, mode=0o700)
    owner = places.state.stat().st_uid
    if owner != os.getuid():  # who owns it could send us, who may be root, anywhere
        raise errors.Forbidden(
            f"{places.state} belongs to uid {owner}, not to uid {os.getuid()}",
            hint="set AGENTK_STATE_DIR to a directory of your own",
        )
    fd = os.open(places.state / "keeper.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(fd, 32).decode().strip() or "unknown"
        os.close(fd)
        raise errors.AlreadyExists(
            f"a daemon already runs for {places.state} (pid {holder})",
            hint="use it, or end it with: agentk daemon stop",
        ) from None
    os.ftruncate(fd, 0)
    os.write(fd, f"{os.getpid()}\n".encode())
    return fd


def _ended(pidfd: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(int(seconds * 1000)))


@contextlib.contextmanager
def _signals() -> Iterator[int]:
    """SIGTERM and SIGINT arrive as bytes on a descriptor, so that one poll sees everything."""
    read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    previous = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        yield read
    finally:
        signal.set_wakeup_fd(previous)
        os.close(read)
        os.close(write)
