"""The words every runtime shares: what a box is, what was seen of it, how it ended, and the verbs.

Plain frozen data that survives JSON both ways, so a handle written by one process is understood by the next.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

Enforcement = Literal["Strict", "BestEffort"]
Phase = Literal["Starting", "Running", "Exited", "Lost"]
MountKind = Literal["bind", "tmpfs", "workspace", "files", "environment"]
# One of the fixed programs that make an environment: one fetches with the host's network, one installs without any.
Build = Literal["", "fetch-python", "install-python", "fetch-node", "install-node"]


@dataclass(frozen=True)
class Mount:
    """One entry of the box's file tree.

    `bind`: `source` is a host path. `tmpfs`: `size_bytes` is its limit. `workspace`: the agent's own persistent
    directory. `files`: `files` maps relative names to base64 text, written by the launcher (Secrets, ConfigMaps).
    `environment`: `source` is the name of one that was kept, or, in the box that installs it, is being made.
    """

    kind: MountKind
    target: str
    source: str = ""
    read_only: bool = True
    size_bytes: int = 0
    files: Mapping[str, str] = field(default_factory=dict)
    mode: int = 0o444


@dataclass(frozen=True)
class Interpreter:
    """The Python that boxes get: what packages are chosen for."""

    path: str  # inside
    version: str  # "3.11"
    machine: str
    venv_version: str = ""  # of the virtual environment that was asked about


@dataclass(frozen=True)
class Image:
    """A file system that boxes are made of, as it is kept on this machine, and what its maker says of it."""

    id: str  # 64 hexadecimal digits
    digest: str = ""  # of its manifest: sha256:…; "" for one that no manifest was made for
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str = ""
    pulled: bool = False  # just now


@dataclass(frozen=True)
class Login:
    """Who asks a registry. Never written down and never shown."""

    username: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)  # instead of both


@dataclass(frozen=True)
class Limits:
    """What the kernel must hold a box to. None means no limit was asked for."""

    cpu_millis: int | None = None  # thousandths of one CPU
    memory_bytes: int | None = None
    pids: int | None = None
    open_files: int | None = None
    storage_bytes: int | None = None  # /workspace
    cpu_weight: int = 100  # cgroup v2 cpu.weight, 1..10000


@dataclass(frozen=True)
class LogLimits:
    max_bytes: int = 10 * 1024 * 1024  # of one file
    max_files: int = 3
    bytes_per_second: int = 4 * 1024 * 1024  # above this a flood is held back, never dropped


@dataclass(frozen=True)
class Box:
    """Everything a runtime needs to make one attempt of one agent. Pure data, built by control."""

    id: str  # f"{uid}-{attempt}"; an exec: f"{uid}-{attempt}-exec-{n}"
    uid: str  # metadata.uid of the Agent: names its door, its workspace and its cgroup
    namespace: str
    attempt: int  # 1, 2, … one process each
    argv: Sequence[str]
    runtime: str = "nsjail"  # "nsjail" | "podman" | "process"
    leaf: str = "box"  # leaf cgroup below the agent's group: box, exec-N, tool-N
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str = "/workspace"
    hostname: str = "agent"
    host_uid: int = -1  # -1: rootless, the daemon's own uid
    mounts: Sequence[Mount] = ()
    limits: Limits = field(default_factory=Limits)
    log: LogLimits = field(default_factory=LogLimits)
    seccomp: str = "baseline"  # "privileged" | "baseline" | "restricted": runtimes/nsjail/seccomp-NAME.kafel
    enforcement: Enforcement = "Strict"
    stdin: bool = False  # its program reads a pipe that people may write into; else there is nothing to read
    build: Build = ""  # not an agent's: `argv` is then the launcher's own
    oci_runtime: str = ""  # of Podman: crun, runc, runsc, kata, …; "" is what it uses by itself
    image: str = ""  # id of the image its tree is made of; "" shows the host's own
    prefix: str = ""  # a Python prefix other than the host's; "" finds one
    tmp_bytes: int = 64 * 1024 * 1024
    waits: bool = False  # a waiting interpreter, which a later box becomes: `argv` is the launcher's own
    modules: Sequence[str] = ()  # that it imports while it waits
    group: str = ""  # the cgroup's name where it is not `uid`: of the waiting box that became this one
    annotations: Mapping[str, str] = field(
        default_factory=dict
    )  # names for people in listings; never in the jail

    @property
    def cgroup(self) -> str:
        """The name of the agent's group, below its namespace's."""
        return self.group or self.uid


# What a waiting box gets when it becomes another. All else is settled when it is made, and must be the same.
BROUGHT = frozenset(
    {"id", "uid", "attempt", "argv", "env", "cwd", "hostname", "mounts", "limits", "log", "enforcement"}
    | {"annotations", "waits", "modules", "group"}
)
BROUGHT_MOUNTS = ("files", "workspace")  # of its mounts, by kind


@dataclass(frozen=True)
class Process:
    """Identity of a process that a reused pid cannot fake."""

    pid: int
    start_ticks: int  # field 22 of /proc/PID/stat
    boot_id: str


@dataclass(frozen=True)
class Counters:
    """What the kernel counted for the agent's group and the box's leaf. None: this host cannot tell."""

    cpu_usec: int | None = None
    throttled_periods: int | None = None
    throttled_usec: int | None = None
    memory_bytes: int | None = None
    memory_peak_bytes: int | None = None
    oom_kills: int | None = None
    pids: int | None = None
    pids_denied: int | None = None
    storage_bytes: int | None = None
    log_bytes: int = 0
    log_held_back_usec: int = 0


@dataclass(frozen=True)
class Intent:
    """Why we ended it: written before the signal, so that a crash between does not lose the reason."""

    reason: str  # a termination reason of the API: Killed, DeadlineExceeded, …
    message: str = ""


@dataclass(frozen=True)
class Exit:
    """How a box ended, and which source said so."""

    code: int | None  # 0..255, or None when only a signal or nothing is known
    signal: int | None
    source: Literal["wait", "log", "intent", "counter", "none"]
    finished_at: str  # RFC 3339, UTC, microseconds
    counters: Counters = field(default_factory=Counters)
    intent: Intent | None = None
    message: str = ""  # nsjail's own words when it refused


@dataclass(frozen=True)
class Seen:
    """One box as the runtime sees it now."""

    id: str
    uid: str
    namespace: str
    attempt: int
    leaf: str
    phase: Phase
    process: Process | None = None  # PID 1 of the box, in the host's numbering
    started_at: str = ""  # RFC 3339, UTC
    started_boottime: float = 0.0  # CLOCK_BOOTTIME seconds, of boot `process.boot_id`
    exit: Exit | None = None
    unenforced: Sequence[str] = ()  # limits asked for that this host does not hold, "memory: why"
    frozen: bool = False
    workspace: str = ""  # "quota" | "tmpfs" | "image" | "directory" (no limit)
    log_path: str = ""
    waits: bool = False  # ready to be claimed, and nobody's yet
    annotations: Mapping[str, str] = field(default_factory=dict)  # Box.annotations, handed back as given


@dataclass(frozen=True)
class Finding:
    """One line of `probe()` and `agentk doctor`."""

    name: str  # "user namespaces", "cgroup memory", …
    ok: bool
    message: str
    fix: str = ""  # the exact command that mends it
    needed: bool = True  # False: only some features want it


@dataclass(frozen=True)
class Probe:
    available: bool
    reason: str  # why not, in one sentence; "" when available
    findings: Sequence[Finding] = ()


@dataclass(frozen=True)
class ExecResult:
    exit: Exit
    stdout: bytes
    stderr: bytes
    timed_out: bool = False
    stdout_truncated: bool = (
        False  # more was said than was asked for: the first and the last half of that are here
    )
    stderr_truncated: bool = False
    cancelled: bool = False  # it was ended before its time: taken back, or its box ended
    unenforced: Sequence[str] = ()  # as of Seen, of the limits asked for this command

    @property
    def truncated(self) -> bool:
        return self.stdout_truncated or self.stderr_truncated


class Runtime(Protocol):
    """Every verb is repeatable: doing it twice is doing it once; removing nothing succeeds."""

    async def probe(self, kind: str = "nsjail") -> Probe: ...
    async def start(self, box: Box) -> Seen:
        """Make the box and run it. Raises RuntimeRefused (nothing is left behind) when a limit cannot be held."""
        ...

    async def claim(self, waiting_id: str, box: Box) -> Seen:
        """Make a box that waits this one, and run it. Raises Conflict or NotFound when it cannot be this one."""
        ...

    async def signal(self, box_id: str, signal: int, intent: Intent | None = None) -> None: ...
    async def kill(self, box_id: str, intent: Intent) -> None:
        """SIGKILL to the whole tree at once, through the cgroup."""
        ...

    async def list(self) -> Sequence[Seen]: ...
    async def counters(self, box_id: str) -> Counters: ...
    async def remove(self, box_id: str) -> None:
        """Forget an ended box (kills it first if it runs): cgroup leaf, FIFOs, record. Logs stay."""
        ...

    async def release(self, namespace: str, uid: str) -> None:
        """Forget an agent: its boxes, group, door, workspace and logs."""
        ...

    async def exec(self, box_id: str, argv: Sequence[str], timeout_seconds: float) -> ExecResult: ...
    async def freeze(self, box_id: str) -> None: ...
    async def thaw(self, box_id: str) -> None: ...
    def changes(self) -> AsyncIterator[str]:
        """Agent uids whose boxes changed by themselves (started, ended, launcher came back)."""
        ...
