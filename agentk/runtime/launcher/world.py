"""What every part of the launcher works on: its settings, its loop, and the boxes it keeps."""

import contextlib
import dataclasses
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from agentk.api import errors
from agentk.runtime import box as words
from agentk.runtime import cgroup, nsjail, workspace
from agentk.runtime.launcher import boxes, checking, child, doors, environments, loop, tools
from agentk.runtime.launcher import output as outputs
from agentk.runtime.podman import spec

if TYPE_CHECKING:
    from agentk.runtime.launcher import moving, podman, sparing

_FDS_OF_OURS = 64
_FDS_A_BOX = 9  # keeper, three or four FIFOs, log, two listeners, and one or two more while it starts


@dataclass(frozen=True)
class Settings:
    """Read once at start."""

    state: Path
    run: Path
    bounds: checking.Bounds
    daemon_uid: int  # who may connect beside root and us, and read logs; -1: nobody else
    rootless: bool
    binary: Path | None
    host: nsjail.Host
    base: str  # runtimes/nsjail/base.cfg
    policies: dict[str, str]  # seccomp name → kafel text
    filters: dict[str, bytes]  # the same for what enters a box; empty where this machine is not known
    stage_at: Path
    max_fds: int
    open_doors: Path  # of boxes without a jail
    nobody: int = -1  # a host uid that owns nothing: who is root inside of a Podman box

    @property
    def max_boxes(self) -> int:
        """How many boxes the descriptor limit has room for."""
        return max(1, (self.max_fds - _FDS_OF_OURS) // _FDS_A_BOX)

    @property
    def doors(self) -> Path:
        return self.run / "doors"

    def door(self, box: words.Box) -> Path:
        """The directory of the box's door."""
        return (self.open_doors if box.runtime == "process" else self.doors) / box.uid


@dataclass
class Live:
    """One box as the launcher keeps it. `box` has no secrets once it runs."""

    box: words.Box
    phase: words.Phase = "Starting"
    keeper: words.Process | None = None  # nsjail, or the shell of the process runtime
    keeper_fd: int = -1  # of a Podman box: its guest's, whose end is the box's
    guest: words.Process | None = None  # PID 1 of the box
    main: words.Process | None = None  # of a box that waits or waited: its interpreter
    channel: socket.socket | None = None  # on which that one hears what to become
    ours: bool = True  # the keeper is our child
    begun: bool = True  # False: an earlier launcher may have died before it told the box to go on
    output: outputs.Output | None = None
    cut: bool = False  # there was a time when nobody had its FIFOs open
    gate: socket.socket | None = None
    inside: socket.socket | None = None
    started_at: str = ""
    started_boottime: float = 0.0
    unenforced: tuple[str, ...] = ()
    workspace: str = ""
    tools: str = ""  # the directory it sees at /opt/agentk: kept as long as it runs
    container: str = ""  # Podman's id
    go: int = -1  # where the first process of a Podman box waits for its word
    tree: tuple[int, ...] = ()  # of a Podman box that waits: its root and its stage, to be added to
    last: words.Counters | None = None  # as they were when it ended, and its leaf was there
    frozen: bool = False
    listens: bool = False  # PID 1 forwards signals by now
    idle_leaf: str = ""  # of a Python that waits beside it for the next command
    warms: bool = False  # a Python that waits beside it is about to be made
    is_bare: bool = False  # its environment is empty, and stays so
    intent: words.Intent | None = None
    exit: words.Exit | None = None
    counts: tuple[int, int] = (0, 0)

    @property
    def leaf(self) -> str:
        """Its leaf in the agent's group. Podman names its own."""
        return f"{spec.LEAF}{self.container}" if self.container else self.box.leaf

    def let_tree_go(self) -> None:
        """Nothing is added to it any more. Repeatable."""
        for fd in self.tree:
            os.close(fd)
        self.tree = ()

    @property
    def log_counts(self) -> tuple[int, int]:
        """Bytes in the log and microseconds held back."""
        return (self.output.log_bytes, self.output.held_back_usec) if self.output else self.counts


class Command(Protocol):
    """One that runs beside a box, as the box's end ends it."""

    box_id: str
    exec_id: str
    kept_bytes: int  # the most of its output that is kept

    @property
    def fed_bytes(self) -> int:
        """Of its input, what is still here."""
        ...

    def end(self) -> None: ...
    def allow(self, more: int) -> None: ...
    def freeze(self, frozen: bool) -> None: ...


class Making(Protocol):
    """A box on its way: being made, or being claimed."""

    answers: list[Callable[[words.Seen | errors.AgentkError], None]]

    @property
    def uid(self) -> str: ...
    def fail(self, error: errors.AgentkError) -> None: ...


class Carrying(Protocol):
    """A workspace that is carried out, or in."""

    uid: str
    writes: bool
    stands: bool  # and its box stands still meanwhile


def _first_exec() -> int:
    """Higher than any number of a launcher before us: what that one left is still being removed by its name."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


@dataclass
class World:
    settings: Settings
    loop: loop.Loop
    records: boxes.Records
    groups: cgroup.Cgroups
    workspaces: workspace.Workspaces
    drain: outputs.Drain
    tools: tools.Tools
    environments: environments.Environments
    lives: dict[str, Live] = field(default_factory=dict)
    starting: dict[str, Making] = field(default_factory=dict)  # box id → the attempt that is making it
    notify: Callable[[dict[str, object]], None] = lambda _: None  # tells every daemon that is connected
    lend: Callable[[list[dict[str, str]], list[int]], None] = lambda *_: None  # copies to daemons that asked
    asking_probe: dict[str, list[Callable[[dict[str, Any] | errors.AgentkError], None]]] = field(
        default_factory=dict
    )  # kind of boxes → who waits for it
    commands: dict[str, Command] = field(default_factory=dict)  # by the id of their own sibling box
    connecting: list[str] = field(default_factory=list)  # boxes that somebody is being connected to
    carriers: list[Carrying] = field(default_factory=list)  # workspaces on their way out or in
    exec_count: int = field(default_factory=_first_exec)
    spares: "sparing.Spares" = field(init=False)
    movers: "moving.Movers" = field(init=False)
    podman: "podman.Podman" = field(init=False)
    boot_id: str = ""

    def site(self, users: int = -1, network: int = -1) -> child.Site:
        """What children are told of this host; `users` and `network`: namespaces to join."""
        settings = self.settings
        return child.Site(
            rootless=settings.rootless,
            binary=settings.binary or settings.state,
            stage_at=settings.stage_at,
            host=settings.host,
            base=settings.base,
            policies=settings.policies,
            attach_workspace=self.workspaces.attach,
            users=users if users >= 0 else self.workspaces.users_fd,
            network=network,
            keep=(self.workspaces.holder_fd,),
        )

    def open_gate(self, box: words.Box) -> socket.socket:
        """The box's door, which listens. Repeatable: then it is another socket at the same place."""
        settings = self.settings
        if box.runtime == "process":
            folder = doors.make_open(settings.open_doors, box.uid, box.host_uid)
        else:
            folder = doors.make(settings.doors, box.uid)
        return doors.open_gate(folder, box.host_uid)

    def fifo_folder(self, box: words.Box) -> Path:
        """Where its FIFOs are. A Podman box opens them by name, so they are in its door."""
        if box.runtime == "podman":
            return self.settings.doors / box.uid / box.id
        return self.records.path(box.id)

    def make_fifo_folder(self, box: words.Box) -> Path:
        """The same, in a door that is there. Repeatable."""
        folder = self.fifo_folder(box)
        folder.mkdir(mode=0o755, exist_ok=True)
        folder.chmod(0o755)
        return folder

    def remove_door(self, uid: str) -> None:
        """Of an agent, whatever its boxes were. Repeatable."""
        doors.remove(self.settings.doors, uid)
        self.remove_open_door(uid)

    def remove_open_door(self, uid: str) -> None:
        """What an agent had while it had no jail. Repeatable."""
        doors.remove(self.settings.open_doors, uid)
        with contextlib.suppress(OSError):  # another's door is in there
            self.settings.open_doors.rmdir()

    def knows(self, box: words.Box, answer: Callable[[words.Seen | errors.AgentkError], None]) -> bool:
        """Whether the box is there, or on its way: then it is answered for. Raises Invalid, or Conflict, for one that
        cannot be."""
        checking.check(box, self.settings.bounds)
        if box.id in self.commands:
            raise errors.Conflict(f"{box.id} is a command beside a box")
        if box.id in self.starting:
            self.starting[box.id].answers.append(answer)
            return True
        if box.id in self.lives:
            answer(self.seen(self.lives[box.id]))
            return True
        if any(one.uid == box.uid and one.writes for one in self.carriers):  # no box begins in half of one
            raise errors.Conflict("the agent's workspace is being restored")
        return False

    def commands_of(self, box_id: str) -> list[Command]:
        """Those that run beside this box."""
        return [command for command in self.commands.values() if command.box_id == box_id]

    def log_path(self, box: words.Box) -> Path:
        """Where this attempt's log is."""
        return self.settings.state / "logs" / f"{box.namespace}_{box.uid}" / f"{box.attempt}.log"

    def changed(self, live: Live) -> None:
        """Something happened to a box by itself."""
        self.notify({"note": "changed", "uid": live.box.uid})

    def seen(self, live: Live) -> words.Seen:
        """One box as the daemon is to see it."""
        box = live.box
        return words.Seen(
            id=box.id,
            uid=box.uid,
            namespace=box.namespace,
            attempt=box.attempt,
            leaf=box.leaf,
            phase=live.phase,
            process=live.guest,
            started_at=live.started_at,
            started_boottime=live.started_boottime,
            exit=live.exit,
            unenforced=live.unenforced,
            frozen=live.frozen,
            workspace=live.workspace,
            waits=box.waits,
            log_path=str(self.log_path(box)),
            annotations=box.annotations,
        )

    def counters(self, live: Live) -> words.Counters:
        """What is counted now."""
        box = live.box
        if live.exit is not None:
            return live.exit.counters
        if live.last is not None:
            return live.last
        counted = self._without_idle(live, self.groups.counters(box.namespace, box.cgroup, live.leaf))
        log_bytes, held_back = live.log_counts
        return words.Counters(
            **{
                **{name: getattr(counted, name) for name in words.Counters.__dataclass_fields__},
                "storage_bytes": self.workspaces.used_bytes(box.uid),
                "log_bytes": log_bytes,
                "log_held_back_usec": held_back,
            }
        )

    def _without_idle(self, live: Live, counted: words.Counters) -> words.Counters:
        """What waits beside a box for its next command is nothing the agent did."""
        if not live.idle_leaf:
            return counted
        idle = self.groups.leaf_counters(live.box.namespace, live.box.cgroup, live.idle_leaf)
        kept = {
            name: max(0, getattr(counted, name) - (getattr(idle, name) or 0))
            for name in ("memory_bytes", "pids")
            if getattr(counted, name) is not None
        }
        return dataclasses.replace(counted, **kept)


def now_text() -> str:
    """RFC 3339, UTC, microseconds."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def boottime() -> float:
    """Seconds of CLOCK_BOOTTIME, which counts on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
