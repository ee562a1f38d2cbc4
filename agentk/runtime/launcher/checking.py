"""What the launcher, which may hold root, believes of a Box that the daemon, which does not, asks for.

Pure. Refuses by raising Invalid that names the field. The rules: names cannot lead anywhere, a box runs as a uid of
the reserved block and never as root, it sees of our own directories only staged sources, and every size is bounded.
"""

import errno
import os
import posixpath
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agentk.api import errors
from agentk.runtime import box as words
from agentk.runtime import nsjail
from agentk.runtime.launcher import doors, environments

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,126}")
_UID = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,62}")
_NAMESPACE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_LEAF = re.compile(r"[a-z][a-z0-9-]{0,62}")
_HOSTNAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,62}[A-Za-z0-9])?")
_ENV_NAME = re.compile(
    r"[-._a-zA-Z][-._a-zA-Z0-9]{0,1023}"
)  # as Kubernetes; no shell's function can hide in it
_OCI_RUNTIME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_IMAGE = re.compile(r"[0-9a-f]{64}")
_FILE_NAME = re.compile(r"[^/\x00]{1,255}")
_ARGUMENTS_MAX_BYTES = 1024 * 1024  # argv and env together; the kernel's own limit is 2 MiB
_MOUNTS_MAX = 64
_FILES_MAX = 4096
_BUILDS = ("", "fetch-python", "install-python", "fetch-node", "install-node")
_ANNOTATIONS_MAX = 64
_LOG_FILES_MAX = 1000
_TMP_MAX_BYTES = 1 << 34
_PTS_MAJORS = range(136, 144)
_NULL = os.makedev(1, 3)
_MODULES_MAX = 256
_MODULE = re.compile(r"[A-Za-z_]\w{0,99}(\.[A-Za-z_]\w{0,99}){0,15}", re.ASCII)
_WORKSPACE = "/workspace"  # in every box, asked for or not
# Where a mount would hide what makes the box a box.
_SYSTEM = (
    "/proc",
    "/dev",
    "/opt/agentk",
    "/opt/env",
    "/opt/pip",
    "/run/agentk",
    "/usr",
    "/bin",
    "/sbin",
    "/etc",
    "/sys",
)
_OURS = (*_SYSTEM, *nsjail.GATE_LINKS)


@dataclass(frozen=True)
class Bounds:
    """What this launcher serves."""

    state: Path
    run: Path
    uids: range  # host uids of agents; empty for an ordinary user, whose boxes share its own
    builder: int = -1  # the host uid that makes environments, which no agent has

    @property
    def shown(self) -> tuple[Path, ...]:
        """Directories of ours from which a box may see something."""
        return (self.state / "store" / "sources", self.state / "sources")


def check(box: words.Box, bounds: Bounds) -> None:
    """Raises Invalid."""
    _check_names(box)
    if box.group:
        raise _bad("group", "is the launcher's own to say")
    _check_uid(box, bounds)
    _check_process(box)
    _check_build(box)
    if len(box.mounts) > _MOUNTS_MAX:
        raise _bad("mounts", f"more than {_MOUNTS_MAX}")
    for mount in box.mounts:
        _check_mount(mount, box, bounds)
    _check_apart([_WORKSPACE, *(mount.target for mount in box.mounts)])
    _check_numbers(box)


def check_id(box_id: object) -> str:
    """A box id, which names a directory."""
    if not isinstance(box_id, str) or not _ID.fullmatch(box_id):
        raise _bad("box_id", "is not a box id")
    return box_id


def check_agent(namespace: object, uid: object) -> tuple[str, str]:
    """A namespace and the uid of an agent, which name directories and groups."""
    if not isinstance(namespace, str) or not _NAMESPACE.fullmatch(namespace):
        raise _bad("namespace", "is not a namespace")
    if not isinstance(uid, str) or not _UID.fullmatch(uid):
        raise _bad("uid", "is not an agent's uid")
    return namespace, uid


