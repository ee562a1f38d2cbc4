"""A box as nsjail's own configuration (protobuf text). Pure: the same box and host give the same text.

It goes to nsjail through a descriptor, never by argv or a file: argv is everybody's to read in /proc, and the text
holds the environment, which may hold Secrets. What does not change is in `runtimes/nsjail/base.cfg`.

The first process of a box waits for the launcher's word before it becomes the agent, so a box is never half-made:
it tells that it is there, and goes on only when its limits are checked and its handle is on disk.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agentk.runtime.seccomp import kafel

INSIDE_UID = 1000  # of the guest, in its own user namespace
HANDSHAKE_FD = 3
TOOLS_BIN = "/opt/agentk/bin"
TOOLS_LIB = "/opt/agentk/lib"
DEFAULT_PATH = f"{TOOLS_BIN}:/usr/local/bin:/usr/bin:/bin"
INIT = f"{TOOLS_BIN}/init"
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")  # all that a box has
GATE = "/run/agentk/gate.sock"
# Where programs written for another kernel look for its socket. The box may remove them: /tmp is its own.
GATE_LINKS = ("/tmp/agentos.sock", "/tmp/clove.sock")
# 127 and 126 as a shell has them: the init would answer 2 for both.
UNTOLD = 125  # the box's exit code when its launcher ended before it said go on
_WAIT = f"echo r >&{HANDSHAKE_FD}; read -r _ <&{HANDSHAKE_FD} || exit {UNTOLD}; "
_HANG_UP = f"exec {HANDSHAKE_FD}<&-; "
_ENTER = "echo 0 >&{0} || exit 125; exec {0}>&-; "
# What could make the shell, or a library in it, run the agent's code before it is in its cgroup: set only after.
_LATE = ("BASH_ENV", "ENV", "GCONV_PATH", "GLIBC_TUNABLES", "LOCPATH", "PS4")
_NEVER = ("SHELLOPTS", "BASHOPTS")
FIND = (
    'no() { echo "agentk: $1: $2" >&2; exit "$3"; }; '
    'case "$1" in */*) [ -e "$1" ] || no "$1" "not found" 127; [ -x "$1" ] || no "$1" "cannot be executed" 126;; '
    '*) command -v -- "$1" >/dev/null 2>&1 || no "$1" "not found" 127;; esac; '
)
POLICIES = kafel.DEFAULTS
_MIB = 1024 * 1024


@dataclass(frozen=True)
class Host:
    """What of this machine a box is made of. Read once by the launcher."""

    links: Mapping[str, str]  # "/bin" → "usr/bin", where the host has a link
    folders: Sequence[str]  # host directories shown read-only at their own place
    masks: Sequence[str] = ()  # files of /proc that tell about the host
    hard_open_files: int = 4096
    hard_stack_bytes: int = -1
    nice: int = 0  # may only rise, so it is written as it is


@dataclass(frozen=True)
class Entry:
    """One mount made of a path that the child staged: reachable for the mapped uid."""

    source: str
    target: str
    read_only: bool = True


@dataclass(frozen=True)
class Jail:
    """Everything `render` needs of one box."""

    argv: Sequence[str]
    hostname: str
    cwd: str
    env: Mapping[str, str]
    outside_uid: int
    open_files: int
    tmp_bytes: int
    seccomp: str = ""  # kafel text, quoted: quoting it takes longer than all the rest
    groups: int = 0  # how many cgroup files the first process has to enter by
    entries: Sequence[Entry] = ()
    tmpfs: Sequence[tuple[str, int]] = ()  # target, bytes
    waits: bool = False  # argv goes on listening where its first process did


def bootstrap(jail: Jail, init: str = f"{INIT} -- ") -> list[str]:
    """The command of PID 1: enter the cgroup, tell that we are there, wait for the word, become the init of argv."""
    enter = "".join(_ENTER.format(HANDSHAKE_FD + 1 + number) for number in range(jail.groups))
    exports = "".join(f"export {name}={shlex.quote(value)}; " for name, value in late(jail.env).items())
    wait = _WAIT if jail.waits else _WAIT + _HANG_UP
    return ["/bin/sh", "-c", f'{enter}{wait}{FIND}{exports}exec {init}"$@"', "sh", *jail.argv]


def is_bootstrap(command_line: bytes) -> bool:
    """Whether a process (by its /proc/PID/cmdline) is PID 1 of a box that has not become its init yet."""
    words = command_line.split(b"\0")
    return words[:2] == [b"/bin/sh", b"-c"] and len(words) > 2 and _WAIT.encode() in words[2]


def late(env: Mapping[str, str]) -> dict[str, str]:
    """What is set only when the first process has heard its word."""
    return {name: value for name, value in env.items() if _is_late(name)}


def _is_late(name: str) -> bool:
    return name.startswith("LD_") or name in _LATE


def environment(env: Mapping[str, str]) -> dict[str, str]:
    """What every box has, under what its manifest says. `python` is found first where its interpreter is."""
    whole = {"PATH": DEFAULT_PATH, "HOME": "/workspace", "PYTHONPATH": TOOLS_LIB, "USER": "agent", **env}
    for name, ours in (("PATH", TOOLS_BIN), ("PYTHONPATH", TOOLS_LIB)):
        if ours not in whole[name].split(":"):
            whole[name] = ":".join(filter(None, (ours, whole[name])))
    return {name: value for name, value in whole.items() if not _is_late(name) and name not in _NEVER}


def render(jail: Jail, host: Host, base: str) -> str:
    """nsjail's configuration for one box; `base` is the text of base.cfg."""
    argv = bootstrap(jail)
    lines = [
        base.rstrip(),
        f"hostname: {quote(jail.hostname)}",
        f"cwd: {quote(jail.cwd)}",
        f"nice_level: {host.nice}",
        f"rlimit_nofile: {min(jail.open_files, host.hard_open_files)}",
        f"rlimit_stack: {_stack_mib(host.hard_stack_bytes)}",
        *(f"pass_fd: {HANDSHAKE_FD + number}" for number in range(jail.groups + 1)),
        *(
            f'{kind} {{ inside_id: "{INSIDE_UID}" outside_id: "{jail.outside_uid}" count: 1 }}'
            for kind in ("uidmap", "gidmap")
        ),
        *(f"envar: {quote(f'{name}={value}')}" for name, value in environment(jail.env).items()),
        *_system(host),
        *(
            _bind(entry.source, entry.target, entry.read_only)
            for entry in jail.entries
            if entry.target == "/dev"
        ),
        *(
            _tmpfs(place, jail.tmp_bytes) for place in ("/tmp", "/dev/shm")
        ),  # what is mounted in /tmp comes after
        *(
            _bind(entry.source, entry.target, entry.read_only)
            for entry in jail.entries
            if entry.target != "/dev"
        ),
        *(_tmpfs(target, size) for target, size in jail.tmpfs),
        *(_link(GATE, path) for path in GATE_LINKS),  # last: /tmp may be a volume of the box's own
    ]
    if jail.seccomp:
        lines.append(f"seccomp_string: {jail.seccomp}")
    words = " ".join(f"arg: {quote(word)}" for word in argv[1:])
    lines.append(f"exec_bin {{ path: {quote(argv[0])} {words} }}")
    return "\n".join(lines) + "\n"


