"""An agent's own mounts, put into the box that waited for it: by a child, which joins the box's namespaces with what it
made in its own.

The box may have run code of its template while it waited, so nothing in it is believed: every part of a path is
entered without following a link, and a directory that is made belongs to the box's uid.
"""

import contextlib
import errno
import os
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from agentk.runtime import box as words
from agentk.runtime import kernel, nsjail
from agentk.runtime.launcher import child, ending, loop, mounts, processes, sparing, starting
from agentk.runtime.launcher.world import Live, World

_ENTER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_DONE = b"ok\n"
_MESSAGE_BYTES = 4096
_PAUSE_SECONDS = 0.05  # what was claimed has the processor first


class Mover:
    """The child. `moved` hears "" when all is in place, else what is wrong."""

    def __init__(self, world: World, live: Live, box: words.Box, moved: Callable[[str], None]) -> None:
        """`live`: of the box that waited; `box`: what it becomes, with its secrets. Raises OSError."""
        self._world, self._moved = world, moved
        guest = processes.open_pidfd(live.guest) if live.guest else None
        if guest is None or live.keeper is None:
            raise ProcessLookupError(errno.ESRCH, "the waiting box has ended")
        # a Podman box sees its door already
        door = "" if live.tree else str(world.settings.door(box))
        try:
            self._spare = world.movers.take(live.keeper.pid, box.uid)
            self._spare.send(child.own_text(box, door), guest, *live.tree)
        finally:
            os.close(guest)
        world.loop.watch(self._spare.channel.fileno(), loop.READ, lambda _: self._heard())

    def _heard(self) -> None:
        try:
            data = self._spare.channel.recv(_MESSAGE_BYTES)
        except BlockingIOError:
            return
        self.close()
        problem = "" if data == _DONE else str(starting.message_of(data).get("error", "its mounts failed"))
        self._moved(problem)

    def close(self) -> None:
        """Nobody waits for it any more. Repeatable."""
        if self._spare.channel.fileno() >= 0:
            self._world.loop.forget(self._spare.channel.fileno())
            self._spare.channel.close()
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._spare.pid, signal.SIGKILL)  # our own, not yet reaped: its pid is nobody else's
            ending.bury(self._world, self._spare.pid)


class Movers:
    """At most one child that is ready to move, while boxes wait. An ordinary user's begins in the namespace of the box
    that is claimed, so none can be ready before that is known."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._spare: sparing.Spare | None = None
        self._due = False

    def take(self, keeper: int, uid: str) -> sparing.Spare:
        """The one that is ready, or a new one for this agent. Raises OSError."""
        spare, self._spare = self._spare, None
        if spare is not None and not spare.is_fit(sparing.marks(self._world)):
            spare.end()
            spare = None
        self.refill()
        return spare or self._make(keeper, uid)

    def refill(self) -> None:
        """Make one soon. Repeatable."""
        if not self._due and not self._world.settings.rootless:
            self._due = True
            self._world.loop.after(_PAUSE_SECONDS, self._fill)

    def close(self) -> None:
        """Nobody is asked for any more."""
        if self._spare:
            self._spare.end()
            self._spare = None

    def _fill(self) -> None:
        self._due = False
        if self._spare is None and any(live.box.waits for live in self._world.lives.values()):
            self._spare = self._make(0, "")

    def _make(self, keeper: int, uid: str) -> sparing.Spare:
        world, site = self._world, self._world.site()
        workspace = world.workspaces.tree(uid) if uid else -1
        ours, theirs = socket.socketpair()
        try:
            ours.setblocking(False)
            pid = child.fork_into(theirs, lambda: _move(site, keeper, workspace, theirs))
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
            if workspace >= 0:
                os.close(workspace)
        return sparing.Spare(pid, ours, sparing.marks(world))


def _move(site: child.Site, keeper: int, workspace: int, channel: socket.socket) -> NoReturn:
    """`workspace`: its mount, where the box may have waited in a namespace that is not the workspaces' own."""
    child.close_all_but({channel.fileno(), site.users, *site.keep} | ({workspace} - {-1}))
    os.umask(0o022)
    child.usual_signals()
    if site.rootless:
        # the namespace between us and the box, which may do in it what root may; the keeper lives there
        with open(f"/proc/{keeper}/ns/user") as user:
            kernel.setns(user.fileno(), kernel.CLONE_NEWUSER)
    kernel.unshare(kernel.CLONE_NEWNS)
    kernel.mount("none", "/", flags=kernel.MS_REC | kernel.MS_SLAVE)
    stage = mounts.Stage.bare(site.stage_at)
    text, (guest, *reach) = child.receive_order(channel)
    box, door = child.own_from(text)
    owner = maker = child.ROOT_INSIDE if site.rootless else box.host_uid

    def attach(target: Path) -> None:
        if workspace >= 0:
            kernel.move_mount(workspace, target)
        else:
            site.attach_workspace(box.uid, target)

    entries = stage.fill_own(box, owner, attach)
    if door:
        entries.append(stage.show_door(Path(door)))
    trees = [(_tree(entry), entry.target) for entry in sorted(entries, key=lambda entry: len(entry.target))]
    if reach:
        maker = child.ROOT_INSIDE  # as in a cold one
        _prepare_tree(reach[0], reach[1], box, [target for _, target in trees])
    child.seal()
    kernel.setns(guest, kernel.CLONE_NEWNS | kernel.CLONE_NEWUTS)
    root = os.open("/", _ENTER)
    for tree, target in trees:
        kernel.move_mount_onto(tree, _enter(root, target, maker))
    socket.sethostname(box.hostname)
    if not reach:
        _name(kernel.writable_copy(_enter(root, "/etc")), box.hostname)
    try:
        _enter(root, box.cwd)
    except OSError as error:
        raise OSError(error.errno, f"cannot enter its directory: {error.strerror}", box.cwd) from None
    channel.send(_DONE)
    os._exit(0)