def check_owner(host_uid: object, bounds: Bounds) -> int:
    """A host uid that an agent may have."""
    if not isinstance(host_uid, int) or isinstance(host_uid, bool):
        raise _bad("host_uid", "must be a number")
    if host_uid not in bounds.uids if bounds.uids else host_uid != -1:
        raise _bad("host_uid", f"{host_uid} is not one of ours")
    return host_uid


def check_argv(argv: Sequence[object]) -> None:
    """A command that execve can take."""
    if not argv or not all(isinstance(word, str) and "\0" not in word for word in argv):
        raise _bad("argv", "must be words without NUL, at least one")
    if not argv[0]:
        raise _bad("argv", "the program has no name")
    if sum(len(str(word)) for word in argv) > _ARGUMENTS_MAX_BYTES:
        raise _bad("argv", f"is over {_ARGUMENTS_MAX_BYTES} bytes")


def check_env(env: object) -> Mapping[str, str]:
    """An environment that execve can take and that no shell reads code in."""
    if not isinstance(env, Mapping) or not _is_text_map(env):
        raise _bad("env", "must be texts by name")
    size = 0
    for name, value in env.items():
        if not _ENV_NAME.fullmatch(name) or "\0" in value:
            raise _bad("env", f"{name!r} is not a variable")
        size += len(name) + len(value) + 2
    if size > _ARGUMENTS_MAX_BYTES:
        raise _bad("env", f"is over {_ARGUMENTS_MAX_BYTES} bytes")
    return env


def check_inside(path: object, field: str) -> None:
    """A plain absolute path of the box."""
    if not isinstance(path, str) or "\0" in path or not path.startswith("/") or len(path) > 4000:
        raise _bad(field, "must be an absolute path")
    if posixpath.normpath(path) != path or path.startswith("//"):  # two slashes stay two: POSIX allows it
        raise _bad(field, f"{path!r} is not in its plain form")


def check_ends(fds: Sequence[int], count: int, tty: bool, givers: set[int]) -> None:
    """Descriptors that a box is to have: only what leads nowhere else. A directory or a file of the host's would be a
    way out of the box, and a terminal that is not the giver's own a way to somebody else."""
    if len(fds) != count:
        raise _bad("fds", f"{count} descriptors must come with it, not {len(fds)}")
    for fd in fds:
        seen = os.fstat(fd)
        is_terminal = stat.S_ISCHR(seen.st_mode) and os.major(seen.st_rdev) in _PTS_MAJORS
        if stat.S_ISCHR(seen.st_mode) and seen.st_rdev == _NULL and not tty:
            continue
        if seen.st_uid not in givers or not (is_terminal or (stat.S_ISFIFO(seen.st_mode) and not tty)):
            raise _bad(
                "fds", "must be a terminal of your own" if tty else "must be pipes or a terminal of your own"
            )


def lend_ends(fds: Sequence[int], owner: int) -> None:
    """The box's uid may open checked ones again by their names in /proc/self/fd, as /dev/stdin is."""
    for fd in fds if owner >= 0 else ():
        if os.fstat(fd).st_rdev != _NULL:
            os.fchown(fd, owner, -1)


def _check_names(box: words.Box) -> None:
    check_id(box.id)
    check_agent(box.namespace, box.uid)
    if not isinstance(box.leaf, str) or not _LEAF.fullmatch(box.leaf):
        raise _bad("leaf", "is not a leaf's name")
    if not isinstance(box.hostname, str) or not _HOSTNAME.fullmatch(box.hostname):
        raise _bad("hostname", "is not a host name of at most 64 characters")
    if box.runtime not in ("nsjail", "podman", "process"):
        raise _bad("runtime", "is none of nsjail, podman, process")
    # a name that Podman's own configuration gives a program to: a path would be run with our rights
    if box.oci_runtime and (not _OCI_RUNTIME.fullmatch(box.oci_runtime) or box.runtime != "podman"):
        raise _bad("oci_runtime", "is not the name of an OCI runtime")
    if not isinstance(box.waits, bool):
        raise _bad("waits", "must be true or false")
    if not isinstance(box.image, str) or (box.image and not _IMAGE.fullmatch(box.image)):
        raise _bad("image", "is not the id of an image")
    if box.image and (box.runtime != "podman" or box.prefix):
        raise _bad("image", "is only for podman, and shows no Python of the host")
    if box.enforcement not in ("Strict", "BestEffort"):
        raise _bad("enforcement", "is neither Strict nor BestEffort")
    if box.seccomp not in ("privileged", "baseline", "restricted"):
        raise _bad("seccomp", "is none of privileged, baseline, restricted")
    if not _is_text_map(box.annotations) or len(box.annotations) > _ANNOTATIONS_MAX:
        raise _bad("annotations", f"must be at most {_ANNOTATIONS_MAX} texts by name")


