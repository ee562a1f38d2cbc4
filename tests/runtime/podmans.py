"""What tests of Podman boxes ask of this machine, and the look at it afterwards."""

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentk.runtime.launcher import processes
from agentk.runtime.podman import service, spec
from tests.runtime.launching import Place


def why_no_podman() -> str:
    """Why no Podman box can be made here, "" when one can."""
    if shutil.which("podman") is None:
        return "no podman"
    return "" if service.oci_runtimes() else "no OCI runtime"


LABEL_HOLDS = "dev.agentk.holds"  # as images.LABEL_HOLDS, which only the worker may import
needs_podman = [pytest.mark.jail, pytest.mark.skipif(bool(why := why_no_podman()), reason=why or "-")]


def instance(there: Place) -> str:
    return hashlib.sha256(os.fsencode(there.state)).hexdigest()[:16]


def containers(there: Place) -> list[str]:
    """Ids of all that Podman knows of this launcher's."""
    label = f"label={spec.LABEL_INSTANCE}={instance(there)}"
    command = ["podman", "ps", "--all", "--quiet", "--no-trunc", "--filter", label]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def holders(there: Place) -> list[str]:
    """Names of containers that hold an image for its boxes."""
    label = f"label={LABEL_HOLDS}={instance(there)}"
    command = ["podman", "ps", "--all", "--format", "{{.Names}}", "--filter", label]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def groups(there: Place) -> list[Path]:
    """Every group of this instance, in every hierarchy, but the one that made room by moving us into it."""
    name = f"agentk-{there.instance}"
    if f"/{name}/" in Path("/proc/self/cgroup").read_text():
        return []
    return [Path(at) / name for at, folders, _ in os.walk("/sys/fs/cgroup") if name in folders]


def mounts_besides_podmans() -> list[str]:
    """What is mounted here, but for what the Podman of a test that runs at the same time mounts and takes away."""
    told = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line for line in told if not any(mark in line for mark in ("/overlay", "/containers/", "/netns"))]


def conmons(there: Place) -> list[str]:
    """Command lines of processes that watch over its containers, or serve them."""
    return [command for _, command in _kin(there)]


def _kin(there: Place) -> list[tuple[int, str]]:
    marks = (f"agentk-{instance(there)}-", f"{there.run}/podman")
    found = []
    for name in os.listdir("/proc"):
        try:
            command = Path(f"/proc/{name}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if any(mark in command for mark in marks):
            found.append((int(name), command))
    return found


def assert_nothing_is_left(there: Place) -> None:
    """After its launcher ended with all its boxes."""
    assert containers(there) == []
    assert holders(there) == []
    assert groups(there) == []
    assert conmons(there) == []
    root = os.geteuid() == 0
    stages = Path("/run/agentk-stages" if root else f"/tmp/.agentk-stages-{os.geteuid()}") / instance(there)
    assert not stages.is_dir() or os.listdir(stages) == []


def kill(there: Place, mark: str, *, needed: bool = True) -> None:
    """kill -9 of this launcher's processes whose command line holds `mark`; without `needed` there may be none."""
    found = [pid for pid, command in _kin(there) if mark in command]
    assert found or not needed, f"no {mark}"
    for pid in found:
        os.kill(pid, signal.SIGKILL)


def kill_pause() -> None:
    """kill -9 of what keeps the namespaces of this user's Podman."""
    file = Path(os.environ["XDG_RUNTIME_DIR"]) / "libpod" / "tmp" / "pause.pid"
    os.kill(int(file.read_text()), signal.SIGKILL)


def touch(pid: int, name: str) -> None:
    """A file in the workspace of a box, by its first process."""
    Path(f"/proc/{pid}/root/workspace/{name}").touch()


@contextlib.contextmanager
def clinging(pid: int) -> Iterator[None]:
    """A corpse among the processes of a box that nobody buries meanwhile: its first process cannot be gone before."""
    users = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
    command = ["nsenter", "--target", str(pid), "--pid", *users, "sh", "-c", "echo up; exec sleep 1000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None and parent.stdout.readline() == b"up\n"
        parent.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            for child in processes.children(parent.pid):
                os.kill(child, signal.SIGKILL)
            parent.send_signal(signal.SIGCONT)


def inspect(there: Place) -> str:
    """All that Podman tells of its containers, and has of them on its disk."""
    ids = containers(there)
    told = subprocess.run(["podman", "inspect", *ids], capture_output=True, text=True, check=True).stdout
    where = ["podman", "info", "--format", "{{.Store.GraphRoot}} {{.Store.RunRoot}}"]
    roots = subprocess.run(where, capture_output=True, text=True, check=True).stdout.split()
    files = [file for root in roots for one in ids for file in Path(root).glob(f"*/{one}/userdata/**/*")]
    assert any(file.name == "config.json" for file in files)
    return told + "".join(file.read_text(errors="replace") for file in files if file.is_file())
