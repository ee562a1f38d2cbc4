"""The daemon's life as a person meets it: started on first use, asked how it is, ended.

The daemon must not inherit what is the caller's own: it gets a clean environment (no keys), a session of its own
and, where systemd runs, a scope of its own with its cgroups delegated. Ends of pipes tell truth across kill -9:
a private daemon lives exactly as long as the process that holds the other end.
"""

import contextlib
import fcntl
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from agentk.api import errors
from agentk.client import client
from agentk.data.places import RUN_PATH_MAX, Places

_START_SECONDS = 30.0
_STOP_SECONDS = 30.0
# What the daemon may know of its caller. Everything else, keys above all, stays outside.
_PASSED = ("HOME", "LANG", "LC_ALL", "TZ", "USER", "LOGNAME", "DBUS_SESSION_BUS_ADDRESS")
# CONTAINERS_ says where the caller's Podman keeps its images: the daemon's are the same.
_PASSED_PREFIXES = ("AGENTK_", "XDG_", "CONTAINERS_")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def answers(places: Places) -> bool:
    """True when somebody listens on the control socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(5)
        try:
            probe.connect(str(places.socket))
        except OSError:
            return False
    return True


def ensure_daemon(places: Places, env: Mapping[str, str]) -> bool:
    """Start the daemon unless it answers. True when this call started it, and says so on stderr.

    Raises Unavailable with the daemon's own reason when it does not start.
    """
    if answers(places):
        return False
    _check(places)
    places.state.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = os.open(places.state / "start.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if answers(places):
            return False
        print("starting the agentk daemon …", file=sys.stderr, flush=True)
        start(places, env)
        return True
    finally:
        os.close(lock)


def start(places: Places, env: Mapping[str, str], life_fd: int = -1) -> None:
    """Start a daemon for `places` and wait until it answers. Raises Unavailable with its reason."""
    ready_read, ready_write = os.pipe()
    log = places.state / "daemon.log"
    keep = [ready_write]
    command = [sys.executable, "-I", "-m", "agentk.daemon", "run", "--ready-fd", str(ready_write)]
    if life_fd >= 0:
        keep.append(life_fd)
        command += ["--life-fd", str(life_fd)]
    clean = clean_environment(env)
    clean["AGENTK_STATE_DIR"], clean["AGENTK_RUN_DIR"] = str(places.state), str(places.run)
    try:
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            subprocess.Popen(
                [*_scope(env), *command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=clean,
                cwd="/",
                pass_fds=keep,
                start_new_session=True,
            )
        finally:
            os.close(out)
            os.close(ready_write)
            ready_write = -1
        said = _read_all(ready_read, _START_SECONDS)
    finally:
        os.close(ready_read)
        if ready_write >= 0:
            os.close(ready_write)
    if said != "ready":
        reason = said or _last_words(log)
        raise errors.Unavailable(
            f"the daemon did not start: {reason}", hint=f"read {log}, then: agentk doctor"
        )


def stop(places: Places, kill_agents: bool = False) -> bool:
    """End the keeper and with it the daemon. Agents go on, unless `kill_agents`. False when none ran."""
    pid = keeper_pid(places)
    if pid is None:
        return False
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        if kill_agents:
            client.Client(places.socket).request("POST", "/agentk/v1/shutdown", body={"killAgents": True})
        else:
            signal.pidfd_send_signal(pidfd, signal.SIGTERM)
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        if not poll.poll(int(_STOP_SECONDS * 1000)):
            raise errors.Timeout(f"the daemon (pid {pid}) did not end within {_STOP_SECONDS:.0f} s")
    finally:
        os.close(pidfd)
    return True


def keeper_pid(places: Places) -> int | None:
    """Pid of the keeper that holds the lock of this state directory, or None when no one holds it."""
    try:
        fd = os.open(places.state / "keeper.lock", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return None
    except BlockingIOError:
        text = os.read(fd, 32).decode().strip()
        return int(text) if text.isdigit() else None
    finally:
        os.close(fd)


@contextlib.contextmanager
def private_daemon(env: Mapping[str, str]) -> Iterator[Places]:
    """A daemon with a state of its own that ends, agents, state and all, with this process, however that ends."""
    state = Path(tempfile.mkdtemp(prefix="agentk-run-"))
    places = Places(state, state / "run")
    life_read, life_write = os.pipe()
    try:
        start(places, env, life_fd=life_read)
        os.close(life_read)
        life_read = -1
        yield places
    finally:
        if life_read >= 0:
            os.close(life_read)
        os.close(life_write)
        _wait_gone(state)


def clean_environment(env: Mapping[str, str]) -> dict[str, str]:
    """What the daemon may inherit of a caller's environment."""
    kept = {key: env[key] for key in _PASSED if key in env}
    kept |= {key: value for key, value in env.items() if key.startswith(_PASSED_PREFIXES)}
    return kept | {"PATH": _PATH}


def _scope(env: Mapping[str, str]) -> list[str]:
    """The systemd scope that outlives the caller's session and has its cgroups delegated; [] without systemd."""
    if not Path("/run/systemd/system").is_dir() or shutil.which("systemd-run") is None:
        return []
    user = ["--user"] if os.getuid() else []
    if user and not Path(env.get("XDG_RUNTIME_DIR") or "/nonexistent", "systemd", "private").exists():
        return []
    return ["systemd-run", *user, "--scope", "--quiet", "--collect", "--property=Delegate=yes", "--"]


def _check(places: Places) -> None:
    if len(str(places.run)) > RUN_PATH_MAX:
        raise errors.Invalid(
            f"the directory for sockets is too long: {places.run} ({len(str(places.run))} bytes)",
            hint=f"set AGENTK_RUN_DIR to a path of at most {RUN_PATH_MAX} bytes",
        )


def _read_all(fd: int, seconds: float) -> str:
    """All bytes until the other end closes, or "" when that takes too long."""
    poll, parts = select.poll(), b""
    poll.register(fd, select.POLLIN | select.POLLHUP)
    deadline = time.monotonic() + seconds
    while poll.poll(max(0, int((deadline - time.monotonic()) * 1000))):
        part = os.read(fd, 65536)
        if not part:
            break
        parts += part
    return parts.decode(errors="replace").strip()


def _last_words(log: Path) -> str:
    with contextlib.suppress(OSError):
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1] if lines else "it said nothing"
    return "its log cannot be read"


def _wait_gone(state: Path) -> None:
    deadline = time.monotonic() + _STOP_SECONDS
    while state.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