def _check_uid(box: words.Box, bounds: Bounds) -> None:
    if not isinstance(box.host_uid, int):
        raise _bad("host_uid", "must be a number")
    if box.build:
        if box.host_uid != bounds.builder:
            raise _bad("host_uid", "an environment is made by the uid that is for that alone")
    elif bounds.uids:
        if box.host_uid not in bounds.uids:
            raise _bad("host_uid", f"{box.host_uid} is not one of ours")
    elif box.host_uid != -1:
        raise _bad("host_uid", "boxes of an ordinary user all have its own uid (-1)")


def _check_process(box: words.Box) -> None:
    if box.waits:
        _check_waiting(box)
    else:
        check_argv(box.argv)
    check_env(box.env)
    check_inside(box.cwd, "cwd")
    if not isinstance(box.stdin, bool) or (box.stdin and box.build):
        raise _bad("stdin", "must be true or false, and false for what makes an environment")
    if box.prefix != "":
        check_inside(box.prefix, "prefix")


def _check_waiting(box: words.Box) -> None:
    """It runs the launcher's own program, in a jail, and has nothing of an agent's."""
    if box.argv:
        raise _bad("argv", "is the launcher's own in a box that waits")
    if box.runtime == "process" or box.build:
        raise _bad("waits", "needs a jail")
    if len(box.modules) > _MODULES_MAX or not all(
        isinstance(name, str) and _MODULE.fullmatch(name) for name in box.modules
    ):
        raise _bad("modules", f"must be names of Python modules, at most {_MODULES_MAX}")
    if any(mount.kind in ("files", "workspace") for mount in box.mounts):
        raise _bad("mounts", "a box that waits has no files of an agent's")


def _check_build(box: words.Box) -> None:
    """A fixed program of ours, with nothing of an agent's."""
    if box.build not in _BUILDS:
        raise _bad("build", "is not known")
    if not box.build:
        return
    if box.uid != environments.uid(box.uid.removeprefix(environments.UID_PREFIX)):
        raise _bad("uid", "does not name the environment that is made")
    if box.runtime != "nsjail" or box.seccomp != "baseline" or box.prefix.startswith("/opt/"):
        raise _bad("build", "needs a jail")


def _check_environment(mount: words.Mount, box: words.Box) -> None:
    environments.check_name(mount.source)
    if mount.target not in environments.TARGETS:
        raise _bad("mounts.target", f"{mount.target} is no place for an environment")
    if not mount.read_only and not (
        box.build.startswith("install-") and box.uid == environments.uid(mount.source)
    ):
        raise _bad("mounts.read_only", "an environment is read-only but for the box that makes it")


def _check_mount(mount: words.Mount, box: words.Box, bounds: Bounds) -> None:
    check_inside(mount.target, "mounts.target")
    if not isinstance(mount.read_only, bool):
        raise _bad("mounts.read_only", "must be true or false")
    if not isinstance(mount.size_bytes, int) or isinstance(mount.size_bytes, bool):
        raise _bad("mounts.size_bytes", "must be a number")  # it names a file later
    if not _is_text_map(mount.files):
        raise _bad("mounts.files", "must be base64 texts by name")
    if mount.kind == "environment":
        _check_environment(mount, box)
        return
    if mount.target == "/" or any(_is_below(mount.target, ours) for ours in _OURS):
        raise _bad("mounts.target", f"{mount.target} belongs to the box itself")
    if mount.kind == "bind":
        _check_source(mount, bounds)
    elif mount.kind == "files":
        _check_files(mount)
    elif mount.kind == "tmpfs":
        if not 0 < mount.size_bytes <= _TMP_MAX_BYTES:
            raise _bad("mounts.size_bytes", f"{mount.target}: a tmpfs needs a size")
    elif mount.kind == "workspace":
        if mount.size_bytes < 0:
            raise _bad("mounts.size_bytes", "must not be below 0")
    else:
        raise _bad("mounts.kind", f"{mount.kind!r} is not known")