def _prepare_tree(root: int, stage: int, box: words.Box, targets: Sequence[str]) -> None:
    """Of a Podman box, what is read-only for it by a mount that nobody may change any more: there are places for what
    is to be mounted, and its name, by the very files it sees. Of an image's links none is followed.
    """
    for target in targets:
        folder = root
        for part in filter(None, target.split("/")):
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, 0o755, dir_fd=folder)
            folder = os.open(part, _ENTER, dir_fd=folder)
    _name(os.open("etc", _ENTER, dir_fd=root if box.image else stage), box.hostname)
    _write(stage, "name", f"{box.hostname}\n")


def _tree(entry: nsjail.Entry) -> int:
    tree = kernel.open_tree(entry.source)
    kernel.make_read_only(tree, entry.read_only)
    return tree


def _enter(root: int, path: str, maker: int | None = None) -> int:
    """A directory of the box. Of its parts, those that are not there are made as `maker`."""
    folder = root
    for part in filter(None, path.split("/")):
        try:
            folder = os.open(part, _ENTER, dir_fd=folder)
        except FileNotFoundError:
            if maker is None:
                raise
            _make(folder, part, maker)
            folder = os.open(part, _ENTER, dir_fd=folder)
    return folder


def _make(folder: int, name: str, maker: int) -> None:
    """Its root is read-only for the box, and stays so: we go through a copy of the mount that is nowhere.

    Nothing is closed here: taking a mount apart takes longer than making it, and our end does it while nobody waits.
    """
    copy = kernel.writable_copy(folder)
    with _acting_as(maker):
        os.mkdir(name, 0o755, dir_fd=copy)


@contextlib.contextmanager
def _acting_as(uid: int) -> Iterator[None]:
    if uid != child.ROOT_INSIDE:
        os.setegid(uid)
        os.seteuid(uid)
    try:
        yield
    finally:
        if uid != child.ROOT_INSIDE:
            os.seteuid(0)
            os.setegid(0)


def _name(etc: int, hostname: str) -> None:
    """What tells the box its own name: made for every box, by us."""
    for name, text in mounts.etc_names(hostname).items():
        _write(etc, name, text)


def _write(folder: int, name: str, text: str) -> None:
    flags = os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(name, flags, dir_fd=folder), "w") as file:
        file.write(text)
