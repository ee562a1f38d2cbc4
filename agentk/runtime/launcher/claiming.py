"""A waiting box becomes an agent's: intent, limits, workspace and door, the mounts by a child, the record under its new
name, and then the order, which its interpreter is from then on.

Until the order is sent the waiting program can only leave: it reads the end of its channel when we die, and whoever
comes after us ends it. From the moment the record has its new name the box is found under that, as one that was
perhaps never told to go on. So it is never run twice and never lost. A waiting box is claimed once; whatever fails
after the intent ends it.
"""

import dataclasses
import os
import shutil
import socket

from agentk.api import errors
from agentk.runtime import box as words
from agentk.runtime import nsjail
from agentk.runtime.launcher import (
    boxes,
    doors,
    ending,
    handing,
    loop,
    moving,
    podman_ending,
    podman_waiting,
    starting,
)
from agentk.runtime.launcher.crash import crashpoint
from agentk.runtime.launcher.world import Live, World, boottime, now_text

_SECONDS = 30.0  # for a machine that swaps; usually a few ms


def claim(world: World, waiting_id: str, box: words.Box, answer: starting.Answer) -> None:
    """Repeatable: a box that is there, or on its way, is answered for."""
    if world.knows(box, answer):
        return
    live = world.lives.get(waiting_id)
    if live is None:
        raise errors.NotFound(f"there is no waiting box {waiting_id}")
    if live.phase != "Running" or not live.box.waits or live.channel is None or live.frozen:
        raise errors.Conflict(f"{waiting_id} does not wait to be claimed")
    check_fits(live.box, box)
    owner = world.workspaces.owner(box.uid)
    if owner not in (None, os.geteuid() if box.host_uid < 0 else box.host_uid):
        raise errors.Conflict("the agent's workspace belongs to another uid than the waiting box has")
    Claim(world, live, box, answer).begin()


def check_fits(waiting: words.Box, box: words.Box) -> None:
    """Raises Conflict naming what a waiting box cannot become any more. Pure."""
    if box.waits or box.group:
        raise errors.BadRequest("a box that is claimed neither waits nor names a group")
    for field in dataclasses.fields(words.Box):
        if field.name not in words.BROUGHT and getattr(waiting, field.name) != getattr(box, field.name):
            raise errors.Conflict(f"the waiting box has another {field.name}")
    if _made(waiting) != _made(box):
        raise errors.Conflict("the waiting box has other mounts")
    asked, held = box.limits.open_files, waiting.limits.open_files
    if asked != held:
        raise errors.Conflict("the waiting box has another limit of open files")


def _made(box: words.Box) -> list[words.Mount]:
    mounts = [mount for mount in box.mounts if mount.kind not in words.BROUGHT_MOUNTS]
    return sorted(mounts, key=lambda mount: mount.target)