def _check_apart(targets: Sequence[str]) -> None:
    """A mount inside of another would be made at a place that whoever writes the other one can turn into a link."""
    for target in targets:
        for other in targets:
            if target != other and _is_below(target, other):
                raise _bad("mounts.target", f"{target} is inside of another mount, {other}")


def _check_source(mount: words.Mount, bounds: Bounds) -> None:
    source = mount.source
    check_inside(source, "mounts.source")
    if any(_is_below(source, str(shown)) and source != str(shown) for shown in bounds.shown):
        if not mount.read_only:
            raise _bad("mounts.read_only", "sources are read-only")
        return
    for ours in (bounds.state, bounds.run, doors.OPEN):
        if _is_below(source, str(ours)) or _is_below(str(ours), source):
            raise _bad("mounts.source", f"{source} would show agentk's own directories")
    if any(_is_below(source, kernel_made) for kernel_made in ("/proc", "/sys", "/dev")):
        raise _bad("mounts.source", f"{source} is the kernel's")


def _check_files(mount: words.Mount) -> None:
    if len(mount.files) > _FILES_MAX:
        raise _bad("mounts.files", f"more than {_FILES_MAX}")
    if not isinstance(mount.mode, int) or mount.mode & ~0o777:
        raise _bad("mounts.mode", "is not a file mode")
    for name in mount.files:
        parts = name.split("/")
        if (
            any(part in ("", ".", "..") or not _FILE_NAME.fullmatch(part) for part in parts)
            or len(parts) > 16
        ):
            raise _bad("mounts.files", f"{name!r} is not a relative path")


def _check_numbers(box: words.Box) -> None:
    limits, log = box.limits, box.log
    numbers = {
        "limits.cpu_millis": limits.cpu_millis,
        "limits.memory_bytes": limits.memory_bytes,
        "limits.pids": limits.pids,
        "limits.open_files": limits.open_files,
        "limits.storage_bytes": limits.storage_bytes,
        "limits.cpu_weight": limits.cpu_weight,
        "log.max_bytes": log.max_bytes,
        "log.max_files": log.max_files,
        "log.bytes_per_second": log.bytes_per_second,
        "tmp_bytes": box.tmp_bytes,
        "attempt": box.attempt,
    }
    for name, value in numbers.items():
        if value is not None and (
            not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 1 << 62
        ):
            raise _bad(name, "must be a number above 0")
    if log.max_files > _LOG_FILES_MAX:
        raise _bad("log.max_files", f"is over {_LOG_FILES_MAX}")


def _is_text_map(value: object) -> bool:
    return isinstance(value, dict) and all(
        isinstance(name, str) and isinstance(text, str) for name, text in value.items()
    )


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _bad(field: str, message: str) -> errors.Invalid:
    return errors.Invalid(message, field=f"box.{field}")


def open_beneath(path: str, folder: int = -1) -> int:
    """Open (O_PATH) a path of which no part is a symbolic link. Raises OSError (ELOOP or ENOTDIR at a link).

    From "/", or from the directory of which `folder` is a descriptor.

    Used for directories the daemon writes: it could swap one for a link between a check and its use.
    """
    start = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
    fd = os.open("/", start) if folder < 0 else os.open(".", start, dir_fd=folder)
    parts = [part for part in path.split("/") if part not in ("", ".")]
    try:
        for number, part in enumerate(parts, 1):
            how = os.O_PATH if number == len(parts) else start
            following = os.open(part, how | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
            os.close(fd)
            fd = following
        if stat.S_ISLNK(os.fstat(fd).st_mode):  # O_PATH opens the link itself
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
    except OSError:
        os.close(fd)
        raise
    return fd