def policy(folder: Path, name: str, machine: str) -> str:
    """kafel text of one of POLICIES, with what only this `machine` (as of uname) has; quoted."""
    parts = {name: (folder / f"seccomp-{name}.kafel").read_text()}
    special = folder / f"seccomp-{name}.{machine}.kafel"
    if special.is_file():
        parts[f"{name}_machine"] = special.read_text()
    used = ", ".join(f"USE {part}" for part in parts)
    return quote("\n".join(parts.values()) + f"\nPOLICY all {{ {used} }}\nUSE all DEFAULT {POLICIES[name]}\n")


def _system(host: Host) -> list[str]:
    lines = [_bind(folder, folder, True) for folder in host.folders]
    lines += [_link(target, path) for path, target in host.links.items()]
    lines.append('mount { dst: "/proc" fstype: "proc" }')
    lines += [f'mount {{ src: "/dev/null" dst: {quote(mask)} is_bind: true }}' for mask in host.masks]
    return lines


def _bind(source: str, target: str, read_only: bool) -> str:
    writable = "" if read_only else " rw: true"
    return f"mount {{ src: {quote(source)} dst: {quote(target)} is_bind: true nosuid: true nodev: true{writable} }}"


def _tmpfs(target: str, size: int) -> str:
    options = f'options: "size={size},mode=1777"'
    return f'mount {{ dst: {quote(target)} fstype: "tmpfs" {options} rw: true nosuid: true nodev: true }}'


def _link(target: str, path: str) -> str:
    return f"mount {{ src: {quote(target)} dst: {quote(path)} is_symlink: true }}"


def _stack_mib(hard_bytes: int) -> int:
    usual = 8
    return usual if hard_bytes < 0 else min(usual, hard_bytes // _MIB)


def quote(text: str) -> str:
    """A protobuf text string. Bytes of surrogates (file names that are not UTF-8) come through unchanged."""
    raw = text.encode("utf-8", "surrogateescape")
    plain = (chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\{byte:03o}" for byte in raw)
    return f'"{"".join(plain)}"'