class Claim:
    """One on its way."""

    def __init__(self, world: World, waiting: Live, box: words.Box, answer: starting.Answer) -> None:
        self.answers = [answer]
        self._world, self._waiting, self._box = world, waiting, box
        self._live = dataclasses.replace(
            waiting,
            box=dataclasses.replace(boxes.scrub(box), group=waiting.box.cgroup),
            phase="Starting",
            output=None,
            counts=(0, 0),
            begun=False,
        )
        self._mover: moving.Mover | None = None
        self._timer: loop.Timer | None = None

    @property
    def uid(self) -> str:
        """The agent's."""
        return self._box.uid

    def begin(self) -> None:
        """As far as the fork. Answers by itself."""
        world, live = self._world, self._live
        world.starting[self._box.id] = self
        del world.lives[self._waiting.box.id]
        world.lives[self._box.id] = live
        world.loop.watch(live.keeper_fd, loop.READ, lambda _: self._keeper_ended())
        self._timer = world.loop.after(_SECONDS, self._too_slow)
        try:
            self._prepare()
        except errors.AgentkError as error:
            self.fail(error)
        except (OSError, ValueError) as error:
            self.fail(errors.RuntimeRefused(f"cannot claim the box: {error}"))

    def _prepare(self) -> None:
        world, box, live = self._world, self._box, self._live
        crashpoint("claim.before-intent")
        world.records.intend_claim(self._waiting.box.id, live.box)
        crashpoint("claim.after-intent")
        if box.runtime == "podman":
            podman_waiting.hand_door_over(world, self._waiting.box, box)
        else:
            doors.make(world.settings.doors, box.uid)
        unenforced = starting.ensure_workspace(world, live)
        self._mover = moving.Mover(world, live, box, self._moved)
        unenforced = [*world.groups.make_group(box.namespace, live.box.cgroup, box.limits), *unenforced]
        starting.check_held(box, unenforced)
        live.unenforced = tuple(unenforced)
        live.gate = world.open_gate(box)
        crashpoint("claim.after-door")

    def _moved(self, problem: str) -> None:
        """Its mounts are in place, or why not."""
        if problem:
            self.fail(errors.RuntimeRefused(f"cannot claim the box: {problem}"))
            return
        crashpoint("claim.after-mounts")
        try:
            self._release()
        except OSError as error:
            self.fail(errors.RuntimeRefused(f"cannot claim the box: {error}"))

    def _release(self) -> None:
        world, box, live, waiting = self._world, self._box, self._live, self._waiting
        world.records.claimed(waiting.box.id, box.id)
        crashpoint("claim.after-record")
        live.started_at, live.started_boottime = now_text(), boottime()
        world.records.write_handle(box.id, starting.handle(live))
        crashpoint("claim.after-handle")
        assert waiting.output is not None and live.channel is not None
        fifos = waiting.output.let_go()
        waiting.output = None
        live.output = ending.open_output(world, live, fifos)
        live.let_tree_go()
        tell(live.channel, box)
        live.channel = None
        crashpoint("claim.after-order")
        world.records.mark_begun(box.id)
        live.begun = True
        self._running()

    def _running(self) -> None:
        world, live = self._world, self._live
        self._close()
        live.phase = "Running"
        world.loop.watch(live.keeper_fd, loop.READ, lambda _: ending.keeper_ended(world, live))
        handing.lend(world, live)
        for answer in self.answers:
            answer(world.seen(live))
        forget_log(world, self._waiting.box)
        podman_ending.rename(world, live)
        world.changed(self._waiting)
        world.changed(live)

    def _keeper_ended(self) -> None:
        self.fail(errors.RuntimeRefused("cannot claim the box: it ended while it waited"))

    def _too_slow(self) -> None:
        self.fail(errors.RuntimeRefused(f"the box could not be claimed within {_SECONDS:.0f} s"))

    def fail(self, error: errors.AgentkError) -> None:
        """Nothing of either box stays."""
        world, waiting = self._world, self._waiting
        self._close()
        if waiting.output:
            waiting.output.close()
            waiting.output = None
        world.records.forget(waiting.box.id)
        ending.discard(world, self._live)
        world.remove_door(waiting.box.uid)
        forget_log(world, waiting.box)
        world.changed(waiting)
        for answer in self.answers:
            answer(error)

    def _close(self) -> None:
        self._world.starting.pop(self._box.id, None)
        if self._timer:
            self._timer.cancel()
        if self._mover:
            self._mover.close()
        self._box = self._live.box  # lets go of the secrets


def tell(channel: socket.socket, box: words.Box, streams: tuple[int, ...] = ()) -> None:
    """The order, in a file that has no name, and what is to be its program's input and output. Closes the channel."""
    env = {**nsjail.environment(box.env), **nsjail.late(box.env)}
    fields = [box.cwd, str(len(box.argv)), *box.argv, *(f"{name}={value}" for name, value in env.items())]
    file = os.memfd_create("order", os.MFD_CLOEXEC)
    try:
        with open(file, "wb", closefd=False) as writing:
            writing.write("\0".join(fields).encode("utf-8", "surrogateescape"))
        os.lseek(file, 0, os.SEEK_SET)
        with channel:
            socket.send_fds(channel, [b"o"], [file, *streams])
    finally:
        os.close(file)


def forget_log(world: World, waiting: words.Box) -> None:
    """What it said while it waited is no agent's."""
    shutil.rmtree(world.log_path(waiting).parent, ignore_errors=True)
