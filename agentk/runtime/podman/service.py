"""Podman's own service: what it is told, how it is started, and what it says of itself.

It runs as a child of the worker and goes with it; the containers and their conmons do not. Its settings are ours and
in a file of ours: cgroups by their files, and events in a file. Its working directory is a scratch folder, because
conmon leaves a file named `oom` where it stands.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import time
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from agentk.runtime import cgroup_text, kernel
from agentk.runtime.launcher import wire

OCI_RUNTIMES = ("crun", "runc", "youki")  # in this order, each by trying
_START_SECONDS = 60.0  # a twentieth of one, but for a slow machine's first
_CONF, _SOCKET, _SCRATCH = "containers.conf", "{}.sock", "scratch"


class Unstartable(Exception):
    """Podman cannot be used here; the words say why."""


class Refused(Exception):
    """Podman said no, in its own words."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class Service:
    """One process of `podman system service`."""

    process: subprocess.Popen[bytes]
    socket: Path
    pid: int  # of the process that serves, which without root is not the one that was started

    def ends(self) -> bool:
        """Whether it has ended."""
        return self.process.poll() is not None


def binary() -> str:
    """Podman's path. Raises Unstartable."""
    found = shutil.which("podman")
    if found is None:
        raise Unstartable("there is no podman in PATH")
    return found


def oci_runtimes() -> list[str]:
    """Names of those that are installed, best first."""
    return [name for name in OCI_RUNTIMES if shutil.which(name)]


def known_runtimes(files: Sequence[Path]) -> dict[str, list[str]]:
    """Those that this machine's own settings name, with where their programs are: ours are read instead of them."""
    found: dict[str, list[str]] = {}
    for file in files:
        try:
            table = tomllib.loads(file.read_text()).get("engine", {}).get("runtimes", {})
        except (OSError, ValueError, AttributeError):
            continue
        found |= {str(name): [str(path) for path in paths] for name, paths in table.items()}
    return found


def settings(runtimes: Sequence[str], known: Mapping[str, Sequence[str]]) -> str:
    """The text of containers.conf."""
    engine = ['cgroup_manager="cgroupfs"', 'events_logger="file"']
    engine += [f'runtime="{runtimes[0]}"'] if runtimes else []
    lines = ["[engine]", *engine, "[engine.runtimes]"]
    lines += [f"{json.dumps(name)}={json.dumps(list(paths))}" for name, paths in known.items()]
    return "\n".join([*lines, ""])


def start(folder: Path, oci_runtime: str) -> Service:
    """A service of ours, which answers. `folder` is ours alone. Raises Unstartable.

    One for each OCI runtime: what a container is to be run by is not heard by every Podman's `create`.
    """
    podman, runtimes = binary(), oci_runtimes()
    if not runtimes:
        raise Unstartable(f"none of {', '.join(OCI_RUNTIMES)} is in PATH")
    scratch, path = folder / _SCRATCH, folder / _SOCKET.format(oci_runtime)
    scratch.mkdir(mode=0o700, exist_ok=True)
    (folder / _CONF).write_text(settings(runtimes, known_runtimes(_theirs())))
    path.unlink(missing_ok=True)
    command = [podman, f"--runtime={oci_runtime}", "system", "service", "--time=0", f"unix://{path}"]
    env = {**os.environ, "CONTAINERS_CONF": str(folder / _CONF)}
    said = folder / f"{oci_runtime}.log"
    with said.open("wb") as log:
        if os.geteuid() != 0:
            _begin_namespaces(podman, env, log)
        process = subprocess.Popen(
            command, env=env, cwd=scratch, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=_tie
        )
    deadline = time.monotonic() + _START_SECONDS
    while (pid := _serving(path)) is None:
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            process.wait()
            raise Unstartable(f"its service did not start: {_last_words(said)}")
        time.sleep(0.005)
    return Service(process, path, pid)


def _begin_namespaces(podman: str, env: Mapping[str, str], log: IO[bytes]) -> None:
    """Without root, whichever command of Podman's is the first makes the namespaces of all that follow, and a process
    that keeps them for this user. A service that was the first would serve by a child, which no death of ours ends.

    That process outlives us: it begins where our launcher is, for a group of ours goes only when it is empty.
    """
    group = _group_of(os.getppid())

    def prepare() -> None:
        _tie()
        if group is not None:
            cgroup_text.write(group / "cgroup.procs", 0)

    try:
        subprocess.run(
            [podman, "unshare", "true"],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=prepare,
            timeout=_START_SECONDS,
            check=False,  # the service then says why, and better
        )
    except subprocess.TimeoutExpired:
        raise Unstartable(f"`podman unshare true` did not end within {_START_SECONDS:.0f} s") from None


def _group_of(pid: int) -> Path | None:
    """Its group where groups are unified."""
    entries = cgroup_text.mount_entries(cgroup_text.read(Path("/proc/self/mountinfo")) or "")
    point = next((entry.point for entry in entries if entry.fstype == "cgroup2"), None)
    path = cgroup_text.own_groups(cgroup_text.read(Path(f"/proc/{pid}/cgroup")) or "").get("")
    return point / path.lstrip("/") if point and path else None


def _theirs() -> list[Path]:
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path(os.environ.get("HOME") or "/") / ".config")
    return [folder / "containers" / _CONF for folder in (Path("/usr/share"), Path("/etc"), home)]


def _tie() -> None:
    """In the child: it ends with us."""
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)


def _serving(path: Path) -> int | None:
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(str(path))
        except OSError:
            return None
        return wire.peer(connection)[0]


def _last_words(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1][-300:] if lines else "it said nothing"
