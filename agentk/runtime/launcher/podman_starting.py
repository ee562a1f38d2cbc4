"""Making one Podman box, as a machine that never waits: what every box gets, then the stage, the container, the door
that listens in its network, its handle on disk, and only then the word to go on.

Until that word its first process waits at a FIFO that we hold open. Whatever fails takes everything back; what a death
of ours leaves half-made is removed by the launcher that comes after us, and what is whole is told the word by it.
"""

import getpass
import os
import shutil
import socket
from pathlib import Path
from typing import Any

from agentk.api import errors
from agentk.runtime import box as words
from agentk.runtime.launcher import (
    child,
    doors,
    ending,
    output,
    podman_ending,
    podman_stage,
    processes,
    starting,
)
from agentk.runtime.launcher.crash import crashpoint
from agentk.runtime.launcher.loop import READ
from agentk.runtime.launcher.world import World, boottime, now_text
from agentk.runtime.podman import probing, spec

_MESSAGE_BYTES = 4096
_BECOME_SECONDS = 0.002
_AGAIN_SECONDS = 0.05
Told = dict[str, Any] | errors.AgentkError


class Attempt(starting.Attempt):
    """One box being made."""

    _wanted: child.Order
    _child = 0

    def _prepare(self) -> None:
        world, box, live = self._world, self._box, self._live
        unenforced = self._workspace()
        order = starting.make_order(world, box)
        live.tools = Path(order.shown.staged).name
        crashpoint("start.before-intent")
        world.records.intend(box)
        world.lives[box.id] = live
        crashpoint("start.after-intent")
        self._limit(unenforced)
        crashpoint("start.after-group")
        self._open_door()
        shown = world.make_fifo_folder(box)
        fifos = output.open_fifos(world.records.path(box.id), box.host_uid, shown, box.stdin)
        live.go = podman_ending.open_go(world, box)
        live.output = ending.open_output(world, live, fifos)
        crashpoint("start.after-fifos")
        self._timer = world.loop.after(starting.START_SECONDS, self._too_slow)
        self._wanted = order
        self._serve({})

    def _serve(self, _: Told) -> None:
        self._world.podman.ready(self._guarded(self._hold))

    def _open_door(self) -> None:
        self._live.gate = self._world.open_gate(self._box)

    def _guarded(self, step: Any) -> Any:
        """The next step, unless this was given up meanwhile; what it raises takes everything back."""

        def act(told: Told) -> None:
            if self._world.starting.get(self._live.box.id) is not self:
                return
            try:
                if isinstance(told, errors.AgentkError):
                    raise errors.RuntimeRefused(told.message, hint=told.hint)
                step(told)
            except errors.AgentkError as error:
                self.fail(error)
            except (OSError, ValueError, KeyError) as error:
                self.fail(errors.RuntimeRefused(f"cannot make the box: {error}"))

        return act

    def _hold(self, _: Told) -> None:
        """Its image, which must not be removed as long as a box is made of it."""
        if self._box.image:
            self._world.podman.ask("hold", self._guarded(self._stage), image=self._box.image)
        else:
            self._stage({"path": ""})

    def _stage(self, told: Told) -> None:
        assert isinstance(told, dict)
        world, box = self._world, self._box
        if box.image:
            crashpoint("image.after-hold")
        point = world.podman.stage(box)
        point.mkdir(mode=0o700, exist_ok=True)
        order = podman_stage.Order(
            box=self._wanted.box,
            point=point,
            host=world.settings.host,
            shown=self._wanted.shown,
            door=f"{doors.INSIDE}/{box.id}",
            attach_workspace=world.workspaces.attach,
            workspace=world.workspaces.tree(box.uid),
            image=str(told["path"]),
        )
        held = [order.workspace] if order.workspace >= 0 else []
        try:
            joined = podman_stage.spaces(world.podman.service_pid, world.settings.rootless)
        except (FileNotFoundError, ProcessLookupError):  # it died since we heard of it: another is started
            for fd in held:
                os.close(fd)
            again = self._guarded(self._serve)
            world.loop.after(_AGAIN_SECONDS, lambda: again({}))
            return
        given = [*joined, *held]
        ours, theirs = socket.socketpair()
        try:
            self._child = podman_stage.fork(joined, order, theirs)
        finally:
            theirs.close()
            for fd in given:
                os.close(fd)
        self._hear(ours, self._staged)

    def _hear(self, channel: socket.socket, step: Any) -> None:
        """Watch for a child's one message."""
        self._channel = channel
        channel.setblocking(False)
        guarded = self._guarded(lambda _: step())
        self._world.loop.watch(channel.fileno(), READ, lambda _: guarded({}))

    def _child_ended(self) -> None:
        """It said what it had to say."""
        assert self._channel is not None
        self._world.loop.forget(self._channel.fileno())
        self._channel.close()
        self._channel = None
        ending.bury(self._world, self._child)

    def _staged(self) -> None:
        assert self._channel is not None
        said, fds, _, _ = socket.recv_fds(self._channel, _MESSAGE_BYTES, 2, socket.MSG_CMSG_CLOEXEC)
        self._live.tree = tuple(fds)
        self._child_ended()
        if said != podman_stage.MADE:
            why = starting.message_of(said).get("error") or "its files could not be put together"
            raise errors.RuntimeRefused(f"cannot make the box: {why}")
        crashpoint("podman.after-stage")
        self._world.podman.ask("run", self._guarded(self._contained), spec=self._spec())

    def _spec(self) -> dict[str, Any]:
        world, box = self._world, self._box
        settings = world.settings
        place = spec.Place(
            name=world.podman.name(box.id),
            stage=str(world.podman.stage(box)),
            instance=world.podman.instance,
            cgroup_parent=world.groups.in_hierarchy(box.namespace, box.cgroup),
            ids=world.podman.ids(box),
            seccomp=world.podman.seccomp(box.seccomp),
            hard_open_files=settings.host.hard_open_files,
            hard_processes=world.podman.hard_processes,
            masks=settings.host.masks,
            groups=world.groups.version != "none",
        )
        return spec.render(box, place)

    def _contained(self, told: Told) -> None:
        """It stands, and waits for our word."""
        assert isinstance(told, dict)
        crashpoint("podman.after-start")
        world, box, live = self._world, self._box, self._live
        live.container = str(told["container"])
        live.keeper = processes.identify(int(told["conmon"]))
        live.guest = processes.identify(int(told["pid"]))
        if live.keeper is None or live.guest is None:
            raise errors.RuntimeRefused("the box ended before it began")
        if world.groups.version != "none" and live.guest.pid not in world.groups.pids(
            box.namespace, box.cgroup, live.leaf
        ):
            raise errors.RuntimeRefused("the box is not in its cgroup")
        pidfd = processes.open_pidfd(live.guest)
        if pidfd is None:
            raise errors.RuntimeRefused("the box ended before it began")
        live.keeper_fd, live.ours = pidfd, False
        self._join({})

    def _join(self, _: Told) -> None:
        """Podman answers a moment before the OCI runtime has become our shell. Until then it hides its namespaces, and
        who is no root may not join them."""
        world, guest = self._world, self._live.guest
        if guest is None or processes.identify(guest.pid) != guest:
            raise errors.RuntimeRefused("the box ended before it began")
        if not podman_ending.is_waiting(guest.pid):
            again = self._guarded(self._join)
            world.loop.after(_BECOME_SECONDS, lambda: again({}))
            return
        self._child, channel = doors.fork_relisten(guest.pid, world.settings.rootless)
        self._hear(channel, self._listens)

    def _listens(self) -> None:
        assert self._channel is not None
        self._live.inside = doors.received(self._channel)
        self._child_ended()
        crashpoint("start.after-listener")
        world, live = self._world, self._live
        podman_ending.let_stages_go(world, [world.podman.stage(live.box)])  # it has its own mounts
        live.started_at, live.started_boottime = now_text(), boottime()
        crashpoint("start.before-handle")
        world.records.write_handle(live.box.id, starting.handle(live))
        crashpoint("start.after-handle")
        podman_ending.say_go(live)
        crashpoint("start.after-release")
        world.records.mark_begun(live.box.id)
        self._begun()

    def _begun(self) -> None:
        """It has heard our word."""
        self._running()


def start(world: World, box: words.Box, answer: starting.Answer) -> None:
    """As `starting.start` for one whose turn it is."""
    if shutil.which("podman") is None:
        raise errors.RuntimeRefused("there is no podman", hint="agentk doctor  # says how to get it")
    if world.settings.rootless:
        numbers = probing.uids(True, getpass.getuser())
        if not numbers.ok:  # the agent would be root inside, or somebody else than the owner of its files
            raise errors.RuntimeRefused(f"podman: {numbers.message}", hint=numbers.fix)
    if box.waits:
        from agentk.runtime.launcher import podman_waiting  # it is made of this file's parts

        podman_waiting.Attempt(world, box, answer).begin()
    else:
        Attempt(world, box, answer).begin()
